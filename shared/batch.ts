import { cborLimits } from './batch/cbor.ts'
import { CborReader } from './batch/cbor-reader.ts'
import { CborWriter } from './batch/cbor-writer.ts'
import { invalid, WireFailure } from './batch/failure.ts'
import { readHeader, writeHeader } from './batch/header.ts'
import {
  checkReadings,
  maxReadings,
  readingsRange,
  readReadings,
  type TimeRange,
  writeReadings,
} from './batch/readings.ts'
import {
  encodeRecord,
  type GapReason,
  maxRecords,
  type RecordsSummary,
  readGap,
  readRecords,
  summarizeRecords,
  writeGap,
  writeRecords,
} from './batch/records.ts'
import { foldArrivals } from './batch/runs.ts'
import { type Chain, ChainHasher } from './chain.ts'
import { type AdmittedReading, type Lane, SeriesTable } from './reading.ts'

export type { CborLimits } from './batch/cbor.ts'
export { checkCbor } from './batch/cbor-reader.ts'
export { compress, type Encoding, encodings, inflate } from './batch/compression.ts'
export { WireFailure, type WireFailureCode, wireFailures } from './batch/failure.ts'
export { encodePassage, type Passage, PassageReader } from './batch/passage.ts'
export { type GapReason, gapReasons } from './batch/records.ts'

/** First element of a batch. A batch of a higher version is refused, of a lower one still read. */
export const batchVersion = 1

/**
 * What a lane carries, consecutive by sequence. An item covers `count` sequences; the first item of a
 * batch starts at the batch's `first`, each other one behind its neighbour. Encoded items are stored in
 * the outbox and sent as they are: a batch is its header and its items, one behind the other.
 */
export type Item =
  | { kind: 'readings'; readings: AdmittedReading[] }
  | { kind: 'records'; records: LaneRecord[] }
  | ({ kind: 'gap' } & Gap)

/** Declared sequences that will never come. */
export interface Gap {
  count: number
  reason: GapReason
  /** Running hash behind the last of them, so that what follows can be checked. */
  after: Chain
  /** Devices and metrics concerned with their number of readings, where known; at most 1,000 rows. */
  series: { device: string; metric: string; count: number }[]
  /** Earliest and latest time of what is gone, where known. */
  fromMs: number | undefined
  toMs: number | undefined
  /** The count is a lower bound: damage hides how much was lost. */
  atLeast: boolean
  /** Only with the reason `thinned`: readings among the sequences that a reduction has left. */
  kept?: KeptReadings
}

/** What is left of thinned readings; their series say how to read between them, and how exactly. */
export interface KeptReadings {
  /** Where they stand, from 0, the gap's first sequence, to less than its count; ascending. */
  places: number[]
  /** One for each place. */
  readings: AdmittedReading[]
}

export type LaneRecord =
  | ({ type: 'quarantine' } & QuarantinedMessage)
  | { type: 'alert'; content: { [key: string]: RecordValue } }
  | { type: 'clock'; content: { [key: string]: RecordValue } }

/** Plain data in a record: nested at most 8 deep. */
export type RecordValue =
  | number
  | string
  | boolean
  | null
  | RecordValue[]
  | { [key: string]: RecordValue }

/** A message that could not be decoded, whole. */
export interface QuarantinedMessage {
  topic: string
  /** As it came, or its first 64 KiB where it was larger than the limit. */
  payload: Uint8Array
  /** Length of the whole payload, bytes. */
  size: number
  /** SHA-256 of the whole payload, where `payload` is cut. */
  sha256: Uint8Array | undefined
  /** One line for a person. */
  reason: string
  arrival: { wallMs: number; monotonicMs: number }
}

export interface BatchHeader {
  agent: string
  /** 16 bytes. */
  incarnation: Uint8Array
  lane: Lane
  /** Sequence of the first and last item, inclusive; 1 ≤ first ≤ last < 2^53. */
  first: number
  last: number
  /** Running hash before `first` and behind `last`. */
  before: Chain
  after: Chain
  /** The incarnation before this one, in a lane's first batch; undefined elsewhere and for the first ever. */
  predecessor: Predecessor | undefined
  /** Boot in which the incarnation began, 16 bytes: what `monotonicMs` counts in. */
  boot: Uint8Array
  /** Gateway's wall time at sending, ms. */
  sentMs: number
  /** The agent's ledger as of its last commit, sent every so often. */
  ledger: Record<string, number> | undefined
}

export interface Predecessor {
  incarnation: Uint8Array
  /** Last sequence that it gave out, per lane; 0 where none. */
  last: Record<Lane, number>
}

export interface Batch {
  header: BatchHeader
  items: Item[]
}

/** What an encoded item says of itself, cheaply. */
export interface ItemSummary {
  kind: Item['kind']
  /** Sequences that it covers. */
  count: number
  /** Earliest and latest time of its readings, or of what it declares gone; undefined where unknown. */
  fromMs: number | undefined
  toMs: number | undefined
  /** Readings that it carries; of a gap those that were kept. */
  readings: number
  /** Records of each type; undefined for other items. */
  types: RecordsSummary['types'] | undefined
  /** Length of its encoding. */
  bytes: number
}

/** Items in one batch, at most; neighbours are merged, so that there are few. */
export const maxBatchItems = 10_000

const kinds = ['readings', 'records', 'gap'] as const
const maxCounts = { readings: maxReadings, records: maxRecords, gap: Number.MAX_SAFE_INTEGER }
const writer = new CborWriter()

/**
 * One item as one deterministic CBOR item: [kind, count, body].
 *
 * @throws RangeError for what could not be decoded again: none or more than 50,000 readings, more than
 *   10,000 records, a time beyond ±2^48 ms, a text over 64 KiB
 */
export function encodeItem(item: Item): Uint8Array {
  const count = itemCount(item)
  if (!(count >= 1 && count <= maxCounts[item.kind]))
    throw new RangeError(`an item of ${count} ${item.kind}`)
  writer.clear()
  writer.array(3)
  writer.int(kinds.indexOf(item.kind))
  writer.int(count)
  if (item.kind === 'readings') writeReadings(writer, item.readings)
  else if (item.kind === 'records') writeRecords(writer, item.records)
  else writeGap(writer, item)
  if (writer.items > cborLimits.maxItems)
    throw new RangeError(`${writer.items} CBOR items in one item`)
  return writer.take()
}

/**
 * @param table where series are looked up and kept; give one that lives as long as series are compared
 * @throws WireFailure
 */
export function decodeItem(bytes: Uint8Array, table = new SeriesTable()): Item {
  const reader = new CborReader(bytes)
  const item = readItem(reader, table)
  reader.end()
  return item
}

/** The readings that an item carries: all of them, or those that were kept in a gap. */
export function readingsOf(item: Item): readonly AdmittedReading[] {
  if (item.kind === 'readings') return item.readings
  return (item.kind === 'gap' && item.kept?.readings) || []
}

/** Sequences that an item covers. */
export function itemCount(item: Item): number {
  if (item.kind === 'readings') return item.readings.length
  if (item.kind === 'records') return item.records.length
  return item.count
}

/**
 * Reads only what the item says of itself: for bytes of our own, or that have been inspected.
 *
 * @throws WireFailure
 */
export function itemSummary(bytes: Uint8Array): ItemSummary {
  return readSummary(new CborReader(bytes), readingsRange)
}

/**
 * Joins neighbours of the same kind, so that what small items repeat is sent once. Gaps stay as they
 * are, and so does what would be too much for one item. Arrivals of joined readings are coarsened to 100 ms; everything else is kept exactly.
 */
export function mergeItems(items: readonly Uint8Array[]): Uint8Array[] {
  const table = new SeriesTable()
  const merged: Uint8Array[] = []
  for (let i = 0; i < items.length; ) {
    const { kind, count } = readItemHead(new CborReader(items[i]!))
    let end = i + 1
    let total = count
    while (end < items.length && kind !== 'gap') {
      const next = readItemHead(new CborReader(items[end]!))
      if (next.kind !== kind || total + next.count > maxCounts[kind]) break
      total += next.count
      end++
    }
    merged.push(...join(items.slice(i, end), table))
    i = end
  }
  return merged
}

function join(items: Uint8Array[], table: SeriesTable): Uint8Array[] {
  if (items.length === 1) return items
  const readings: AdmittedReading[] = []
  const records: LaneRecord[] = []
  for (const bytes of items) {
    const item = decodeItem(bytes, table)
    if (item.kind === 'readings') for (const reading of item.readings) readings.push(reading)
    else if (item.kind === 'records') for (const record of item.records) records.push(record)
  }
  try {
    return [
      readings.length > 0
        ? encodeItem({ kind: 'readings', readings: foldArrivals(readings) })
        : encodeItem({ kind: 'records', records }),
    ]
  } catch (error) {
    if (error instanceof RangeError) return items // Together they are more than one may hold.
    throw error
  }
}

/** The running hash behind an item. */
export function chainItem(item: Item, from: Chain): Chain {
  if (item.kind === 'gap') return item.after
  const hasher = new ChainHasher(from)
  if (item.kind === 'readings') for (const reading of item.readings) hasher.reading(reading)
  else for (const record of item.records) hasher.record(encodeRecord(record))
  return hasher.chain
}

/**
 * A batch as chunks to be written one behind the other; items go out as they are, not decoded.
 *
 * @throws RangeError for none or more than `maxBatchItems`
 */
export function encodeBatch(header: BatchHeader, items: readonly Uint8Array[]): Uint8Array[] {
  if (items.length < 1 || items.length > maxBatchItems)
    throw new RangeError(`a batch of ${items.length} items`)
  writer.clear()
  writer.array(3)
  writer.int(batchVersion)
  writeHeader(writer, header)
  writer.array(items.length)
  return [writer.take(), ...items]
}

/** @throws WireFailure; a batch that `inspectBatch` passes never does */
export function decodeBatch(bytes: Uint8Array, table = new SeriesTable()): Batch {
  const items: Item[] = []
  const header = readBatch(bytes, (reader) => {
    const item = readItem(reader, table)
    items.push(item)
    return { kind: item.kind, count: itemCount(item), readings: readingsOf(item).length }
  })
  return { header, items }
}

/** A batch's header alone; what is behind it is not looked at. @throws WireFailure */
export function batchHeader(bytes: Uint8Array): BatchHeader {
  const reader = new CborReader(bytes)
  readVersion(reader)
  return readHeader(reader)
}

/** A batch's header, and what its items say of themselves. */
export interface BatchSummary {
  header: BatchHeader
  items: ItemSummary[]
}

/**
 * Checks everything that `decodeBatch` would, without building readings.
 *
 * @throws WireFailure
 */
export function inspectBatch(bytes: Uint8Array): BatchSummary {
  const items: ItemSummary[] = []
  const header = readBatch(bytes, (reader) => {
    const summary = readSummary(reader, checkReadings)
    items.push(summary)
    return summary
  })
  return { header, items }
}

/**
 * What `inspectBatch` gives, but for what readings say beside their times: `check` looks through that, and throws
 * what it would have thrown. Undefined where nothing is left.
 *
 * @throws WireFailure
 */
export function outlineBatch(
  bytes: Uint8Array,
): BatchSummary & { check: (() => void) | undefined } {
  const items: ItemSummary[] = []
  const left: { at: number; count: number }[] = []
  /** CBOR items that were read, less those that were stepped over. */
  let read = 0
  let stepped = 0
  const header = readBatch(bytes, (reader) => {
    const summary = readSummary(reader, (_, count) => {
      const { at, items } = reader
      left.push({ at, count })
      const range = readingsRange(reader)
      stepped += reader.items - items
      return range
    })
    items.push(summary)
    read = reader.items - stepped
    return summary
  })
  if (left.length === 0) return { header, items, check: undefined }
  const check = () => {
    const reader = new CborReader(bytes)
    reader.goTo(0, read)
    for (const { at, count } of left) {
      reader.goTo(at)
      checkReadings(reader, count)
    }
  }
  return { header, items, check }
}

/** A reading with its sequence. */
export interface NumberedReading extends AdmittedReading {
  sequence: number
}

/** The readings of a batch in sequence order, passing over records and gaps. @throws WireFailure */
export function* batchReadings(
  bytes: Uint8Array,
  table = new SeriesTable(),
): Generator<NumberedReading> {
  const { header, items } = decodeBatch(bytes, table)
  let sequence = header.first
  for (const item of items) {
    const places = item.kind === 'gap' ? item.kept?.places : undefined
    for (const [i, reading] of readingsOf(item).entries())
      yield { ...reading, sequence: sequence + (places?.[i] ?? i) }
    sequence += itemCount(item)
  }
}

/** @param readings reads the body of a readings item as far as is wanted */
function readSummary(
  reader: CborReader,
  readings: (reader: CborReader, count: number) => TimeRange,
): ItemSummary {
  const start = reader.at
  const { kind, count } = readItemHead(reader)
  const says: Partial<Gap> & { types?: ItemSummary['types'] } =
    kind === 'readings'
      ? readings(reader, count)
      : kind === 'records'
        ? summarizeRecords(reader, count)
        : readGap(reader, count)
  const { fromMs, toMs, types, kept } = says
  const carried = kind === 'readings' ? count : (kept?.readings.length ?? 0)
  return { kind, count, fromMs, toMs, readings: carried, types, bytes: reader.at - start }
}

function readItemHead(reader: CborReader): { kind: Item['kind']; count: number } {
  reader.array('item', 3, 3)
  const kind = kinds[reader.int('item kind', 0, kinds.length - 1)]!
  return { kind, count: reader.int('count', 1, maxCounts[kind]) }
}

function readItem(reader: CborReader, table: SeriesTable): Item {
  const { kind, count } = readItemHead(reader)
  if (kind === 'readings') return { kind, readings: readReadings(reader, count, table) }
  if (kind === 'records') return { kind, records: readRecords(reader, count) }
  return { kind, ...readGap(reader, count, table) }
}

function readVersion(reader: CborReader): void {
  reader.array('batch', 3, 3)
  const version = reader.int('version', 0, Number.MAX_SAFE_INTEGER)
  if (version !== batchVersion) throw new WireFailure('WIRE_VERSION', String(version))
}

/** @param item reads one item and says what it is */
function readBatch(
  bytes: Uint8Array,
  item: (reader: CborReader) => Pick<ItemSummary, 'kind' | 'count' | 'readings'>,
): BatchHeader {
  const reader = new CborReader(bytes)
  readVersion(reader)
  const header = readHeader(reader)
  const length = reader.array('items', 1, maxBatchItems)
  let covered = 0
  let carried = 0
  for (let i = 0; i < length; i++) {
    const { kind, count, readings } = item(reader)
    covered += count
    carried += kind === 'records' ? count : readings
    // Few bytes can claim many readings, so that a body's size alone does not bound the work.
    if (carried > maxReadings)
      throw new WireFailure('WIRE_TOO_LARGE', `over ${maxReadings} readings`)
  }
  reader.end()
  if (covered !== header.last - header.first + 1)
    throw invalid(`items cover ${covered} sequences, not ${header.first} to ${header.last}`)
  return header
}
