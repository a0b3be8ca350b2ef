import type { AdmittedReading, Value } from '../../../shared/reading.ts'
import { type Decisions, elapsedMs, type Segmenter } from './segment.ts'
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
  #begun = false
  #value: Value = null
  readonly #kept = { timeMs: 0, timeNanos: 0 }
  readonly #newest = { timeMs: 0, timeNanos: 0 }
  #held: AdmittedReading | undefined

  /** @param heartbeatMs Infinity for none */
  constructor(tolerance: Tolerance, heartbeatMs: number) {
    this.#tolerance = tolerance
    this.#heartbeatMs = heartbeatMs
  }

  get held(): number {
    return this.#held ? 1 : 0
  }

  get oldest(): AdmittedReading | undefined {
    return this.#held
  }

  begin(reading: AdmittedReading): void {
    this.#begun = true
    this.#value = reading.value
    this.#kept.timeMs = this.#newest.timeMs = reading.timeMs
    this.#kept.timeNanos = this.#newest.timeNanos = reading.timeNanos
  }

  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (!this.#begun) {
      this.#keep(reading, false, out)
      return
    }
    const stepMs = elapsedMs(this.#newest, reading)
    if (elapsedMs(this.#kept, reading) > this.#heartbeatMs) this.advance(out)
    const held = this.#held
    this.#held = undefined
    if (held) out.drop(held, true)
    if (whole || stepMs < 0 || stepMs > this.#heartbeatMs || !this.#stands(reading.value)) {
      this.#keep(reading, false, out)
      return
    }
    this.#newest.timeMs = reading.timeMs
    this.#newest.timeNanos = reading.timeNanos
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
    this.#begun = false
  }

  spill(out: Decisions): void {
    this.advance(out)
  }

  eachHeld(visit: (reading: AdmittedReading) => void): void {
    if (this.#held) visit(this.#held)
  }

  #keep(reading: AdmittedReading, held: boolean, out: Decisions): void {
    // Before it is told: here the bound holds for what follows, not for what lies before.
    this.#tolerance.renew()
    out.keep(reading, held)
    this.begin(reading)
  }

  #stands(value: Value): boolean {
    const kept = this.#value
    if (typeof value === 'number' && typeof kept === 'number') {
      const apart = Math.abs(value - kept)
      return apart <= this.#tolerance.epsilon || Object.is(value, kept)
    }
    return value === kept
  }
}
