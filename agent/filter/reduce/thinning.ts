import type { AdmittedReading, Arrival } from '../../../shared/reading.ts'
import { Around } from '../around.ts'
import { part } from '../hard-state.ts'
import type { Outlet } from '../outlet.ts'
import type { FilterRule } from '../schema.ts'
import type { StateWriter } from '../state-bytes.ts'
import type { Verdicts } from '../verdicts.ts'
import { warmth } from '../warmth.ts'
import { type Dress, Reduction, type ReductionConfig, type SavedReduction } from './reduction.ts'
import type { Decisions } from './segment.ts'

/**
 * Thins one series by a reduction. Around an alarm everything goes on: what was held, what was dropped a
 * moment ago, and what follows.
 *
 * The reading that raised the alarm travels in another lane, so the readings on either side of it are kept:
 * a consumer reconstructs the same whether it sees that lane or not.
 */
export class Thinning implements Outlet, Decisions {
  readonly #verdicts: Verdicts
  readonly #reduction: Reduction
  readonly #around: Around | undefined
  /** Whether what is held goes on whole when there is an alarm. */
  readonly #spills: boolean
  readonly #heartbeatMs: number
  #arrivedMs = Infinity

  constructor(
    config: ReductionConfig,
    around: FilterRule['around'],
    dress: Dress,
    verdicts: Verdicts,
  ) {
    this.#verdicts = verdicts
    this.#heartbeatMs = config.heartbeatMs
    const seen = (around?.before ?? 0) > 0 || verdicts.observer !== undefined
    this.#reduction = new Reduction(config, dress, seen)
    if (around) this.#around = new Around(around, (reading) => verdicts.suppress(reading))
    this.#spills = around !== undefined && around.before > 0
  }

  get held(): number {
    return this.#reduction.held + (this.#around?.held ?? 0)
  }

  // Those that wait in case of an alarm are reconstructed as well without them.
  get undecidedMs(): number {
    return this.#reduction.undecidedMs
  }

  take(reading: AdmittedReading, alarmed: boolean): void {
    const { timeMs } = reading
    this.#arrivedMs = reading.arrival.monotonicMs
    this.#around?.pass(timeMs)
    if (!alarmed) {
      this.#reduction.take(reading, this.#around?.wants(timeMs) ?? false, this)
      return
    }
    this.#around?.alarm(timeMs, (dropped) => this.keep(dropped, true))
    if (this.#spills) this.#reduction.spill(this)
    else this.#reduction.release(this)
    this.#reduction.dress(reading)
    this.#verdicts.admit(reading, 'urgent')
  }

  warm(): void {
    warmth[0] = this.#arrivedMs
    this.#reduction.warm()
  }

  tick({ monotonicMs }: Arrival): void {
    if (this.#reduction.held === 0) return
    // After a start silence counts from there.
    if (this.#arrivedMs === Infinity) this.#arrivedMs = monotonicMs
    if (monotonicMs - this.#arrivedMs > this.#heartbeatMs) this.#reduction.release(this)
    else this.#reduction.overdue(monotonicMs, this)
  }

  release(): void {
    this.#reduction.release(this)
    this.#around?.release()
  }

  keep(reading: AdmittedReading, held: boolean): void {
    this.#reduction.dress(reading)
    if (held) this.#verdicts.admitLate(reading)
    else this.#verdicts.admit(reading)
  }

  drop(reading: AdmittedReading | undefined, node: boolean): void {
    if (!reading || !this.#around?.hold(reading, node)) this.#verdicts.suppress(reading)
  }

  save(writer: StateWriter): void {
    if (!this.#reduction.blank) {
      writer.byte(part.reduction)
      this.#reduction.save(writer)
    }
    this.#around?.save(writer, part.dropped)
  }

  load(saved: SavedReduction, alarmMs: number | undefined): void {
    this.#reduction.load(saved)
    this.#around?.load(alarmMs)
  }
}
