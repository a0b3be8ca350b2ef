import type { Chain } from './chain.ts'
import type { AdmittedReading, Lane } from './reading.ts'

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
