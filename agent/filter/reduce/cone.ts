import type { AdmittedReading } from '../../../shared/reading.ts'
import type { StateWriter } from '../state-bytes.ts'
import type { Decisions, Segmenter } from './segment.ts'
import type { Tolerance } from './tolerance.ts'

/** Readings held at most: a possible end, and those behind it. */
const maxHeld = 33
/** Places of the numbers of a cone; each held reading has `heldNumbers` more, from `heldFrom` on. */
const anchorMs = 0
const anchorNanos = 1
const anchorValue = 2
const newestMs = 3
const newestNanos = 4
const low = 5
const high = 6
const heldFrom = 7
const heldNumbers = 6

/** Room that is kept for held readings, whatever there was need for once. */
const fewHeld = 8

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
  /** The possible end first. Slots behind `#count` are undefined, so that nothing is kept alive. */
  readonly #held: (AdmittedReading | undefined)[] = [undefined, undefined, undefined, undefined]
  #count = 0
  /**
   * All that a reading is compared with, and what of the held ones is saved, in one piece: with thousands
   * of series it is fetching from memory that a reading costs, and readings lie all over it.
   */
  readonly #numbers: number[] = [0, 0, 0, 0, 0, -Infinity, Infinity]

  /** @param heartbeatMs longest time between two kept readings while readings come; Infinity for any */
  constructor(tolerance: Tolerance, heartbeatMs: number) {
    this.#tolerance = tolerance
    this.#heartbeatMs = heartbeatMs
  }

  get held(): number {
    return this.#count
  }

  get oldest(): AdmittedReading | undefined {
    return this.#held[0]
  }

  begin(reading: AdmittedReading): void {
    this.#follow(reading)
    this.#open(reading)
  }

  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (this.#begun) {
      const stepMs = this.#elapsedMs(newestMs, reading)
      if (stepMs > 0 && stepMs <= this.#heartbeatMs) {
        this.#follow(reading)
        this.#place(reading, whole, out)
        // A long wait must not cost its memory for ever.
        if (this.#count <= fewHeld && this.#held.length > fewHeld) {
          this.#held.length = fewHeld
          this.#numbers.length = heldFrom + heldNumbers * fewHeld
        }
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
    if (!end) return
    out.keep(end, true)
    this.#open(end)
    // In place: what is placed anew never overtakes what is still to come.
    this.#count = 0
    for (let i = 1; i < count; i++) this.#place(this.#held[i]!, false, out)
    for (let i = this.#count; i < count; i++) this.#held[i] = undefined
  }

  release(out: Decisions): void {
    while (this.#count > 0) this.advance(out)
    this.#begun = false
  }

  spill(out: Decisions): void {
    for (let i = 0; i < this.#count; i++) {
      const reading = this.#held[i]!
      out.keep(reading, true)
      this.#held[i] = undefined
      this.begin(reading)
    }
    this.#count = 0
  }

  saveHeld(writer: StateWriter): void {
    const numbers = this.#numbers
    for (let i = 0, at = heldFrom; i < this.#count; i++, at += heldNumbers)
      writer.numericReading(
        numbers[at]!,
        numbers[at + 1]!,
        numbers[at + 2]!,
        numbers[at + 3]!,
        numbers[at + 4]!,
        numbers[at + 5]!,
      )
  }

  #place(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    const numbers = this.#numbers
    const value = reading.value as number
    for (;;) {
      const origin = numbers[anchorValue]!
      const sinceMs = this.#elapsedMs(anchorMs, reading)
      const rise = value - origin
      const slope = rise / sinceMs
      const near = sinceMs <= this.#heartbeatMs
      const fits = near && slope >= numbers[low]! && slope <= numbers[high]!
      if (fits) {
        this.#drop(out)
        if (whole) {
          out.keep(reading, false)
          this.begin(reading)
          return
        }
      }
      if (fits || (near && !whole && this.#count < maxHeld)) {
        const { epsilon } = this.#tolerance
        const error = epsilon - (Math.abs(origin) + Math.abs(value) + epsilon) * rounding
        const lowest = Math.max(numbers[low]!, (rise - error) / sinceMs)
        const highest = Math.min(numbers[high]!, (rise + error) / sinceMs)
        if (fits || lowest <= highest) {
          numbers[low] = lowest
          numbers[high] = highest
          this.#hold(reading, value)
          return
        }
      }
      // No line from this anchor can come by here. The next anchor is nearer, at last the reading before.
      this.advance(out)
    }
  }

  #hold(reading: AdmittedReading, value: number): void {
    const { timeMs, timeNanos, quality, arrival } = reading
    const numbers = this.#numbers
    const at = heldFrom + heldNumbers * this.#count
    numbers[at] = timeMs
    numbers[at + 1] = timeNanos
    numbers[at + 2] = value
    numbers[at + 3] = quality
    numbers[at + 4] = arrival.wallMs
    numbers[at + 5] = arrival.monotonicMs
    this.#held[this.#count++] = reading
  }

  /** The segment goes on to a newer end: what was held is as good as on the line. */
  #drop(out: Decisions): void {
    for (let i = 0; i < this.#count; i++) {
      const reading = this.#held[i]!
      this.#held[i] = undefined
      out.drop(reading, i === 0)
    }
    this.#count = 0
  }

  #open(reading: AdmittedReading): void {
    const numbers = this.#numbers
    numbers[anchorMs] = reading.timeMs
    numbers[anchorNanos] = reading.timeNanos
    numbers[anchorValue] = reading.value as number
    numbers[low] = -Infinity
    numbers[high] = Infinity
    this.#begun = true
    this.#tolerance.renew()
  }

  #follow(reading: AdmittedReading): void {
    this.#numbers[newestMs] = reading.timeMs
    this.#numbers[newestNanos] = reading.timeNanos
  }

  /** Time since that of the anchor or of the newest reading, ms; exact to the nanosecond within a hundred days. */
  #elapsedMs(
    since: typeof anchorMs | typeof newestMs,
    { timeMs, timeNanos }: AdmittedReading,
  ): number {
    return timeMs - this.#numbers[since]! + (timeNanos - this.#numbers[since + 1]!) / 1e6
  }
}
