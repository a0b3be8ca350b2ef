import { SeriesTable, type Stream } from '../../shared/reading.ts'
import type { Damage, LogEngine, LogItem, ReadRequest, StoredBatch } from '../log/engine.ts'
import { BootClocks, isUnset, shifted } from './boot-clocks.ts'
import { merge } from './merge.ts'
import { type LogRecord, recordsOf } from './record.ts'

/** Which records of a stream a reader wants; of all partitions unless it names one. */
export interface Query extends ReadRequest {
  /** First offset wanted of each partition, in place of `fromOffset`. */
  fromOffsets?: readonly number[] | undefined
  /** Exact names; for records that belong to a device or metric. */
  device?: string | undefined
  metric?: string | undefined
}

/** Some records that belong to a query, all of one batch, or offsets that the disk has lost. */
export type Piece = { type: 'records'; records: LogRecord[] } | Damage

/** Anything that gives stored batches: an engine, or a folder that somebody else writes. */
export interface LogReader {
  readonly partitions: number
  /** One that is far away may leave out batches without the device or metric. */
  read(request: Query): AsyncIterable<LogItem>
}

/** Series kept before a reader starts over with a new table. */
const maxSeries = 100_000

/** Records handed out together: what is printed of them stays small. */
const pieceRecords = 500

/** Reads records in small pieces as the caller asks; it holds one batch at a time. */
export async function* readRecords(log: LogReader, query: Query): AsyncGenerator<Piece> {
  const wants = filterOf(query)
  const clocks = new BootClocks(log)
  let table = new SeriesTable()
  for await (const item of readItems(log, query)) {
    if (item.type === 'damage') {
      yield item
      continue
    }
    if (table.size > maxSeries) table = new SeriesTable()
    const records = (await repaired(recordsOf(query.stream, item, table), clocks)).filter(wants)
    for (let at = 0; at < records.length; at += pieceRecords)
      yield { type: 'records', records: records.slice(at, at + pieceRecords) }
  }
}

/** It names no offset and no time to begin at. */
export function startsNowhere({ fromOffset, fromOffsets, fromMs }: Query): boolean {
  return fromOffset === undefined && fromOffsets === undefined && fromMs === undefined
}

/** Behind the last record of every partition: where a tail begins. */
export function nextOffsets(
  log: Pick<LogEngine, 'partitions' | 'statistics'>,
  stream: Stream,
): Promise<number[]> {
  return Promise.all(
    Array.from(
      { length: log.partitions },
      async (_, partition) => (await log.statistics(partition))[stream].next,
    ),
  )
}

/** One partition after the other or, where they do not end, as they come. */
export async function* readItems(log: LogReader, query: Query): AsyncGenerator<LogItem> {
  const only = log.partitions === 1 ? 0 : query.partition
  if (only !== undefined) {
    const fromOffset = query.fromOffsets?.[only] ?? query.fromOffset
    yield* log.read({ ...query, partition: only, fromOffset })
    return
  }
  // A reader that goes away while all partitions are waiting must not leave their tails behind.
  const stop = new AbortController()
  const signal = query.signal ? AbortSignal.any([query.signal, stop.signal]) : stop.signal
  const sources = Array.from({ length: log.partitions }, (_, partition) => {
    const fromOffset = query.fromOffsets?.[partition] ?? query.fromOffset
    return log.read({ ...query, partition, fromOffset, signal })
  })
  try {
    if (query.follow) yield* merge(sources)
    else for (const source of sources) yield* source
  } finally {
    stop.abort()
  }
}

/** All of one batch, so of one boot. */
async function repaired(records: LogRecord[], clocks: BootClocks): Promise<LogRecord[]> {
  const unset: number[] = []
  for (const [index, record] of records.entries())
    if (record.stream === 'readings' && isUnset(record.reading)) unset.push(index)
  if (unset.length === 0) return records
  for (const index of unset) {
    const record = records[index]!
    if (record.stream !== 'readings') continue
    const offsetMs = await clocks.offsetOf(record.partition, record.agent, record.boot)
    if (offsetMs === undefined) break
    const reading = shifted(record.reading, offsetMs)
    records[index] = { ...record, reading, fromMs: reading.timeMs, toMs: reading.timeMs }
  }
  return records
}

/**
 * Whether a batch has something that a query asks for; by offsets and times it was chosen already.
 *
 * @returns a function that looks into the batch only where it has to
 */
export function wantedOf({
  stream,
  device,
  metric,
}: Query): (batch: StoredBatch, table: SeriesTable) => boolean {
  if (device === undefined && metric === undefined) return () => true
  return (batch, table) =>
    recordsOf(stream, batch, table).some(
      (record) =>
        (device === undefined || concerns(record, 'device', device)) &&
        (metric === undefined || concerns(record, 'metric', metric)),
    )
}

function filterOf(query: Query): (record: LogRecord) => boolean {
  const { device, metric } = query
  const fromOffset = query.fromOffset ?? 0
  const toOffset = query.toOffset ?? Number.POSITIVE_INFINITY
  const fromMs = query.fromMs ?? Number.NEGATIVE_INFINITY
  const toMs = query.toMs ?? Number.POSITIVE_INFINITY
  return (record) =>
    record.offset >= (query.fromOffsets?.[record.partition] ?? fromOffset) &&
    record.offset < toOffset &&
    record.toMs >= fromMs &&
    record.fromMs < toMs &&
    (device === undefined || concerns(record, 'device', device)) &&
    (metric === undefined || concerns(record, 'metric', metric))
}

function concerns(record: LogRecord, name: 'device' | 'metric', value: string): boolean {
  switch (record.stream) {
    case 'readings':
      return record.reading.series[name] === value
    case 'gaps':
      return record.gap.series.some((series) => series[name] === value)
    case 'alerts':
      return record.content[name] === value
    default:
      return false
  }
}

/** Whether a stream's records can be told apart by device and metric. */
export function hasSeries(stream: Stream): boolean {
  return stream === 'readings' || stream === 'gaps' || stream === 'alerts'
}
