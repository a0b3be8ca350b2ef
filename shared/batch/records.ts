import type { Gap, LaneRecord, RecordValue } from '../batch.ts'
import { chainFromBytes, chainToBytes } from '../chain.ts'
import { SeriesTable } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import type { CborValue } from './cbor.ts'
import type { CborReader } from './cbor-reader.ts'
import { CborWriter } from './cbor-writer.ts'
import { invalid } from './failure.ts'
import { maxReadings, readReadings, writeReadings } from './readings.ts'
import { maxTimeMs } from './times.ts'
import { VarintReader } from './varint.ts'

/** Why declared sequences will never come. */
export const gapReasons = [
  'evicted',
  'expired',
  'thinned',
  'refused',
  'lost_corrupt',
  'released',
] as const
export type GapReason = (typeof gapReasons)[number]

/** Records in one item. */
export const maxRecords = 10_000
const maxGapSeries = 1000
const maxRecordDepth = 8

/** Encodes one record; its bytes are what the running hash goes over. */
export function encodeRecord(record: LaneRecord): Uint8Array {
  const writer = new CborWriter()
  writeRecord(writer, record)
  return writer.take()
}

function writeRecord(writer: CborWriter, record: LaneRecord): void {
  if (record.type === 'quarantine') {
    writer.array(8)
    writer.text(record.type)
    writer.text(record.topic)
    writer.bytes(record.payload)
    writer.int(record.size)
    if (record.sha256) writer.bytes(record.sha256)
    else writer.null()
    writer.text(record.reason)
    writer.int(record.arrival.wallMs)
    writer.number(record.arrival.monotonicMs)
  } else {
    const problem = contentProblem(record.content, 1)
    if (problem) throw new RangeError(`record content: ${problem}`)
    writer.array(2)
    writer.text(record.type)
    writer.value(record.content as CborValue)
  }
}

export function writeRecords(writer: CborWriter, records: readonly LaneRecord[]): void {
  writer.array(records.length)
  for (const record of records) writeRecord(writer, record)
}

export function readRecords(reader: CborReader, count: number): LaneRecord[] {
  if (reader.array('records', count, count) > maxRecords) throw invalid('records: too many')
  const records: LaneRecord[] = []
  for (let i = 0; i < count; i++) records.push(readRecord(reader, readContent))
  return records
}

/** What records say of themselves: how many there are of each type, and when quarantined ones arrived. */
export interface RecordsSummary {
  types: Record<LaneRecord['type'], number>
  /** Undefined when none is a quarantined message. */
  fromMs: number | undefined
  toMs: number | undefined
}

/** Checks all that `readRecords` does, and builds nothing of what alerts say. @throws WireFailure */
export function summarizeRecords(reader: CborReader, count: number): RecordsSummary {
  if (reader.array('records', count, count) > maxRecords) throw invalid('records: too many')
  const types = { quarantine: 0, alert: 0, clock: 0 }
  let fromMs: number | undefined
  let toMs: number | undefined
  for (let i = 0; i < count; i++) {
    const record = readRecord(reader, (content) => content.plain('record content', maxRecordDepth))
    types[record.type] += 1
    if (record.type !== 'quarantine') continue
    const { wallMs } = record.arrival
    if (fromMs === undefined || wallMs < fromMs) fromMs = wallMs
    if (toMs === undefined || wallMs > toMs) toMs = wallMs
  }
  return { types, fromMs, toMs }
}

/** @param content reads what an alert or a clock says, which is a map */
function readRecord<Content>(
  reader: CborReader,
  content: (reader: CborReader) => Content,
): Extract<LaneRecord, { type: 'quarantine' }> | { type: 'alert' | 'clock'; content: Content } {
  const members = reader.array('record', 2, 8)
  const type = reader.text('record type')
  if (type === 'quarantine' && members === 8) {
    return {
      type,
      topic: reader.text('topic'),
      payload: reader.bytes('payload').slice(),
      size: reader.int('size', 0, Number.MAX_SAFE_INTEGER),
      sha256: reader.null() ? undefined : reader.bytes('sha256', 32).slice(),
      reason: reader.text('reason'),
      arrival: {
        wallMs: reader.int('wallMs', -maxTimeMs, maxTimeMs),
        monotonicMs: reader.number('monotonicMs'),
      },
    }
  }
  if ((type === 'alert' || type === 'clock') && members === 2) {
    if (!reader.next('map')) throw invalid('record content: no map')
    return { type, content: content(reader) }
  }
  throw invalid(`record: unknown type "${type}"`)
}

function readContent(reader: CborReader): { [key: string]: RecordValue } {
  const content = reader.value() as { [key: string]: RecordValue }
  const problem = contentProblem(content, 1)
  if (problem) throw invalid(`record content: ${problem}`)
  return content
}

function contentProblem(value: unknown, depth: number): string | undefined {
  if (typeof value === 'bigint') return 'an integer over 2^53'
  if (typeof value !== 'object' || value === null) return undefined
  if (value instanceof Uint8Array) return 'bytes'
  if (depth > maxRecordDepth) return 'nested too deep'
  for (const member of Object.values(value)) {
    const problem = contentProblem(member, depth + 1)
    if (problem) return problem
  }
  return undefined
}

/**
 * A gap's body: reason, hash behind it, series concerned, from, to, whether the count is a lower bound; and
 * where readings were kept, their places as a column (the first, then distances less one) and the readings.
 */
export function writeGap(writer: CborWriter, gap: Gap): void {
  if (gap.series.length > maxGapSeries) throw new RangeError(`a gap of ${gap.series.length} series`)
  const { kept } = gap
  if (kept) checkPlaces(kept.places, kept.readings.length, gap)
  writer.array(kept ? 8 : 6)
  writer.text(gap.reason)
  writer.bytes(chainToBytes(gap.after))
  writer.array(gap.series.length)
  for (const { device, metric, count } of gap.series) {
    writer.array(3)
    writer.text(device)
    writer.text(metric)
    writer.int(count)
  }
  if (gap.fromMs === undefined) writer.null()
  else writer.int(gap.fromMs)
  if (gap.toMs === undefined) writer.null()
  else writer.int(gap.toMs)
  writer.boolean(gap.atLeast)
  if (!kept) return
  const column = new ByteWriter()
  let before = -1
  for (const place of kept.places) {
    column.varint(place - before - 1)
    before = place
  }
  writer.bytes(column.peek())
  writeReadings(writer, kept.readings)
}

function checkPlaces(places: readonly number[], readings: number, { reason, count }: Gap): void {
  const ascending = places.every((place, i) => place > (places[i - 1] ?? -1) && place < count)
  if (reason !== 'thinned' || places.length !== readings || readings === 0 || !ascending)
    throw new RangeError('a gap with kept readings that are not in their places')
}

export function readGap(reader: CborReader, count: number, table = new SeriesTable()): Gap {
  const members = reader.array('gap', 6, 8)
  if (members === 7) throw invalid('gap: an array of 7')
  const reason = reader.text('gap reason') as GapReason
  if (!gapReasons.includes(reason)) throw invalid(`gap: unknown reason "${reason}"`)
  const after = chainFromBytes(reader.bytes('gap chain', 8))
  const rows = reader.array('gap series', 0, maxGapSeries)
  const series: Gap['series'] = []
  for (let i = 0; i < rows; i++) {
    reader.array('gap row', 3, 3)
    series.push({
      device: reader.text('device'),
      metric: reader.text('metric'),
      count: reader.int('count', 0, Number.MAX_SAFE_INTEGER),
    })
  }
  const time = (what: string) =>
    reader.null() ? undefined : reader.int(what, -maxTimeMs, maxTimeMs)
  const fromMs = time('gap from')
  const toMs = time('gap to')
  const gap: Gap = {
    count,
    reason,
    after,
    series,
    fromMs,
    toMs,
    atLeast: reader.boolean('at least'),
  }
  if (members === 6) return gap
  if (reason !== 'thinned') throw invalid('gap: readings were kept, and it is not thinned')
  const places = readPlaces(reader.bytes('places'), count)
  return { ...gap, kept: { places, readings: readReadings(reader, places.length, table) } }
}

function readPlaces(bytes: Uint8Array, count: number): number[] {
  const column = new VarintReader(bytes, 'places')
  const places: number[] = []
  let before = -1
  while (!column.done) {
    before += column.next() + 1
    if (before >= count) throw invalid('places: behind the gap')
    if (places.push(before) > maxReadings) throw invalid('places: too many')
  }
  if (places.length === 0) throw invalid('places: none')
  return places
}
