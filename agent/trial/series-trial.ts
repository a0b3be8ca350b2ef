import type { RecordValue } from '../../shared/batch.ts'
import type { AdmittedReading, Series } from '../../shared/reading.ts'

const dayMs = 86_400_000

/** Kept readings are read with a bound; all else has none. */
const notKept = -1

/** What became of the readings of one series: enough to say how well what was kept stands for the rest. */
export class SeriesTrial {
  readonly series: Series
  /** Of each reading, in the order of the trace; NaN where the value is no number. */
  readonly timesMs: number[] = []
  readonly values: number[] = []
  /** Bound of what was kept, `notKept` for the rest. */
  readonly #bounds: number[] = []
  /** Whether a kept reading ends a straight line. */
  readonly #linear: boolean[] = []
  readonly #suppressed: boolean[] = []
  #kept = 0
  #absorbed = 0

  constructor(series: Series) {
    this.series = series
  }

  /** @returns the reading's index */
  take({ timeMs, timeNanos, value }: AdmittedReading): number {
    this.timesMs.push(timeMs + timeNanos / 1e6)
    this.values.push(typeof value === 'number' ? value : Number.NaN)
    this.#bounds.push(notKept)
    this.#linear.push(false)
    this.#suppressed.push(false)
    return this.values.length - 1
  }

  decide(
    index: number,
    verdict: 'admitted' | 'suppressed' | 'absorbed',
    reading: AdmittedReading,
  ): void {
    if (verdict === 'admitted') {
      this.#kept++
      this.#bounds[index] = reading.series.epsilon
      this.#linear[index] = reading.series.between === 'linear'
    } else if (verdict === 'absorbed') this.#absorbed++
    else this.#suppressed[index] = true
  }

  isKept(index: number): boolean {
    return this.#bounds[index] !== notKept
  }

  report(alerts: readonly { [key: string]: RecordValue }[]) {
    const { device, metric, unit } = this.series
    const own = alerts.filter(
      (alert) => alert.device === device && alert.metric === metric && alert.state === 'raised',
    )
    const anomalies = own.filter(({ kind }) => kind === 'anomaly').length
    const readings = this.values.length
    const lastMs = this.timesMs.reduce((most, time) => Math.max(most, time), -Infinity)
    const days = (lastMs - this.timesMs[0]!) / dayMs
    return {
      device,
      metric,
      ...(unit === undefined ? {} : { unit }),
      readings,
      kept: this.#kept,
      suppressed: readings - this.#kept - this.#absorbed,
      absorbed: this.#absorbed,
      ...this.#errors(),
      anomalies,
      anomaliesPerDay: days > 0 ? anomalies / days : anomalies,
      faults: own.length - anomalies,
    }
  }

  /** How far a consumer's reconstruction of suppressed numbers is off, and the bound it was given. */
  #errors(): { largestError: number; rmsError: number; errorBound: number } {
    let largest = 0
    let squares = 0
    let count = 0
    let bound = 0
    let before: number | undefined
    let after = 0
    for (let at = 0; at < this.values.length; at++) {
      if (this.isKept(at)) {
        before = at
        bound = Math.max(bound, this.#bounds[at]!)
        continue
      }
      const value = this.values[at]!
      if (!this.#suppressed[at] || before === undefined || Number.isNaN(value)) continue
      after = Math.max(after, at + 1)
      while (after < this.values.length && !this.isKept(after)) after++
      const error = Math.abs(this.#between(before, after, at) - value)
      largest = Math.max(largest, error)
      squares += error * error
      count++
    }
    return {
      largestError: largest,
      rmsError: count > 0 ? Math.sqrt(squares / count) : 0,
      errorBound: bound,
    }
  }

  #between(before: number, after: number, at: number): number {
    const from = this.values[before]!
    if (after >= this.values.length || !this.#linear[before] || !this.#linear[after]) return from
    const [a, b, t] = [this.timesMs[before]!, this.timesMs[after]!, this.timesMs[at]!]
    return from + ((this.values[after]! - from) * (t - a)) / (b - a)
  }
}
