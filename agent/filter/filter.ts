import type { LaneRecord } from '../../shared/batch.ts'
import type { AdmittedReading, Lane } from '../../shared/reading.ts'
import type { StateChange } from '../state.ts'

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

/** Gives a verdict on every reading. Holds no clock and does no I/O. */
export interface Filter {
  judge(readings: readonly AdmittedReading[]): Judgement
  /** Lets go of everything held, as at the end of a recording. */
  flush(): Judgement
}

/** Admits everything: a filter without rules. */
export const passingFilter: Filter = {
  judge: (readings) => ({
    admitted: readings.map((reading) => ({ lane: 'bulk', reading })),
    records: [],
    suppressed: 0,
    absorbed: 0,
    held: 0,
    state: [],
  }),
  flush: () => passingFilter.judge([]),
}
