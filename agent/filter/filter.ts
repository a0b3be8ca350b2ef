import type { LaneRecord } from '../../shared/batch.ts'
import type { AdmittedReading, Arrival, Lane } from '../../shared/reading.ts'
import type { StateChange } from '../state.ts'

export { type Match, matches } from './match.ts'
export { Reduction } from './reduce/reduction.ts'
export type { Decisions } from './reduce/segment.ts'
export { createFilter, type FilterOptions } from './rule-filter.ts'
export { defaultRule, type FilterConfig, type FilterRule, filterSchema } from './schema.ts'

export interface Admission {
  lane: Exclude<Lane, 'quarantine'>
  reading: AdmittedReading
  /** The filter made it itself (an aggregate): it balances apart from what was received. */
  derived?: true
}

/** What the filter decided about a group of readings. */
export interface Judgement {
  /** In order of admission; each with the lane that it travels in. */
  admitted: Admission[]
  /** Alerts, which travel in the urgent lane. */
  records: LaneRecord[]
  suppressed: number
  absorbed: number
  /** Change in the number of readings held until a reduction decides; may be negative. */
  held: number
  /** Hard state that this group touched. */
  state: StateChange[]
}

/**
 * Gives a verdict on every reading: admitted, suppressed, absorbed or, until later, held. Holds no clock
 * and does no I/O. What it decides is in memory at once, so a judgement that is not committed leaves it of
 * no more use: make another one from what was committed.
 */
export interface Filter {
  /** Takes the readings over: they are marked, and get the series that says how to read between them. */
  judge(readings: readonly AdmittedReading[]): Judgement
  /** Time passes: silence is told, and what has waited for too long is let go. About once a second. */
  tick(now: Arrival): Judgement
  /** Lets go of everything held, as at the end of a recording; `now` is that of the last reading by default. */
  flush(now?: Arrival): Judgement
  /**
   * The outbox has lost the last admitted readings of these series: what is held of them is let go, and
   * their next reading is admitted. To be committed with the loss.
   */
  forget(lost: Iterable<{ device: string; metric: string }>): Judgement
  /**
   * Some of what was learned since it was last asked for, to be committed with any later group; losing it
   * may change a score, never a promise. To be asked for every few seconds.
   *
   * @param maxBytes about so many at most, so that no commit grows large
   */
  checkpoint(maxBytes: number): StateChange[]
  /** Readings that wait for a decision now. */
  readonly held: number
  /**
   * What came before this is decided, wall clock, ms; Infinity when nothing waits. A window counts from its
   * beginning.
   */
  readonly undecidedMs: number
  /** Counts since the start, for who watches. */
  readonly counts: Readonly<FilterCounts>
}

export interface FilterCounts {
  /** Series that a rule keeps state for. */
  series: number
  /** Readings that passed since their rule has as many series as it may. */
  beyondMaxSeries: number
  /** Readings that came behind their window and passed. */
  late: number
  /** Entries of saved state that could not be read, and were left. */
  unreadable: number
}

/** Sees single verdicts, for who tries a configuration out. */
export interface Observer {
  /** A reading that a detector has judged. */
  scored?(reading: AdmittedReading, score: number, alarm: boolean): void
  /** The final verdict on a reading; each gets one. */
  decided?(reading: AdmittedReading, verdict: 'admitted' | 'suppressed' | 'absorbed'): void
}

const nothing = (): Judgement => ({
  admitted: [],
  records: [],
  suppressed: 0,
  absorbed: 0,
  held: 0,
  state: [],
})

/** Admits everything: a filter without rules. */
export const passingFilter: Filter = {
  judge: (readings) => ({
    ...nothing(),
    admitted: readings.map((reading) => ({ lane: 'bulk', reading })),
  }),
  tick: nothing,
  flush: nothing,
  forget: nothing,
  checkpoint: () => [],
  held: 0,
  undecidedMs: Infinity,
  counts: { series: 0, beyondMaxSeries: 0, late: 0, unreadable: 0 },
}
