import type { AdmittedReading } from '../../../shared/reading.ts'
import type { StateWriter } from '../state-bytes.ts'
import type { Decisions, Segmenter } from './segment.ts'
import type { Tolerance } from './tolerance.ts'

/**
 * Reduction by exception (deadband): a reading is kept when it differs from the last kept one by more than
 * ε, or at all where it is no finite number. A consumer holds each kept value until the next.
 *
 * With a heartbeat, the newest reading is held, so that the last one before a silence is not lost, and so
 * that never more than `heartbeatMs` lie between two kept readings while readings come.
 *
 * Cost: a subtraction and some comparisons a reading.
 */
export class Hold implements Segmenter {
  readonly #tolerance: Tolerance
  readonly #heartbeatMs: number
  /** The last kept reading; undefined before the first. */
  #kept: AdmittedReading | undefined
  /** The last reading taken. */
  #newest: AdmittedReading | undefined
  #held: AdmittedReading | undefined

  /** @param heartbeatMs Infinity for none */
  constructor(tolerance: Tolerance, heartbeatMs: number) {
    this.#tolerance = tolerance
    this.#heartbeatMs = heartbeatMs
  }

  get held(): number {
    return this.#held ? 1 : 0
  }

  get oldestMs(): number | undefined {
    return this.#held?.arrival.monotonicMs
  }

  get oldestWallMs(): number | undefined {
    return this.#held?.arrival.wallMs
  }

  begin(reading: AdmittedReading): void {
    this.#kept = reading
    this.#newest = reading
  }

  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (!this.#kept || !this.#newest) {
      this.#keep(reading, false, out)
      return
    }
    const stepMs = elapsedMs(this.#newest, reading)
    if (elapsedMs(this.#kept, reading) > this.#heartbeatMs) this.advance(out)
    const held = this.#held
    this.#held = undefined
    if (held) out.drop(held, true)
    if (whole || stepMs < 0 || stepMs > this.#heartbeatMs || !this.#stands(this.#kept, reading)) {
      this.#keep(reading, false, out)
      return
    }
    this.#newest = reading
    if (this.#heartbeatMs < Infinity) this.#held = reading
    else out.drop(reading, true)
  }

  advance(out: Decisions): void {
    const held = this.#held
    if (!held) return
    this.#held = undefined
    this.#keep(held, true, out)
  }

  release(out: Decisions): void {
    this.advance(out)
    this.#kept = undefined
  }

  spill(out: Decisions): void {
    this.advance(out)
  }

  saveHeld(writer: StateWriter): void {
    if (this.#held) writer.reading(this.#held)
  }

  #keep(reading: AdmittedReading, held: boolean, out: Decisions): void {
    // Before it is told: here the bound holds for what follows, not for what lies before.
    this.#tolerance.renew()
    out.keep(reading, held)
    this.begin(reading)
  }

  /** Whether a kept value stands in for another reading's. */
  #stands({ value: kept }: AdmittedReading, { value }: AdmittedReading): boolean {
    if (typeof value !== 'number' || typeof kept !== 'number') return value === kept
    return Math.abs(value - kept) <= this.#tolerance.epsilon || Object.is(value, kept)
  }
}

/** Time from one reading to another, ms; exact to the nanosecond within a hundred days. */
function elapsedMs(from: AdmittedReading, to: AdmittedReading): number {
  return to.timeMs - from.timeMs + (to.timeNanos - from.timeNanos) / 1e6
}
