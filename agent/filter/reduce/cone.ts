import type { AdmittedReading } from '../../../shared/reading.ts'
import { type Decisions, elapsedMs, type Segmenter } from './segment.ts'
import type { Tolerance } from './tolerance.ts'

/** Readings held at most: a possible end, and those behind it. */
const maxHeld = 33
/** Margin for a consumer's arithmetic in float64: some steps of rounding, relative to the values. */
const rounding = 2 ** -48

/**
 * Reduction to straight lines between real readings. From the last kept reading, the anchor, a cone of
 * slopes is open: every line in it passes within ε of all readings since. A reading that lies inside the
 * cone can end the segment; the newest such one is held, with up to 32 readings behind it, until the cone
 * closes. Then it is kept, and those behind it are gone through again from there.
 *
 *                    ,-' cone         every reading's ±ε narrows the cone;
 *           |   |,-'  |               the classic swinging door tests the end against the
 *     A ----|---C-----|----           doors alone, and so keeps no more than 2ε
 *           |   |`-.  x
 *
 * Readings are finite numbers. Where time does not go forward nothing can be interpolated: the segment
 * ends and the reading is kept. Likewise where more than `heartbeatMs` lie between two readings.
 *
 * Cost: a division and some comparisons a reading, at worst 32 of them when a segment ends.
 */
export class Cone implements Segmenter {
  readonly #tolerance: Tolerance
  readonly #heartbeatMs: number
  #begun = false
  readonly #anchor = { timeMs: 0, timeNanos: 0, value: 0 }
  readonly #newest = { timeMs: 0, timeNanos: 0 }
  #low = -Infinity
  #high = Infinity
  /** The possible end first. */
  readonly #held: (AdmittedReading | undefined)[] = new Array(maxHeld).fill(undefined)
  #count = 0

  /** @param heartbeatMs longest time between two kept readings while readings come; Infinity for any */
  constructor(tolerance: Tolerance, heartbeatMs: number) {
    this.#tolerance = tolerance
    this.#heartbeatMs = heartbeatMs
  }

  get held(): number {
    return this.#count
  }

  get oldest(): AdmittedReading | undefined {
    return this.#count > 0 ? this.#held[0] : undefined
  }

  begin(reading: AdmittedReading): void {
    this.#follow(reading)
    this.#open(reading)
  }

  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (this.#begun) {
      const stepMs = elapsedMs(this.#newest, reading)
      if (stepMs > 0 && stepMs <= this.#heartbeatMs) {
        this.#follow(reading)
        this.#place(reading, whole, out)
        return
      }
      this.release(out)
    }
    out.keep(reading, false)
    this.begin(reading)
  }

  advance(out: Decisions): void {
    const count = this.#count
    const end = this.#held[0]
    if (count === 0 || !end) return
    out.keep(end, true)
    // In place: what is placed anew never overtakes what is still to come.
    this.#count = 0
    this.#open(end)
    for (let i = 1; i < count; i++) this.#place(this.#held[i]!, false, out)
  }

  release(out: Decisions): void {
    while (this.#count > 0) this.advance(out)
    this.#begun = false
  }

  spill(out: Decisions): void {
    const count = this.#count
    this.#count = 0
    for (let i = 0; i < count; i++) out.keep(this.#held[i]!, true)
    if (count > 0) this.begin(this.#held[count - 1]!)
  }

  eachHeld(visit: (reading: AdmittedReading) => void): void {
    for (let i = 0; i < this.#count; i++) visit(this.#held[i]!)
  }

  #place(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    const anchor = this.#anchor
    const value = reading.value as number
    for (;;) {
      const sinceMs = elapsedMs(anchor, reading)
      const rise = value - anchor.value
      const slope = rise / sinceMs
      const near = sinceMs <= this.#heartbeatMs
      const fits = near && slope >= this.#low && slope <= this.#high
      if (fits) {
        for (let i = 0; i < this.#count; i++) out.drop(this.#held[i]!, i === 0)
        this.#count = 0
        if (whole) {
          out.keep(reading, false)
          this.begin(reading)
          return
        }
      }
      if (fits || (near && !whole && this.#count < maxHeld)) {
        const { epsilon } = this.#tolerance
        const error = epsilon - (Math.abs(anchor.value) + Math.abs(value) + epsilon) * rounding
        const low = Math.max(this.#low, (rise - error) / sinceMs)
        const high = Math.min(this.#high, (rise + error) / sinceMs)
        if (fits || low <= high) {
          this.#low = low
          this.#high = high
          this.#held[this.#count++] = reading
          return
        }
      }
      // No line from this anchor can come by here. The next anchor is nearer, at last the reading before.
      this.advance(out)
    }
  }

  #open(reading: AdmittedReading): void {
    const anchor = this.#anchor
    this.#begun = true
    anchor.timeMs = reading.timeMs
    anchor.timeNanos = reading.timeNanos
    anchor.value = reading.value as number
    this.#low = -Infinity
    this.#high = Infinity
    this.#tolerance.renew()
  }

  #follow(reading: AdmittedReading): void {
    this.#newest.timeMs = reading.timeMs
    this.#newest.timeNanos = reading.timeNanos
  }
}
