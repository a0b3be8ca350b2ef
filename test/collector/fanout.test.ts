import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import { HttpServer } from '../../collector/http.ts'
import { openStreams } from '../../collector/streams.ts'
import type { LaneRecord } from '../../shared/batch.ts'
import type { Value } from '../../shared/reading.ts'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { send, startCollector } from '../support/collector.ts'
import { openLog } from '../support/embedded-log.ts'
import { events } from '../support/events.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { reading, readings } from '../support/readings.ts'
import { silentLog } from '../support/silent-log.ts'

type Line = Record<string, unknown>

async function text(url: string, accept = '*/*'): Promise<string> {
  const answer = await fetch(url, { headers: { accept } })
  assert.equal(answer.status, 200, url)
  return answer.text()
}

const lines = async (url: string): Promise<Line[]> =>
  (await text(url))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line)

test('records are chosen by offset, time, device and metric', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const minute = 60_000
  const at = (device: string, metric: string, minutes: number) =>
    reading({ device, metric, timeMs: Date.UTC(2026, 0, 1) + minutes * minute, value: minutes })
  await send(url, agent.batch([{ kind: 'readings', readings: [at('a', 'x', 0), at('b', 'x', 1)] }]))
  await send(url, agent.batch([{ kind: 'readings', readings: [at('a', 'y', 2), at('b', 'y', 3)] }]))
  const offsets = async (query: string) =>
    (await lines(`${url}/v1/streams/readings/records?${query}`)).map(({ offset }) => offset)
  assert.deepEqual(await offsets(''), [0, 1, 2, 3])
  assert.deepEqual(await offsets('from=1&to=3'), [1, 2])
  assert.deepEqual(await offsets('from=2026-01-01T00:01Z&to=2026-01-01T00:03:00Z'), [1, 2])
  assert.deepEqual(await offsets('from=2026-01-01T01:02:00%2B01:00'), [2, 3])
  assert.deepEqual(await offsets('from=2026-01-01 00:02'), [2, 3])
  assert.deepEqual(await offsets('device=a'), [0, 2])
  assert.deepEqual(await offsets('device=a&metric=y'), [2])
  assert.deepEqual(await offsets('from=1000'), [])
})

test('values are printed exactly as sent, in both formats', async (t) => {
  const { url } = await startCollector(t)
  const values: [Value, string, string][] = [
    [21.5, '21.5', '21.5'],
    [-0, '-0', '-0'],
    [0.1 + 0.2, '0.30000000000000004', '0.30000000000000004'],
    [1e300, '1e+300', '1e+300'],
    [2 ** 53 - 1, '9007199254740991', '9007199254740991'],
    [18_446_744_073_709_551_615n, '18446744073709551615', '18446744073709551615'],
    [-9_223_372_036_854_775_808n, '-9223372036854775808', '-9223372036854775808'],
    [true, 'true', 'true'],
    [null, '', 'null'],
    ['', '""', '""'],
    ['say "hi", twice\n', '"say ""hi"", twice\n"', '"say \\"hi\\", twice\\n"'],
  ]
  const items = values.map(([value]) => reading({ value, device: 'd,1' }))
  await send(url, new TestAgent().batch([{ kind: 'readings', readings: items }]))

  const ndjson = await text(`${url}/v1/streams/readings/records`)
  const printed = ndjson.trimEnd().split('\n')
  for (const [i, [, , json]] of values.entries())
    assert.ok(printed[i]!.includes(`"value":${json},"quality":"good"`), printed[i])

  const csv = await text(`${url}/v1/streams/readings/records?format=csv`)
  const head = 'offset,agent,incarnation,lane,sequence,device,metric,time,value,quality,arrived\n'
  assert.ok(csv.startsWith(head))
  const time = '2026-01-01T00:00:00.000Z'
  let at = head.length
  for (const [i, [, field]] of values.entries()) {
    const row = `${i},gw-001,${'01'.repeat(16)},bulk,${i + 1},"d,1",temperature,${time},${field},good,`
    assert.equal(csv.slice(at, at + row.length), row)
    at = csv.indexOf('Z\n', at + row.length) + 2
  }
  assert.equal(at, csv.length)
})

test('times keep what is below a millisecond, and far years their digits', async (t) => {
  const { url } = await startCollector(t)
  const times: [number, number, string][] = [
    [Date.UTC(2024, 1, 29, 23, 59, 59, 7), 0, '2024-02-29T23:59:59.007Z'],
    [Date.UTC(2000, 0, 1), 123_000, '2000-01-01T00:00:00.000123Z'],
    [Date.UTC(2099, 11, 31, 1, 2, 3, 4), 5, '2099-12-31T01:02:03.004000005Z'],
    [-1, 0, '1969-12-31T23:59:59.999Z'],
    [Date.UTC(10_000, 0, 1), 0, '+010000-01-01T00:00:00.000Z'],
  ]
  const items = times.map(([timeMs, timeNanos]) => ({ ...reading({ timeMs }), timeNanos }))
  await send(url, new TestAgent().batch([{ kind: 'readings', readings: items }]))
  const found = await lines(`${url}/v1/streams/readings/records`)
  assert.deepEqual(
    found.map(({ time }) => time),
    times.map(([, , time]) => time),
  )
})

test('records other than readings have streams of their own', async (t) => {
  const { url } = await startCollector(t)
  const message: LaneRecord = {
    type: 'quarantine',
    topic: 'sensors/a',
    payload: Buffer.from('no, "number"'),
    size: 12,
    sha256: undefined,
    reason: 'not JSON',
    arrival: { wallMs: Date.UTC(2026, 0, 1), monotonicMs: 5 },
  }
  const records: LaneRecord[] = [
    message,
    { type: 'alert', content: { device: 'a', text: 'hot' } },
    { type: 'clock', content: { offsetMs: 5 } },
    message,
  ]
  const agent = new TestAgent({ lane: 'urgent' })
  await send(
    url,
    agent.batch(
      [
        { kind: 'readings', readings: readings(2) },
        { kind: 'records', records },
        {
          kind: 'gap',
          count: 10,
          reason: 'evicted',
          after: { high: 1, low: 1 },
          series: [{ device: 'a', metric: 'x', count: 10 }],
          fromMs: Date.UTC(2026, 0, 1),
          toMs: Date.UTC(2026, 0, 2),
          atLeast: false,
        },
        { kind: 'readings', readings: readings(1) },
      ],
      { ledger: { received: 17 } },
    ),
  )
  const of = async (stream: string, query = '') => {
    const found = await lines(`${url}/v1/streams/${stream}/records?${query}`)
    return found.map(({ agent: _, incarnation: __, lane: ___, arrived: ____, ...rest }) => rest)
  }
  assert.deepEqual(
    (await of('readings')).map(({ offset, sequence }) => [offset, sequence]),
    [
      [0, 1],
      [1, 2],
      [2, 17],
    ],
  )
  const quarantined = {
    topic: 'sensors/a',
    reason: 'not JSON',
    size: 12,
    payload: Buffer.from('no, "number"').toString('base64'),
    received: '2026-01-01T00:00:00.000Z',
  }
  assert.deepEqual(await of('quarantine'), [
    { offset: 0, sequence: 3, ...quarantined },
    { offset: 1, sequence: 6, ...quarantined },
  ])
  assert.deepEqual(await of('alerts', 'device=a'), [
    { offset: 0, sequence: 4, content: { device: 'a', text: 'hot' } },
  ])
  assert.deepEqual(await of('gaps', 'metric=x'), [
    {
      offset: 0,
      first: 7,
      last: 16,
      count: 10,
      reason: 'evicted',
      series: [{ device: 'a', metric: 'x', count: 10 }],
      from: '2026-01-01T00:00:00.000Z',
      to: '2026-01-02T00:00:00.000Z',
    },
  ])
  const ledger = await of('ledger')
  assert.deepEqual(
    ledger.map(({ offset, sequence, type, content }) => [offset, sequence, type, content]),
    [
      [0, 5, 'clock', { offsetMs: 5 }],
      [1, undefined, 'ledger', { received: 17 }],
    ],
  )
  for (const stream of ['alerts', 'quarantine', 'gaps', 'ledger']) {
    const csv = await text(`${url}/v1/streams/${stream}/records?format=csv`)
    const [head, row] = csv.trimEnd().split('\n')
    // No field of these has a comma but in quotes.
    const fields = row!.replace(/"(?:[^"]|"")*"/g, 'quoted').split(',')
    assert.equal(fields.length, head!.split(',').length, csv)
  }
})

test('a question that makes no sense is answered with what would', async (t) => {
  const { url } = await startCollector(t)
  const cases: [string, number, RegExp][] = [
    ['/v1/streams/sensors/records', 400, /readings, alerts/],
    ['/v1/streams/readings/records?from=yesterday', 400, /2026-01-31T08:00:00Z/],
    ['/v1/streams/readings/records?form=1', 400, /unknown parameter .*form/],
    ['/v1/streams/readings/records?format=xml', 400, /ndjson, csv/],
    ['/v1/streams/ledger/records?device=a', 400, /no device/],
    ['/v1/nothing', 404, /nothing at/],
    ['/v1/streams/%E0%A4%A/records', 400, /percent-encoded/],
  ]
  for (const [path, status, message] of cases) {
    const answer = await fetch(url + path)
    assert.equal(answer.status, status, path)
    assert.match(await answer.text(), message)
  }
  assert.equal((await fetch(`${url}/v1/streams`, { method: 'DELETE' })).status, 405)
  assert.equal((await fetch(`${url}/v1/batches`)).status, 405)
})

test('a tail goes on where the last one ended, by event id', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const stop = new AbortController()
  cleanUp(t, () => stop.abort())
  await send(url, agent.readings(2))
  const path = `${url}/v1/streams/readings/tail`

  const live = events(path, {}, stop.signal)
  const first = live.next()
  // Only what comes from now on, once the tail is there.
  while (!(await (await fetch(`${url}/metrics`)).text()).includes('headgate_collector_readers 1'));
  await send(url, agent.readings(1))
  assert.match((await first).value!, /^id: 2\ndata: \{"offset":2,/)

  const resumed = events(path, { 'last-event-id': '0' }, stop.signal)
  assert.match((await resumed.next()).value!, /^id: 1\n/)
  assert.match((await resumed.next()).value!, /^id: 2\n/)
  const coming = resumed.next()
  await send(url, agent.readings(1))
  assert.match((await coming).value!, /^id: 3\n/)
})

test('a reader that stops and goes on misses nothing and gets nothing twice', async (t) => {
  const log = await openLog(new MemoryDisk())
  const agent = new TestAgent()
  const total = 60_000
  for (let i = 0; i < 6; i++) await log.append(entryOf(agent.readings(total / 6)))
  let opened = 0
  const counting = {
    partitions: log.partitions,
    read: (query: Parameters<typeof log.read>[0]) => {
      opened += 1
      return log.read(query)
    },
    statistics: () => log.statistics(),
  } as unknown as typeof log
  const streams = openStreams(counting, silentLog, async () => ({}), 50)
  const options = { host: '127.0.0.1', port: 0, maxConnections: 10, timeout: 30_000 }
  const server = await HttpServer.open(options, async (incoming, response, url) => {
    await streams.answer(incoming, response, url)
  })
  cleanUp(t, () => server.close())

  let pauses = 0
  const body = await new Promise<string>((resolve, reject) => {
    request(`${server.url}/v1/streams/readings/records?format=csv`, (response) => {
      let received = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => {
        received += chunk
        if (pauses >= 3 || received.length < (pauses + 1) * 1_000_000) return
        pauses += 1
        response.pause()
        setTimeout(() => response.resume(), 400)
      })
      response.on('end', () => resolve(received))
      response.on('error', reject)
    }).end()
  })
  const rows = body.trimEnd().split('\n').slice(1)
  assert.equal(rows.length, total)
  for (const [i, row] of rows.entries()) assert.ok(row.startsWith(`${i},`), row)
  assert.ok(opened > 1, 'the reader never stopped for long enough')
})

test('the collector says how it is', async (t) => {
  const { url } = await startCollector(t)
  assert.equal(await text(`${url}/healthz`), 'ok\n')
  assert.equal(await text(`${url}/readyz`), 'ready\n')
  await send(url, new TestAgent().readings(3, { ledger: { received: 3 } }))
  const streams = JSON.parse(await text(`${url}/v1/streams`))
  assert.equal(streams.readings.readings, 3)
  assert.equal(streams.readings.batches, 1)
  assert.equal(streams.ledger.readings, 1)
  assert.deepEqual(Object.keys(streams), ['readings', 'alerts', 'quarantine', 'gaps', 'ledger'])
  const report = JSON.parse(await text(`${url}/v1/verify`))
  assert.deepEqual([report.frames, report.problems], [1, []])
})
