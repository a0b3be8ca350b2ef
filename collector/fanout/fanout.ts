import { SeriesTable, type Stream } from '../../shared/reading.ts'
import type { Damage, LogItem, ReadRequest } from '../log/engine.ts'
import { BootClocks, isUnset, shifted } from './boot-clocks.ts'
import { type LogRecord, recordsOf } from './record.ts'

/** Which records of a stream a reader wants. */
export interface Query extends ReadRequest {
  /** Exact names; for records that belong to a device or metric. */
  device?: string | undefined
  metric?: string | undefined
}

/** Some records that belong to a query, all of one batch, or offsets that the disk has lost. */
export type Piece = { type: 'records'; records: LogRecord[] } | Damage

/** Anything that gives stored batches: an engine, or a folder that somebody else writes. */
export interface LogReader {
  read(request: ReadRequest): AsyncIterable<LogItem>
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
  for await (const item of log.read(query)) {
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

/** All of one batch, so of one boot. */
async function repaired(records: LogRecord[], clocks: BootClocks): Promise<LogRecord[]> {
  const unset: number[] = []
  for (const [index, record] of records.entries())
    if (record.stream === 'readings' && isUnset(record.reading)) unset.push(index)
  if (unset.length === 0) return records
  for (const index of unset) {
    const record = records[index]!
    if (record.stream !== 'readings') continue
    const offsetMs = await clocks.offsetOf(record.agent, record.boot)
    if (offsetMs === undefined) break
    const reading = shifted(record.reading, offsetMs)
    records[index] = { ...record, reading, fromMs: reading.timeMs, toMs: reading.timeMs }
  }
  return records
}

function filterOf(query: Query): (record: LogRecord) => boolean {
  const { device, metric } = query
  const fromOffset = query.fromOffset ?? 0
  const toOffset = query.toOffset ?? Number.POSITIVE_INFINITY
  const fromMs = query.fromMs ?? Number.NEGATIVE_INFINITY
  const toMs = query.toMs ?? Number.POSITIVE_INFINITY
  return (record) =>
    record.offset >= fromOffset &&
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
