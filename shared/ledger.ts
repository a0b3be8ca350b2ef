/**
 * The counters that must balance, in readings received; each since the store was made:
 *
 *   received = forwarded + suppressed + absorbed + quarantined + buffered + evicted + deduplicated
 *            + lostCorrupt
 */
export interface Ledger {
  /** A message that does not decode counts as one. */
  received: number
  /** Acknowledged by the collector. */
  forwarded: number
  suppressed: number
  absorbed: number
  quarantined: number
  /** In the outbox, or held by a reduction. */
  buffered: number
  /** Expired and thinned readings too. */
  evicted: number
  deduplicated: number
  /** A lower bound where damage hides how much was lost. */
  lostCorrupt: number
}

export const ledgerWords = [
  'received',
  'forwarded',
  'suppressed',
  'absorbed',
  'quarantined',
  'buffered',
  'evicted',
  'deduplicated',
  'lostCorrupt',
] as const satisfies readonly (keyof Ledger)[]

export function emptyLedger(): Ledger {
  return Object.fromEntries(ledgerWords.map((word) => [word, 0])) as unknown as Ledger
}

/** What is received and has no place: 0 when the ledger balances. */
export function imbalance(ledger: Ledger): number {
  return (
    ledger.received -
    ledger.forwarded -
    ledger.suppressed -
    ledger.absorbed -
    ledger.quarantined -
    ledger.buffered -
    ledger.evicted -
    ledger.deduplicated -
    ledger.lostCorrupt
  )
}
