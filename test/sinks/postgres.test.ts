import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Collector } from '../../collector/collector.ts'
import { postgres } from '../../collector/sinks/postgres.ts'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import type { SinkKind } from '../../collector/sinks/sink.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { SeriesTable } from '../../shared/reading.ts'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { FileScope } from '../support/file-scope.ts'
import { poll } from '../support/poll.ts'
import { Postgres } from '../support/postgres.ts'
import { reading } from '../support/readings.ts'
import { logIn, startRunner } from '../support/sink-runner.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const scope = new FileScope()
const server = await Postgres.start(scope)
let databases = 0

async function databaseOf(t: TestContext): Promise<string | undefined> {
  if (server) return server.database(`test_${++databases}`)
  t.skip(scope.skipped)
  return undefined
}

function sinksText(url: string, more = ''): string {
  return `sinks: [{ name: history, ${more} postgres: { url: '${url}', wait: 10ms } }]`
}

async function statusOf({ url }: Collector): Promise<SinkStatus> {
  const answer = await fetch(`${url}/v1/sinks`)
  const { sinks } = (await answer.json()) as { sinks: SinkStatus[] }
  return sinks[0]!
}

/** Resolves once the sink has all that the log has. */
function caughtUp(collector: Collector): Promise<SinkStatus> {
  return poll(async () => {
    const status = await statusOf(collector)
    return status.behind === 0 && !status.again && status
  }, 'the sink has all that the log has')
}

function ask({ url }: Collector, what: string, body: object = {}): Promise<Response> {
  return fetch(`${url}/v1/sinks/history/${what}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
}

const maxTime = Date.UTC(2026, 5, 15)

test('a new sink writes the history, and then what comes', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const collector = await startCollector(t, { rest: sinksText(url) })
  const agent = new TestAgent()
  await send(collector.url, agent.readings(3000))
  await caughtUp(collector)
  await send(collector.url, agent.readings(7))
  await caughtUp(collector)

  const [row] = await server!.query(
    'SELECT count(*)::int, sum(value)::int, count(DISTINCT sequence)::int AS sequences FROM headgate.readings',
    url,
  )
  assert.deepEqual(row, { count: 3007, sum: (3007 * 3008) / 2, sequences: 3007 })
})

test('every kind of value is exactly what it was', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const collector = await startCollector(t, { rest: sinksText(url) })
  const series = new SeriesTable().intern('pump-1', 'flow', {
    unit: 'l/s',
    labels: { site: 'Köln' },
    between: 'linear',
    epsilon: 0.25,
  })
  const values = [0.1, -0, 2 ** 53 - 1, 2n ** 62n + 1n, 2n ** 64n - 1n, true, 'off\tand "on"', null]
  const readings = values.map(
    (value, index): AdmittedReading => ({
      ...reading({ value, quality: 8, timeMs: maxTime + index }),
      timeNanos: 123_456,
      series,
    }),
  )
  await send(collector.url, new TestAgent().batch([{ kind: 'readings', readings }]))
  await caughtUp(collector)

  const rows = await server!.query(
    `SELECT value::text, value_int::text, value_bool, value_text FROM headgate.readings ORDER BY log_offset`,
    url,
  )
  const none = { value: null, value_int: null, value_bool: null, value_text: null }
  assert.deepEqual(rows, [
    { ...none, value: '0.1' },
    { ...none, value: '-0' },
    { ...none, value: '9.007199254740991e+15' },
    { ...none, value: '4.611686018427388e+18', value_int: '4611686018427387905' },
    { ...none, value: '1.8446744073709552e+19', value_text: '18446744073709551615' },
    { ...none, value_bool: true },
    { ...none, value_text: 'off\tand "on"' },
    none,
  ])
  const [about] = await server!.query(
    `SELECT to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS time, time_nanos, device, metric, unit,
       labels, quality, between_points, epsilon, agent, replace(incarnation::text, '-', '') AS incarnation, lane,
       sequence::int, log_partition, log_offset::int FROM headgate.readings ORDER BY log_offset LIMIT 1`,
    url,
  )
  assert.deepEqual(about, {
    time: '2026-06-15 00:00:00.000123',
    time_nanos: 456,
    device: 'pump-1',
    metric: 'flow',
    unit: 'l/s',
    labels: { site: 'Köln' },
    quality: 8,
    between_points: 'linear',
    epsilon: 0.25,
    agent: 'gw-001',
    incarnation: '01'.repeat(16),
    lane: 'bulk',
    sequence: 1,
    log_partition: 0,
    log_offset: 0,
  })
})

test('what PostgreSQL cannot take goes to the dead letter, and the rest of the slice is written', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const collector = await startCollector(t, { rest: sinksText(url) })
  // Not foreseen by us: an index takes no name of that size.
  const endless = Array.from({ length: 6000 }, (_, i) => String.fromCodePoint(0x4e00 + i)).join('')
  const readings = [
    reading({ value: 1 }),
    reading({ value: 'a\0b' }),
    reading({ value: 2 }),
    reading({ value: 3, timeMs: -(2 ** 48) }),
    reading({ value: 4, device: endless }),
    reading({ value: 5 }),
  ]
  await send(collector.url, new TestAgent().batch([{ kind: 'readings', readings }]))
  const status = await caughtUp(collector)

  const rows = await server!.query('SELECT value FROM headgate.readings ORDER BY value', url)
  assert.deepEqual(
    rows.map(({ value }) => value),
    [1, 2, 5],
  )
  assert.deepEqual([status.written, status.refused, status.problem], [3, 3, undefined])
  const dead = await (await fetch(`${collector.url}/v1/sinks/history/dead`)).text()
  const lines = dead
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ record }) => record.value),
    ['a\0b', 3, 4],
  )
  assert.deepEqual(
    lines.map(({ reason }) => reason.slice(0, 10)),
    ['value_text', 'time: Post', '54000: ind'],
  )
})

test('months have partitions of their own, and a time that is far off has none', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const collector = await startCollector(t, { rest: sinksText(url) })
  const times = [
    Date.UTC(2026, 0, 31, 23, 59, 59, 999),
    Date.UTC(2026, 1, 1),
    Date.UTC(1969, 0, 1),
    Date.UTC(2090, 0, 1),
  ]
  const readings = times.map((timeMs) => reading({ timeMs }))
  await send(collector.url, new TestAgent().batch([{ kind: 'readings', readings }]))
  await caughtUp(collector)

  const rows = await server!.query(
    'SELECT tableoid::regclass::text AS part, count(*)::int FROM headgate.readings GROUP BY 1 ORDER BY 1',
    url,
  )
  assert.deepEqual(rows, [
    { part: 'headgate.readings_2026_01', count: 1 },
    { part: 'headgate.readings_2026_02', count: 1 },
    { part: 'headgate.readings_default', count: 2 },
  ])
})

test('a range that is written again is there once', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const collector = await startCollector(t, { rest: sinksText(url) })
  const agent = new TestAgent()
  await send(collector.url, agent.readings(500))
  await caughtUp(collector)
  await server!.query('DELETE FROM headgate.readings WHERE sequence BETWEEN 101 AND 200', url)

  const answer = await ask(collector, 'backfill', { from: '50', to: '300' })
  assert.equal(answer.status, 200)
  await send(collector.url, agent.readings(10))
  await caughtUp(collector)

  const [row] = await server!.query(
    'SELECT count(*)::int, count(DISTINCT sequence)::int AS sequences FROM headgate.readings',
    url,
  )
  assert.deepEqual(row, { count: 510, sequences: 510 })
})

test('two collectors that run one sink on a log of both leave each record there once', async (t) => {
  const url = await databaseOf(t)
  if (!url) return
  const log = await logIn(t, await temporaryDirectory(t))
  const options = postgres.schema.parse({ url, rows: 100, wait: '1ms' })
  const config = { kind: postgres as SinkKind, options }
  const runners = await Promise.all(
    Array.from({ length: 2 }, async () => {
      const folder = await temporaryDirectory(t)
      return startRunner(t, { kind: postgres as SinkKind }, { log, folder, config, isShared: true })
    }),
  )
  const agent = new TestAgent()
  for (let batch = 0; batch < 40; batch++) await log.append(entryOf(agent.readings(50)))
  await poll(async () => {
    const statuses = await Promise.all(runners.map((runner) => runner.status()))
    return statuses.every(({ behind }) => behind === 0)
  }, 'both are at the end')

  const statuses = await Promise.all(runners.map((runner) => runner.status()))
  assert.equal(
    statuses.reduce((sum, { written }) => sum + written, 0),
    2000,
  )
  const [row] = await server!.query(
    'SELECT count(*)::int, count(DISTINCT sequence)::int AS sequences FROM headgate.readings',
    url,
  )
  assert.deepEqual(row, { count: 2000, sequences: 2000 })
})
