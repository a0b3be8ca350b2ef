import { emptyLedger, type Ledger } from '../../shared/ledger.ts'
import type { Lane } from '../../shared/reading.ts'

/** What the outbox counts and stores with every write. Counts run since the store was made. */
export interface Totals {
  /** `buffered` here is what a reduction holds; readings in entries are counted anew at every start. */
  ledger: Ledger
  /** Of `received`, those that came at QoS 0: outside P1. */
  receivedQos0: number
  /** Readings that the filter made (aggregates), admitted and delivered. */
  derivedAdmitted: number
  derivedForwarded: number
  /** Alerts and clock records delivered. */
  recordsForwarded: number
  /** Quarantined messages and refused readings delivered in the quarantine lane. */
  quarantineForwarded: number
  /** Sequences declared as gaps. */
  gaps: number
  /** Bytes of request bodies sent, answered or not, by UTC day and month. */
  wire: { day: string; dayBytes: number; month: string; monthBytes: number }
  /** Lanes of which what was delivered is to be offered again, since a collector has forgotten something. */
  doubted: readonly Lane[]
}

export function emptyTotals(): Totals {
  return {
    ledger: emptyLedger(),
    receivedQos0: 0,
    derivedAdmitted: 0,
    derivedForwarded: 0,
    recordsForwarded: 0,
    quarantineForwarded: 0,
    gaps: 0,
    wire: { day: '', dayBytes: 0, month: '', monthBytes: 0 },
    doubted: [],
  }
}

/** A draft of the next totals, which become true with the write that stores them. */
export function copyTotals(totals: Totals): Totals {
  return { ...totals, ledger: { ...totals.ledger }, wire: { ...totals.wire } }
}

/** Adds `bytes` to the day and month that `iso` (a UTC ISO time) falls in. */
export function countWire(wire: Totals['wire'], bytes: number, iso: string): Totals['wire'] {
  const [day, month] = [iso.slice(0, 10), iso.slice(0, 7)]
  return {
    day,
    dayBytes: (wire.day === day ? wire.dayBytes : 0) + bytes,
    month,
    monthBytes: (wire.month === month ? wire.monthBytes : 0) + bytes,
  }
}

export function isoTime(ms: number): string {
  // biome-ignore lint/style/noRestrictedGlobals: formats a given time, reads no clock
  return new Date(ms).toISOString()
}
