import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import pg from 'pg'
import { migrate, migrations } from '../../collector/sinks/postgres/schema.ts'
import type { PostgresConfig } from '../../collector/sinks/postgres.ts'
import { postgres } from '../../collector/sinks/postgres.ts'
import { type Sink, SinkFailure, type Slice } from '../../collector/sinks/sink.ts'
import { streams } from '../../shared/reading.ts'
import { cleanUp } from '../support/clean-up.ts'
import { FileScope } from '../support/file-scope.ts'
import { Postgres } from '../support/postgres.ts'
import { reading } from '../support/readings.ts'
import { contextOf } from '../support/sinks.ts'

const scope = new FileScope()
const server = await Postgres.start(scope)
let databases = 0

/** A database of the test's own, and a connection to it. */
async function connect(t: TestContext): Promise<{ client: pg.Client; url: string } | undefined> {
  if (!server) {
    t.skip(scope.skipped)
    return undefined
  }
  const url = await server.database(`schema_${++databases}`)
  const client = new pg.Client(url)
  await client.connect()
  cleanUp(t, () => client.end())
  return { client, url }
}

async function openSink(t: TestContext, url: string, origin = 'origin-1'): Promise<Sink> {
  const config = postgres.schema.parse({ url }) as PostgresConfig
  const sink = await postgres.open(config, contextOf({ name: 'history', origin }))
  cleanUp(t, () => sink[Symbol.asyncDispose]())
  return sink
}

function sliceOf(from: number, values: readonly number[]): Slice {
  return {
    stream: 'readings',
    partition: 0,
    from,
    to: from + values.length,
    again: false,
    records: values.map((value, index) => ({
      stream: 'readings',
      partition: 0,
      offset: from + index,
      agent: 'gw-001',
      incarnation: '01'.repeat(16),
      lane: 'bulk',
      sequence: from + index + 1,
      arrivedMs: 1_767_225_600_000,
      fromMs: 1_767_225_600_000,
      toMs: 1_767_225_600_000,
      boot: new Uint8Array(16),
      reading: reading({ value }),
    })),
  }
}

async function write(sink: Sink, slice: Slice): Promise<void> {
  await sink.write(slice, () => Promise.resolve(), new AbortController().signal)
}

test('tables are made once, by whoever comes first of many', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  const sinks = await Promise.all(Array.from({ length: 5 }, () => openSink(t, url)))

  const { rows } = await client.query('SELECT version FROM headgate.schema_version')
  assert.deepEqual(rows, [{ version: 1 }])
  for (const stream of streams) await client.query(`SELECT time, content FROM headgate.${stream}`)
  assert.equal(sinks[0]!.positions?.size, 0)
})

test('a newer version adds to the tables, and an older one leaves them alone', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client } = opened
  await migrate(client, 'headgate')
  await client.query(
    `INSERT INTO headgate.positions VALUES ('origin-1', 'history', 'readings', 0, 42, now())`,
  )
  const newer = [
    ...migrations,
    ({ schema }: { schema: string }) => [`ALTER TABLE ${schema}.readings ADD COLUMN more text`],
  ]
  await migrate(client, 'headgate', newer)
  await client.query('SELECT more FROM headgate.readings')

  await assert.rejects(migrate(client, 'headgate'), /of version 2, and this program knows 1/)
})

test('a migration that fails in the middle changes nothing', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client } = opened
  await migrate(client, 'headgate')
  const broken = [
    ...migrations,
    () => ['CREATE TABLE headgate.half (n int)', 'SELECT * FROM nowhere'],
  ]
  await assert.rejects(migrate(client, 'headgate', broken), /nowhere/)
  await client.query('ROLLBACK')

  const { rows } = await client.query(
    `SELECT to_regclass('headgate.half') AS half, (SELECT max(version) FROM headgate.schema_version)`,
  )
  assert.deepEqual(rows, [{ half: null, max: 1 }])
})

test('a user who may not make a schema works in one that is there', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  await client.query(`CREATE ROLE writer_${databases} LOGIN; CREATE SCHEMA headgate`)
  await client.query(`GRANT ALL ON SCHEMA headgate TO writer_${databases}`)
  const sink = await openSink(t, url.replace('postgres@', `writer_${databases}@`))
  await write(sink, sliceOf(0, [1, 2]))

  const { rows } = await client.query('SELECT count(*)::int FROM headgate.readings')
  assert.deepEqual(rows, [{ count: 2 }])
})

test('records that are there already, under another name, are replaced', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  await write(await openSink(t, url, 'origin-1'), sliceOf(0, [1, 2, 3]))
  const again = sliceOf(0, [10, 20, 30, 40])
  await write(await openSink(t, url, 'origin-2'), again)

  const { rows } = await client.query('SELECT value FROM headgate.readings ORDER BY sequence')
  assert.deepEqual(
    rows.map(({ value }) => value),
    [10, 20, 30, 40],
  )
})

test('a record whose time was repaired since is replaced when it is written again', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  const sink = await openSink(t, url)
  const unset = reading({ timeMs: Date.UTC(2010, 0, 1) })
  const slice = sliceOf(0, [1])
  await write(sink, {
    ...slice,
    records: [
      { ...slice.records[0]!, stream: 'readings', boot: new Uint8Array(16), reading: unset },
    ],
  })
  await write(sink, { ...slice, again: true })

  const { rows } = await client.query(
    'SELECT extract(year FROM time)::int AS year FROM headgate.readings',
  )
  assert.deepEqual(rows, [{ year: 2026 }])
})

test('of two collectors that run one sink the slower is told that the other was there', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  const [quick, slow] = [await openSink(t, url), await openSink(t, url)]
  await write(quick, sliceOf(0, [1, 2]))
  await assert.rejects(write(slow, sliceOf(0, [1, 2, 3])), (error) => {
    assert.ok(error instanceof SinkFailure)
    assert.equal(error.code, 'SINK_MOVED')
    return true
  })
  const anew = await openSink(t, url)
  assert.deepEqual(anew.positions, new Map([[0, 2]]))

  const { rows } = await client.query('SELECT count(*)::int FROM headgate.readings')
  assert.deepEqual(rows, [{ count: 2 }])
})

test('rows of a day that had not begun move into its partition once it has', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  const sink = await openSink(t, url)
  const may = Date.UTC(2026, 4, 3)
  const at = (from: number, arrivedMs: number): Slice => {
    const slice = sliceOf(from, [from])
    const records = slice.records.map((record) =>
      record.stream === 'readings'
        ? { ...record, arrivedMs, reading: reading({ timeMs: may }) }
        : record,
    )
    return { ...slice, records }
  }
  await write(sink, at(0, Date.UTC(2026, 0, 1)))
  await write(sink, at(1, may))

  const { rows } = await client.query(
    'SELECT tableoid::regclass::text AS part, count(*)::int FROM headgate.readings GROUP BY 1',
  )
  assert.deepEqual(rows, [{ part: 'headgate.readings_2026_05', count: 2 }])
})

test('a database that is not there, or lets nobody in, is a failure to try again', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const code = async (url: string) => {
    const failure = await openSink(t, url).catch((error) => error)
    assert.ok(failure instanceof SinkFailure, String(failure))
    return failure.code
  }
  assert.equal(await code(server!.url('nowhere')), 'SINK_REFUSED')
  assert.equal(await code('postgresql://postgres@127.0.0.1:1/postgres'), 'SINK_UNREACHABLE')
})

test('where TimescaleDB is, tables become hypertables (told by a stand-in for its function)', async (t) => {
  const opened = await connect(t)
  if (!opened) return
  const { client, url } = opened
  await client.query(`
    SET allow_system_table_mods = on;
    INSERT INTO pg_extension VALUES (99999, 'timescaledb', 10, 'public'::regnamespace, false, '2', NULL, NULL);
    RESET allow_system_table_mods;
    CREATE TABLE made (relation text, chunk interval);
    CREATE FUNCTION create_hypertable(relation regclass, time_column_name name, chunk_time_interval interval,
      create_default_indexes boolean) RETURNS void LANGUAGE sql
      AS 'INSERT INTO public.made VALUES (relation::text, chunk_time_interval)'`)
  await write(await openSink(t, url), sliceOf(0, [1, 2]))

  const made = await client.query('SELECT relation FROM made ORDER BY relation')
  assert.deepEqual(
    made.rows.map(({ relation }) => relation),
    streams.map((stream) => `headgate.${stream}`).sort(),
  )
  const { rows } = await client.query(
    'SELECT tableoid::regclass::text AS part, count(*)::int FROM headgate.readings GROUP BY 1',
  )
  assert.deepEqual(rows, [{ part: 'headgate.readings', count: 2 }])
})
