import assert from 'node:assert/strict'
import { glob, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { LogRecord } from '../../collector/fanout/record.ts'
import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import { FolderStore } from '../../collector/log/tier/folder-store.ts'
import type { TierObject } from '../../collector/log/tier/store.ts'
import { ParquetSink } from '../../collector/sinks/parquet/parquet.ts'
import { type ParquetConfig, parquet } from '../../collector/sinks/parquet.ts'
import type { SinkContext, SinkKind } from '../../collector/sinks/sink.ts'
import { type AdmittedReading, SeriesTable, type Value } from '../../shared/reading.ts'
import { duckdb, duckdbOnS3 } from '../support/duckdb/duckdb.ts'
import { reading, readings } from '../support/readings.ts'
import { Seeded } from '../support/seeded.ts'
import { alertRecords, contextOf, Outlet, readingRecords, sliceOf } from '../support/sinks.ts'
import { Swift } from '../support/swift.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const dayMs = 86_400_000

async function start(t: TestContext, config: object = {}) {
  const query = await duckdb(t)
  if (!query) return undefined
  const folder = await temporaryDirectory(t)
  const outlet = await Outlet.make(t, parquet, { folder, ...config })
  /** Rows of all files, with what the folders say. */
  const read = (what = '*', rest = '') =>
    query(
      `SELECT ${what} FROM read_parquet('${folder}/**/*.parquet', hive_partitioning = true) ${rest}`,
    )
  const offsets = async () =>
    (await read('log_partition, log_offset', 'ORDER BY ALL')).map(
      (row) => `${row.log_partition}/${row.log_offset}`,
    )
  return { outlet, folder, read, offsets, query }
}

const filesIn = async (folder: string) =>
  (await Array.fromAsync(glob('**/*.parquet', { cwd: folder }))).sort()

const keysOf = (records: readonly LogRecord[]) =>
  records.map(({ partition, offset }) => `${partition}/${offset}`)

test('DuckDB reads back every column of every kind of value', async (t) => {
  const files = await start(t)
  if (!files) return
  const values: Value[] = [
    1.5,
    Number.NaN,
    2n ** 62n,
    2n ** 64n - 1n,
    false,
    'naïve "text"\n',
    null,
  ]
  const series = new SeriesTable().intern('pump-1', 'flow', {
    unit: 'm3/h',
    labels: { site: 'north' },
    between: 'linear',
    epsilon: 0.25,
  })
  const rows: AdmittedReading[] = values.map((value) => ({
    ...reading({ value, quality: 9 }),
    series,
    timeNanos: 123_456,
  }))
  await files.outlet.write(sliceOf(readingRecords(rows)))
  await files.outlet.flush()
  const found = await files.read('*', 'ORDER BY log_offset')
  assert.deepEqual(
    found.map((row) => [row.value, row.value_int, row.value_bool, row.value_text]),
    [
      [1.5, null, null, null],
      ['nan', null, null, null],
      [2 ** 62, 2 ** 62, null, null],
      [2 ** 64, null, null, '18446744073709551615'],
      [null, null, false, null],
      [null, null, null, 'naïve "text"\n'],
      [null, null, null, null],
    ],
  )
  const { value, value_int, value_bool, value_text, ...rest } = found[0]!
  assert.deepEqual(rest, {
    time: '2026-01-01 00:00:00.000123+00:00',
    time_nanos: 456,
    device: 'pump-1',
    metric: 'flow',
    unit: 'm3/h',
    labels: '{"site":"north"}',
    quality: 9,
    between_points: 'linear',
    epsilon: 0.25,
    content: null,
    agent: 'gw-001',
    incarnation: '01'.repeat(16),
    lane: 'bulk',
    sequence: 1,
    log_partition: 0,
    log_offset: 0,
    received: '2026-01-01 00:00:00+00:00',
    arrived: '2026-01-01 00:01:40+00:00',
    stream: 'readings',
    date: '2026-01-01',
  })
})

test('the line of the README counts what is there, by device', async (t) => {
  const files = await start(t)
  if (!files) return
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8')
  const [line] = /SELECT [^"]*read_parquet\('lake[^"]*/.exec(readme)!
  await files.outlet.write(sliceOf(readingRecords(readings(100))))
  await files.outlet.flush()
  const sql = line.replace('lake/', `${files.folder}/`)
  assert.deepEqual(await files.query(sql), [
    { date: '2026-01-01', device: 'pump-1', readings: 100, mean: 50.5 },
  ])
})

test('alerts have their content as JSON', async (t) => {
  const files = await start(t)
  if (!files) return
  await files.outlet.write(sliceOf(alertRecords(2)))
  await files.outlet.flush()
  const found = await files.read(`content->>'rule' AS rule, CAST(content->>'number' AS INT) AS n`)
  assert.deepEqual(found, [
    { rule: 'range', n: 0 },
    { rule: 'range', n: 1 },
  ])
})

test('a record is filed under the day of its own time or, if so configured, of its arrival', async (t) => {
  for (const [date, days] of [
    ['time', ['2026-01-01', '2026-01-02', '2026-01-03']],
    ['arrived', ['2026-01-01']],
  ] as const) {
    const files = await start(t, { date })
    if (!files) return
    const three = [0, 1, 2].map((day) => reading({ timeMs: 1_767_225_600_000 + day * dayMs }))
    await files.outlet.write(sliceOf(readingRecords(three)))
    await files.outlet.flush()
    assert.deepEqual(
      await readdir(join(files.folder, 'stream=readings')),
      days.map((day) => `date=${day}`),
    )
    assert.deepEqual((await filesIn(files.folder)).length, days.length)
  }
})

test('a file is closed by its size, and nothing is to be seen of it before', async (t) => {
  const files = await start(t, { bytes: '64KiB' })
  if (!files) return
  const random = new Seeded(1)
  const noise = Array.from({ length: 20_000 }, (_, index) =>
    reading({ value: random.uniform(), timeMs: 1_767_225_600_000 + index }),
  )
  const records = readingRecords(noise)
  assert.equal(await files.outlet.write(sliceOf(records.slice(0, 100))), 'held')
  assert.deepEqual(await filesIn(files.folder), [])
  assert.equal(await files.outlet.write(sliceOf(records.slice(100))), 'durable')
  assert.equal((await filesIn(files.folder)).length, 1)
  assert.deepEqual(await files.read('count(*) AS n'), [{ n: 20_000 }])
  assert.deepEqual([...(await files.outlet.reopen()).positions!], [[0, 20_000]])
})

test('times at random open no more than some files at once', async (t) => {
  const files = await start(t)
  if (!files) return
  const scattered = Array.from({ length: 100 }, (_, day) =>
    reading({ timeMs: 1_767_225_600_000 + day * dayMs }),
  )
  assert.equal(await files.outlet.write(sliceOf(readingRecords(scattered))), 'durable')
  assert.deepEqual(await files.read('count(*) AS n'), [{ n: 100 }])
})

/** A folder that fails at the n-th change, as if it could not be reached any more. */
class FailingStore extends FolderStore {
  left = Number.POSITIVE_INFINITY
  /** Puts that were given up, and may still arrive. */
  readonly late: (() => Promise<void>)[] = []

  override async put(path: string, object: TierObject): Promise<void> {
    if (this.left-- > 0) return super.put(path, object)
    this.late.push(() => super.put(path, object))
    throw new Error('no answer')
  }

  override async remove(path: string): Promise<void> {
    if (this.left-- > 0) return super.remove(path)
    throw new Error('no answer')
  }
}

async function startFailing(t: TestContext) {
  const query = await duckdb(t)
  if (!query) return undefined
  const folder = await temporaryDirectory(t)
  const store = new FailingStore(nodeDisk(folder))
  const kind = {
    ...parquet,
    open: (config: ParquetConfig, context: SinkContext) =>
      ParquetSink.openOn(store, config, context),
  }
  const outlet = await Outlet.make(t, kind as SinkKind, { folder })
  const offsets = async () => {
    const sql = `SELECT log_offset FROM read_parquet('${folder}/**/*.parquet') ORDER BY ALL`
    return (await query(sql)).map((row) => row.log_offset)
  }
  return { outlet, folder, store, offsets }
}

/** Ten a day. */
const threeDays = readingRecords(
  [0, 1, 2].flatMap((day) =>
    readings(10).map((each) => ({ ...each, timeMs: each.timeMs + day * dayMs })),
  ),
)
const everyOffset = threeDays.map(({ offset }) => offset)

// A cut of three days: manifest, three files, manifest.
for (let done = 0; done < 5; done++)
  test(`a cut that broke off after ${done} of 5 steps is made again, each record once`, async (t) => {
    const files = await startFailing(t)
    if (!files) return
    const { outlet, folder, store, offsets } = files
    await outlet.write(sliceOf(threeDays.slice(0, 25)))
    store.left = done
    await assert.rejects(outlet.flush())
    const begun = await filesIn(folder)
    store.left = Number.POSITIVE_INFINITY
    const from = (await outlet.reopen()).positions!.get(0) ?? 0
    // More than before, in other pieces.
    await outlet.write(sliceOf(threeDays.slice(from, from + 3)))
    await outlet.write(sliceOf(threeDays.slice(from + 3)))
    await outlet.flush()
    // What was given up arrives after all.
    for (const put of store.late) if (done > 0 && done < 4) await put()
    assert.deepEqual(await offsets(), everyOffset)
    const ended = await filesIn(folder)
    assert.deepEqual(
      begun.filter((name) => !ended.includes(name)),
      [],
    )
    assert.deepEqual([...(await outlet.reopen()).positions!], [[0, 30]])
  })

/** Sees to it that what is put after some objects waits until the gate opens. */
class GatedStore extends FolderStore {
  left = Number.POSITIVE_INFINITY
  readonly waits = Promise.withResolvers<void>()
  readonly gate = Promise.withResolvers<void>()

  override async put(path: string, object: TierObject): Promise<void> {
    if (this.left-- <= 0) {
      this.waits.resolve()
      await this.gate.promise
    }
    return super.put(path, object)
  }
}

for (let done = 0; done < 3; done++)
  test(`a collector that was taken over from after ${done} of 3 files of a cut, and goes on late, leaves each record once`, async (t) => {
    const query = await duckdb(t)
    if (!query) return
    const folder = await temporaryDirectory(t)
    const config = parquet.schema.parse({ folder }) as ParquetConfig
    let turn = 'former'
    let value: unknown
    const open = (name: string, store: FolderStore) => {
      const kept = {
        get value() {
          return value
        },
        write: async (written: unknown) => {
          if (turn !== name) throw new Error('another has its turn')
          value = JSON.parse(JSON.stringify(written))
        },
      }
      const context = contextOf({ isShared: true, kept })
      return ParquetSink.openOn(store, config, context)
    }
    const refuse = async () => {}
    const { signal } = new AbortController()
    const gated = new GatedStore(nodeDisk(folder))
    gated.left = done
    const former = await open('former', gated)
    await former.write(sliceOf(threeDays.slice(0, 25)), refuse, signal)
    const late = former.flush()
    await gated.waits.promise

    turn = 'present'
    const present = await open('present', new FolderStore(nodeDisk(folder)))
    await present.write(sliceOf(threeDays.slice(0, 3)), refuse, signal)
    await present.write(sliceOf(threeDays.slice(3)), refuse, signal)
    await present.flush()
    gated.gate.resolve()
    await assert.rejects(late, /another has its turn/)
    const sql = `SELECT log_offset FROM read_parquet('${folder}/**/*.parquet') ORDER BY ALL`
    assert.deepEqual(
      (await query(sql)).map((row) => row.log_offset),
      everyOffset,
    )
    const next = await open('present', new FolderStore(nodeDisk(folder)))
    assert.deepEqual([...next.positions], [[0, 30]])
  })

test('a cut whose records have left the log is taken back, and the rest is written', async (t) => {
  const files = await startFailing(t)
  if (!files) return
  const { outlet, store, offsets } = files
  await outlet.write(sliceOf(threeDays.slice(0, 25)))
  store.left = 2
  await assert.rejects(outlet.flush())
  store.left = Number.POSITIVE_INFINITY
  await outlet.write(sliceOf(threeDays.slice(0, 20)))
  await assert.rejects(outlet.flush(), { code: 'SINK_BUSY' })
  assert.deepEqual(await outlet.reopen().then(({ positions }) => positions!.size), 0)
  await outlet.write(sliceOf(threeDays.slice(0, 20)))
  await outlet.flush()
  assert.deepEqual(await offsets(), everyOffset.slice(0, 20))
})

test('a record whose time was mended meanwhile is moved to its day', async (t) => {
  const files = await startFailing(t)
  if (!files) return
  const { outlet, store, offsets, folder } = files
  const [record] = readingRecords([reading({ timeMs: 0 })]) as [LogRecord]
  await outlet.write(sliceOf([record]))
  store.left = 2
  await assert.rejects(outlet.flush())
  store.left = Number.POSITIVE_INFINITY
  await outlet.reopen()
  await outlet.write(sliceOf(readingRecords([reading()])))
  await outlet.flush()
  assert.deepEqual(await offsets(), [0])
  assert.match((await filesIn(folder)).join(), /date=2026-01-01/)
})

test('every partition goes on where its own files end', async (t) => {
  const files = await start(t)
  if (!files) return
  const [left, right] = [0, 1].map((partition) => readingRecords(readings(10), { partition })) as [
    LogRecord[],
    LogRecord[],
  ]
  await files.outlet.write(sliceOf(left.slice(0, 4)))
  await files.outlet.write(sliceOf(right.slice(0, 7)))
  await files.outlet.flush()
  const { positions } = await files.outlet.reopen()
  assert.deepEqual(
    [...positions!],
    [
      [0, 4],
      [1, 7],
    ],
  )
  await files.outlet.write(sliceOf(right.slice(7)))
  await files.outlet.write(sliceOf(left.slice(4)))
  await files.outlet.flush()
  assert.deepEqual(await files.offsets(), keysOf([...left, ...right]))
})

test('what is written again stands beside what is there, and moves no position', async (t) => {
  const files = await start(t)
  if (!files) return
  await files.outlet.write(sliceOf(threeDays))
  await files.outlet.flush()
  await files.outlet.write(sliceOf(threeDays.slice(5, 8), { again: true }))
  await files.outlet.flush()
  assert.deepEqual(await files.read('count(*) AS n'), [{ n: 33 }])
  assert.deepEqual([...(await files.outlet.reopen()).positions!], [[0, 30]])
})

test('a manifest that cannot be understood stops it, before anything is doubled', async (t) => {
  const files = await start(t)
  if (!files) return
  await files.outlet.write(sliceOf(threeDays))
  await files.outlet.flush()
  const [name] = await readdir(join(files.folder, '_headgate'))
  await writeFile(join(files.folder, '_headgate', name!), '{}')
  await assert.rejects(files.outlet.reopen(), { code: 'SINK_REFUSED' })
})

test('a bucket gets the same files, which DuckDB reads where they are', async (t) => {
  const swift = await Swift.start(t)
  const query = swift && (await duckdbOnS3(t, swift))
  if (!query) return
  await swift.bucket('lake')
  const { endpoint, region, credentials } = swift
  process.env.AWS_ACCESS_KEY_ID = credentials.accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = credentials.secretAccessKey
  const s3 = { bucket: 'lake', prefix: 'plant', endpoint, region }
  const outlet = await Outlet.make(t, parquet, { s3 })
  await outlet.write(sliceOf(threeDays))
  await outlet.flush()
  assert.deepEqual([...(await outlet.reopen()).positions!], [[0, 30]])
  const found = await query(
    `SELECT date, device, count(*) AS readings, avg(value) AS mean
     FROM read_parquet('s3://lake/plant/**/*.parquet') GROUP BY ALL ORDER BY ALL`,
  )
  const days = ['2026-01-01', '2026-01-02', '2026-01-03']
  const device = 'pump-1'
  assert.deepEqual(
    found,
    days.map((date) => ({ date, device, readings: 10, mean: 5.5 })),
  )
})
