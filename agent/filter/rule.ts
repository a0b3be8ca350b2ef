import type { Series } from '../../shared/reading.ts'
import type { CheckConfig } from './check.ts'
import { matches } from './match.ts'
import type { ReductionConfig } from './reduce/reduction.ts'
import type { FilterRule } from './schema.ts'
import type { WindowConfig } from './window/windows.ts'

/** A rule of the configuration as its tracks want it: worked out once, shared by all of them. */
export class Rule {
  /** Its place in the configuration, which alerts tell. */
  readonly index: number
  readonly maxSeries: number
  readonly check: CheckConfig | undefined
  readonly detect: FilterRule['detect']
  readonly reduce: ReductionConfig | undefined
  readonly around: FilterRule['around']
  readonly window: WindowConfig | undefined
  /** Series that have a track. */
  tracks = 0
  readonly #match: FilterRule['match']

  constructor(
    { match, check, detect, reduce, around, window, maxSeries }: FilterRule,
    index: number,
  ) {
    this.index = index
    this.maxSeries = maxSeries
    this.check = check && checkConfig(check)
    this.detect = detect
    this.reduce = reduce && {
      method: reduce.method,
      error: reduce.error,
      heartbeatMs: reduce.heartbeat ?? Infinity,
      maxDelayMs: reduce.maxDelay ?? Infinity,
    }
    this.around = around
    this.window = window && {
      everyMs: window.every,
      sizeMs: window.size ?? window.every,
      latenessMs: window.lateness,
      emit: window.emit,
    }
    this.#match = match
  }

  matches(series: Series): boolean {
    return matches(this.#match, series)
  }

  /** Whether one more series may have a track. */
  get hasRoom(): boolean {
    return this.tracks < this.maxSeries
  }
}

const off = <Setting>(setting: Setting | 'off'): Setting | undefined =>
  setting === 'off' ? undefined : setting

/** How far inside a range a value counts as back, where nothing is said: a share of the range. */
const defaultHysteresis = 0.02

function checkConfig(check: NonNullable<FilterRule['check']>): CheckConfig {
  const least = check.range?.[0] ?? -Infinity
  const most = check.range?.[1] ?? Infinity
  const width = most - least
  return {
    range: check.range && [least, most],
    hysteresis: check.hysteresis ?? (width < Infinity ? width * defaultHysteresis : 0),
    ratePerMs: check.rate,
    stuckMs: check.stuck,
    missingMs: check.missing,
    futureMs: off(check.future),
    backwardsMs: off(check.backwards),
    holdMs: check.hold,
    remindMs: check.remind,
  }
}
