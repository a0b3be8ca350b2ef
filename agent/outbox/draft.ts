import {
  chainItem,
  type Item,
  itemCount,
  type LaneRecord,
  type QuarantinedMessage,
  readingsOf,
} from '../../shared/batch.ts'
import type { StoreChange } from '../../shared/ports.ts'
import type { AdmittedReading, Lane } from '../../shared/reading.ts'
import type { Admission, Judgement } from '../filter/filter.ts'
import type { StateChange } from '../state.ts'
import { type Entry, encodeEntry, sealBytes } from './entry.ts'
import type { Incarnation, Position } from './incarnation.ts'
import { entryKey, stateKey } from './key.ts'
import { encodeBounded, runsOf } from './piece.ts'
import { putIncarnation } from './recovery.ts'
import type { TailPiece } from './tail.ts'
import { isoTime, type Totals } from './totals.ts'

/** Everything that became of one group of messages: one atomic synced write. */
export interface CommitGroup {
  admitted: readonly Admission[]
  /** Alerts and clock records, into the urgent lane. */
  records: readonly LaneRecord[]
  rejects: readonly QuarantinedMessage[]
  state: readonly StateChange[]
  /** The group's readings as they came, for the tail. */
  raw?: readonly TailPiece[]
  /** What the group adds to the ledger; the rejects are counted here too, as received. */
  counts: {
    received: number
    receivedQos0: number
    suppressed: number
    absorbed: number
    deduplicated: number
    held: number
  }
}

/** What one write appends to the lanes. */
export interface Draft {
  changes: StoreChange[]
  added: { lane: Lane; entry: Entry }[]
  minted: Incarnation | undefined
  incarnation: Incarnation
  /** How far each lane is numbered once this is written. */
  ends: Record<Lane, Position>
  /** Readings among it that count as `buffered`. */
  received: number
  append(lane: Lane, item: Item, derived: boolean): void
}

/** @param numbering where the draft goes on: `ends` is how far each lane is numbered so far */
export function newDraft(numbering: {
  minted: Incarnation | undefined
  incarnation: Incarnation
  ends: Record<Lane, Position>
  nowMs: number
}): Draft {
  const { minted, incarnation, nowMs } = numbering
  const ends = { ...numbering.ends }
  const draft: Draft = {
    changes: minted ? [putIncarnation(minted)] : [],
    added: [],
    minted,
    incarnation,
    ends,
    received: 0,
    append(lane, item, derived) {
      for (const piece of encodeBounded(item)) {
        const { sequence, chain } = ends[lane]
        const count = itemCount(piece.item)
        const entry: Entry = {
          kind: piece.item.kind,
          count,
          received: piece.item.kind === 'readings' && !derived ? count : 0,
          before: chain,
          after: chainItem(piece.item, chain),
          committedMs: nowMs,
          item: piece.bytes,
        }
        const key = entryKey(lane, incarnation.ordinal, sequence + 1)
        draft.changes.push({ key, value: encodeEntry(key, entry) })
        draft.added.push({ lane, entry })
        draft.received += entry.received
        ends[lane] = { sequence: sequence + count, chain: entry.after }
      }
    },
  }
  return draft
}

/** Puts what became of a group into a draft, and counts it. */
export function fill(draft: Draft, totals: Totals, group: CommitGroup): void {
  const { admitted, records, rejects, state, counts } = group
  for (const { lane, readings, derived } of runsOf(admitted)) {
    draft.append(lane, { kind: 'readings', readings }, derived)
    if (derived) totals.derivedAdmitted += readings.length
  }
  if (records.length > 0) draft.append('urgent', { kind: 'records', records: [...records] }, true)
  if (rejects.length > 0)
    draft.append('quarantine', { kind: 'records', records: rejects.map(quarantineRecord) }, true)
  for (const { space, key: name, value } of state) {
    const key = stateKey(space, name)
    draft.changes.push({ key, value: value && sealBytes(key, value) })
  }
  const { ledger } = totals
  ledger.received += counts.received
  ledger.suppressed += counts.suppressed
  ledger.absorbed += counts.absorbed
  ledger.deduplicated += counts.deduplicated
  ledger.quarantined += rejects.length
  ledger.buffered += counts.held
  totals.receivedQos0 += counts.receivedQos0
}

/** Verdicts that came with no message. */
export function afterLoss({ suppressed, absorbed, held, ...judgement }: Judgement): CommitGroup {
  const counts = { received: 0, receivedQos0: 0, suppressed, absorbed, deduplicated: 0, held }
  return { ...judgement, rejects: [], counts }
}

export function seriesOf(items: readonly Item[]): Iterable<{ device: string; metric: string }> {
  const series = new Map<string, { device: string; metric: string }>()
  for (const item of items)
    for (const reading of readingsOf(item))
      series.set(JSON.stringify([reading.series.device, reading.series.metric]), reading.series)
  return series.values()
}

/** A refused reading as the quarantine lane carries it: as JSON, since it came from no one topic. */
export function refusedReading(reading: AdmittedReading, reason: string): QuarantinedMessage {
  const { series, timeMs, value, quality, arrival } = reading
  const text = JSON.stringify({
    device: series.device,
    metric: series.metric,
    time: isoTime(timeMs),
    value: typeof value === 'bigint' ? value.toString() : value,
    quality,
  })
  const payload = new TextEncoder().encode(text)
  const words = `refused by the collector: ${reason}`
  return { topic: '', payload, size: payload.length, sha256: undefined, reason: words, arrival }
}

export function quarantineRecord(message: QuarantinedMessage): LaneRecord {
  return { type: 'quarantine', ...message }
}
