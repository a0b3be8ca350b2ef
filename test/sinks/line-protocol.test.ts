import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lineProtocol } from '../../collector/sinks/line-protocol.ts'
import { type AdmittedReading, SeriesTable, type Value } from '../../shared/reading.ts'
import { HttpReceiver } from '../support/http-receiver.ts'
import { parseLines } from '../support/line-parser.ts'
import { poll } from '../support/poll.ts'
import { QuestDb } from '../support/questdb/questdb.ts'
import { reading, readings } from '../support/readings.ts'
import { alertRecords, Outlet, readingRecords, sliceOf } from '../support/sinks.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { VictoriaMetrics } from '../support/victoria-metrics.ts'

const timeMs = 1_767_225_600_000

async function start(
  t: TestContext,
  config: object = {},
  stream: 'readings' | 'alerts' = 'readings',
) {
  const receiver = await HttpReceiver.start(t)
  const outlet = await Outlet.make(t, lineProtocol, { url: receiver.url, ...config }, { stream })
  const points = () => receiver.received.flatMap(({ body }) => parseLines(body))
  return { receiver, outlet, points }
}

const valued = (...values: Value[]): AdmittedReading[] => values.map((value) => reading({ value }))

test('every kind of value is read back as what it was', async (t) => {
  const { outlet, points } = await start(t)
  const values = [1, -0.5, 1e300, 2n ** 62n, 2n ** 64n - 1n, true, 'on "hold"\\', null]
  await outlet.write(sliceOf(readingRecords(valued(...values))))
  assert.deepEqual(
    points().map(({ fields }) => fields),
    [
      { value: 1, quality: 0n },
      { value: -0.5, quality: 0n },
      { value: 1e300, quality: 0n },
      { value: 2 ** 62, value_int: 2n ** 62n, quality: 0n },
      { value: 2 ** 64, value_text: '18446744073709551615', quality: 0n },
      { value_bool: true, quality: 0n },
      { value_text: 'on "hold"\\', quality: 0n },
      { quality: 0n },
    ],
  )
})

test('a point has its series as tags and its time to the nanosecond', async (t) => {
  const { outlet, points } = await start(t)
  const series = new SeriesTable().intern('pump, 1', 'in=let temperature', {
    unit: 'Cel',
    labels: { site: 'North Sea', device: 'of a label', empty: '', 'a=b': 'c,d' },
  })
  const precise = { ...reading(), series, timeNanos: 123_456 }
  await outlet.write(sliceOf(readingRecords([precise])))
  assert.deepEqual(points(), [
    {
      measurement: 'in=let temperature',
      tags: {
        'a=b': 'c,d',
        agent: 'gw-001',
        device: 'pump, 1',
        label_device: 'of a label',
        site: 'North Sea',
        unit: 'Cel',
      },
      fields: { value: 21.5, quality: 0n },
      time: 1_767_225_600_000_123_456n,
    },
  ])
})

test('names, tags and fields are as configured', async (t) => {
  const config = {
    measurement: 'plant.{stream}',
    tags: ['metric'],
    fields: ['sequence', 'epsilon', 'received', 'lane'],
  }
  const { outlet, points } = await start(t, config)
  await outlet.write(sliceOf(readingRecords(readings(1))))
  const [{ measurement, tags, fields }] = points() as [ReturnType<typeof points>[0]]
  assert.deepEqual(
    { measurement, tags },
    { measurement: 'plant.readings', tags: { metric: 'temperature' } },
  )
  const received = BigInt(timeMs) * 1000n
  assert.deepEqual(fields, { sequence: 1n, epsilon: 0, received, lane: 'bulk' })
})

test('alerts are points too', async (t) => {
  const { outlet, points } = await start(t, {}, 'alerts')
  await outlet.write(sliceOf(alertRecords(1)))
  assert.equal(JSON.parse(String(points()[0]!.fields.content)).rule, 'range')
})

const inexpressible: [what: string, reading: Partial<AdmittedReading>, reason: RegExp][] = [
  ['a value that is no number', { value: Number.NaN }, /value is NaN/],
  ['an infinite value', { value: Number.NEGATIVE_INFINITY }, /value is -Infinity/],
  ['a text of two lines', { value: 'x\nforged value=1' }, /value_text: a line break/],
  [
    'a device of two lines',
    { series: new SeriesTable().intern('a\nb', 'm') },
    /tag device: a line/,
  ],
  ['a device that ends with \\', { series: new SeriesTable().intern('a\\', 'm') }, /a backslash/],
  ['a metric that begins with #', { series: new SeriesTable().intern('d', '#m') }, /a comment/],
  ['a time that no server knows', { timeMs: 2 ** 47 }, /its time/],
]
for (const [what, change, reason] of inexpressible)
  test(`${what} goes to the dead letter, and the readings around it are written`, async (t) => {
    const { outlet, points } = await start(t)
    const around = readings(2)
    const all = [around[0]!, { ...reading(), ...change }, around[1]!]
    assert.equal(await outlet.write(sliceOf(readingRecords(all))), 'durable')
    assert.deepEqual(
      outlet.refused.map(({ offset }) => offset),
      [1],
    )
    assert.match(outlet.refused[0]!.reason, reason)
    assert.deepEqual(
      points().map(({ fields }) => fields.value),
      [1, 2],
    )
  })

test('what a server refuses of many points is found, and the others are written', async (t) => {
  const { receiver, outlet } = await start(t)
  const written = new Set<unknown>()
  receiver.answer = ({ body }) => {
    const bad = (value: unknown) => value === 300 || value === 777
    const values = parseLines(body).map(({ fields }) => fields.value)
    for (const value of values) if (!bad(value)) written.add(value)
    if (!values.some(bad)) return { status: 204 }
    return { status: 400, body: '{"code":"invalid","message":"partial write: dropped=1"}' }
  }
  await outlet.write(sliceOf(readingRecords(readings(1000))))
  assert.deepEqual(
    outlet.refused.map(({ offset }) => offset),
    [299, 776],
  )
  assert.match(outlet.refused[0]!.reason, /^400 .*partial write/)
  assert.equal(written.size, 998)
  assert.ok(receiver.received.length < 50, `${receiver.received.length} requests`)
})

test('requests are addressed, authorised, compressed and limited as configured', async (t) => {
  const tokenFile = join(await temporaryDirectory(t), 'token')
  await writeFile(tokenFile, 's3cret\n')
  const config = { org: 'plant', bucket: 'a b', tokenFile, maxRecords: 4 }
  const { receiver, outlet } = await start(t, config)
  await outlet.write(sliceOf(readingRecords(readings(10))))
  assert.equal(receiver.received.length, 3)
  const [{ url, headers }] = receiver.received as [(typeof receiver.received)[0]]
  assert.equal(url, '/api/v2/write?precision=ns&org=plant&bucket=a+b')
  assert.equal(headers.authorization, 'Token s3cret')
  assert.equal(headers['content-encoding'], 'gzip')
})

for (const status of [401, 404, 429, 503])
  test(`after ${status} the readings wait, and none goes to the dead letter`, async (t) => {
    const { receiver, outlet } = await start(t)
    receiver.answer = () => ({ status })
    await assert.rejects(outlet.write(sliceOf(readingRecords(readings(3)))), {
      name: 'SinkFailure',
    })
    assert.deepEqual(outlet.refused, [])
  })

test('VictoriaMetrics takes what is written, over its own kill, each reading once', async (t) => {
  const server = await VictoriaMetrics.start(t)
  if (!server) return
  const outlet = await Outlet.make(t, lineProtocol, { url: server.url, maxRecords: 100 })
  const all = readingRecords(readings(1000))
  await server.kill()
  await assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_UNREACHABLE' })
  await server.up()
  await outlet.write(sliceOf(all.slice(0, 400)))
  await outlet.write(sliceOf(all)) // As after a kill of ours: from the beginning.
  const [series] = (await server.export('temperature_value')) as [
    { metric: object; values: number[]; timestamps: number[] },
  ]
  assert.deepEqual(series.metric, {
    __name__: 'temperature_value',
    agent: 'gw-001',
    device: 'pump-1',
  })
  assert.deepEqual(
    series.values,
    all.map(({ offset }) => offset + 1),
  )
  assert.deepEqual(
    series.timestamps,
    all.map(({ fromMs }) => fromMs),
  )
})

test('QuestDB takes what is written, over its own kill, each reading once', async (t) => {
  const server = await QuestDb.start(t)
  if (!server) return
  const outlet = await Outlet.make(t, lineProtocol, { url: server.url, maxRecords: 100 })
  const all = readingRecords(readings(1000))
  await outlet.write(sliceOf(all.slice(0, 400)))
  await server.sql('ALTER TABLE temperature DEDUP ENABLE UPSERT KEYS(timestamp, device)')
  await server.kill()
  await assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_UNREACHABLE' })
  await server.up()
  await outlet.write(sliceOf(all)) // As after a kill of ours: from the beginning.
  // It answers before what it took is to be seen.
  const rows = await poll(async () => {
    const found = await server.sql(
      'SELECT device, agent, value, quality, timestamp FROM temperature',
    )
    return found.length >= 1000 && found
  }, 'all rows are there')
  assert.deepEqual(
    rows,
    all.map(({ offset, fromMs }) => [
      'pump-1',
      'gw-001',
      offset + 1,
      0,
      `${new Date(fromMs).toISOString().slice(0, -1)}000Z`,
    ]),
  )
})

test('what QuestDB refuses goes to the dead letter, and what is around it is written', async (t) => {
  const server = await QuestDb.start(t)
  if (!server) return
  const outlet = await Outlet.make(t, lineProtocol, { url: server.url })
  // A table's name has no slash.
  const strange = new SeriesTable().intern('pump-1', 'in/out')
  const mixed = valued(1, 2, 3)
  await outlet.write(
    sliceOf(readingRecords([mixed[0]!, { ...mixed[1]!, series: strange }, mixed[2]!])),
  )
  assert.deepEqual(
    outlet.refused.map(({ offset }) => offset),
    [1],
  )
  assert.match(outlet.refused[0]!.reason, /^400 .*INVALID_TABLE_NAME/)
  const values = await poll(async () => {
    const found = await server.sql('SELECT value FROM temperature')
    return found.length >= 2 && found.flat()
  }, 'the others are there')
  assert.deepEqual(values.sort(), [1, 3])
})
