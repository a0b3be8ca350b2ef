import type { Chain } from '../../shared/chain.ts'
import type { StoreChange } from '../../shared/ports.ts'
import type { Lane } from '../../shared/reading.ts'
import { decodeEntry, type Entry, encodeEntry } from './entry.ts'
import type { Incarnation } from './incarnation.ts'

/** Consecutive sequences from the head of a lane, as they will be sent. */
export interface Cut {
  lane: Lane
  incarnation: Incarnation
  first: number
  last: number
  before: Chain
  after: Chain
  /** Encoded, in order, each with the number of sequences that it covers. */
  items: { bytes: Uint8Array; count: number; gap: boolean }[]
  bytes: number
  /** Readings that turn from `buffered` to `forwarded` when this is released. */
  received: number
  /** Readings that the filter made itself. */
  derived: number
  /** Alerts, clock records, quarantined messages. */
  records: number
  /** Wall time of the oldest commit in it, ms. */
  oldestMs: number
  /** The cut ends inside a gap, where the running hash is not known here. */
  endsInGap: boolean
  /** The lane goes on behind it, with an entry of this age (wall time of its commit, ms). */
  more: boolean
  nextMs: number | undefined
  /** What releasing it does to the store. */
  readonly changes: StoreChange[]
  readonly entries: number
  readonly storedBytes: number
}

export interface CutLimits {
  maxCount: number
  maxBytes: number
  /** Ends at this sequence of the incarnation at the latest; it must not lie before the lane's head. */
  last?: number
}

export type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

/** An empty cut that begins with an entry. */
export function startCut(
  lane: Lane,
  incarnation: Incarnation,
  first: number,
  entry: Entry,
): Mutable<Cut> {
  return {
    lane,
    incarnation,
    first,
    last: first,
    before: entry.before,
    after: entry.after,
    items: [],
    bytes: 0,
    received: 0,
    derived: 0,
    records: 0,
    oldestMs: entry.committedMs,
    endsInGap: false,
    more: false,
    nextMs: undefined,
    changes: [],
    entries: 0,
    storedBytes: 0,
  }
}

/** The running hash inside a gap is known only once the collector has said it: the gap's rest goes on there. */
export function continueFrom({ changes, after }: Cut): StoreChange[] {
  return changes.map(({ key, value }) => {
    const rest = value && decodeEntry(key, value)
    return { key, value: rest && encodeEntry(key, { ...rest, before: after }) }
  })
}
