import type { AdmittedReading, Series } from '../../../shared/reading.ts'
import type { StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
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
 * Cost: a division and some comparisons a reading, at worst 32 of them when a segment ends. State: seven
 * numbers, and six for each held reading.
 */
export class Cone implements Segmenter {
  readonly #tolerance: Tolerance
  readonly #heartbeatMs: number
  #begun = false
  /**
   * Held readings are numbers: time, its nanoseconds, value, quality, arrival by both clocks; the possible
   * end comes first. With thousands of series it is fetching from memory that a reading costs, and objects
   * that wait lie all over it, and outlive the cheap collection of garbage.
   */
  readonly #numbers: number[] = [0, 0, 0, 0, 0, -Infinity, Infinity]
  #count = 0
  #series: Series | undefined
  /** The held readings themselves, where who decides on them wants to see them again. */
  readonly #seen: AdmittedReading[] | undefined

  /**
   * @param heartbeatMs longest time between two kept readings while readings come; Infinity for any
   * @param seen whether `Decisions.drop` is to be given the reading
   */
  constructor(tolerance: Tolerance, heartbeatMs: number, seen: boolean) {
    this.#tolerance = tolerance
    this.#heartbeatMs = heartbeatMs
    if (seen) this.#seen = []
  }

  get held(): number {
    return this.#count
  }

  get oldestMs(): number | undefined {
    return this.#count > 0 ? this.#numbers[heldFrom + 5] : undefined
  }

  get oldestWallMs(): number | undefined {
    return this.#count > 0 ? this.#numbers[heldFrom + 4] : undefined
  }

  begin(reading: AdmittedReading): void {
    this.#follow(reading)
    this.#open(reading)
  }

  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (this.#begun) {
      if (this.#follows(reading)) {
        this.#follow(reading)
        this.#stage(reading)
        if (whole) this.#end(reading, out)
        else this.#place(this.#count, out)
        if (this.#seen) this.#seen.length = this.#count
        this.#shrink()
        return
      }
      this.release(out)
    }
    out.keep(reading, false)
    this.begin(reading)
  }

  warm(): void {
    const numbers = this.#numbers
    warmth[0] = numbers[0]! + numbers[numbers.length - 1]! + this.#tolerance.epsilon
  }

  advance(out: Decisions): void {
    const count = this.#count
    if (count === 0) return
    const end = this.#reading(0)
    out.keep(end, true)
    this.#open(end)
    // In place: what is placed anew never overtakes what is still to come.
    this.#count = 0
    for (let i = 1; i < count; i++) this.#place(i, out)
  }

  release(out: Decisions): void {
    while (this.#count > 0) this.advance(out)
    this.#begun = false
  }

  spill(out: Decisions): void {
    for (let i = 0; i < this.#count; i++) {
      const reading = this.#reading(i)
      out.keep(reading, true)
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

  /** A long wait must not cost its memory for ever, nor a short one memory again and again. */
  #shrink(): void {
    const numbers = this.#numbers
    if (this.#count <= fewHeld && numbers.length > heldFrom + heldNumbers * 2 * fewHeld)
      numbers.length = heldFrom + heldNumbers * fewHeld
  }

  /** Writes a reading behind those that are held. */
  #stage(reading: AdmittedReading): void {
    const { series, timeMs, timeNanos, value, quality, arrival } = reading
    const numbers = this.#numbers
    const at = heldFrom + heldNumbers * this.#count
    numbers[at] = timeMs
    numbers[at + 1] = timeNanos
    numbers[at + 2] = value as number
    numbers[at + 3] = quality
    numbers[at + 4] = arrival.wallMs
    numbers[at + 5] = arrival.monotonicMs
    this.#series = series
    if (this.#seen) this.#seen[this.#count] = reading
  }

  /** A staged or held reading. */
  #reading(index: number): AdmittedReading {
    if (this.#seen) return this.#seen[index]!
    const numbers = this.#numbers
    const at = heldFrom + heldNumbers * index
    return {
      series: this.#series!,
      timeMs: numbers[at]!,
      timeNanos: numbers[at + 1]!,
      value: numbers[at + 2]!,
      quality: numbers[at + 3]!,
      arrival: { wallMs: numbers[at + 4]!, monotonicMs: numbers[at + 5]! },
    }
  }

  /** Holds a staged reading, or one that was held before. */
  #place(index: number, out: Decisions): void {
    while (!this.#fits(index, this.#count < maxHeld, out))
      // No line from this anchor can come by here. The next anchor is nearer, at last the reading before.
      this.advance(out)
    this.#hold(index)
  }

  /** Ends the segment with a staged reading, whatever that takes. */
  #end(reading: AdmittedReading, out: Decisions): void {
    const index = this.#count
    while (!this.#fits(index, false, out)) this.advance(out)
    out.keep(reading, false)
    this.begin(reading)
  }

  /**
   * Narrows the cone by a reading. What is held gives way to one that can end the segment; behind others it
   * goes on waiting.
   *
   * @param waits whether one that cannot end the segment may be held too
   * @returns false where the segment has to end before it
   */
  #fits(index: number, waits: boolean, out: Decisions): boolean {
    const numbers = this.#numbers
    const at = heldFrom + heldNumbers * index
    const value = numbers[at + 2]!
    const origin = numbers[anchorValue]!
    const sinceMs = elapsedMs(numbers, anchorMs, at)
    if (sinceMs > this.#heartbeatMs) return false
    const rise = value - origin
    const slope = rise / sinceMs
    const ends = slope >= numbers[low]! && slope <= numbers[high]!
    if (!ends && !waits) return false
    const { epsilon } = this.#tolerance
    const error = epsilon - (Math.abs(origin) + Math.abs(value) + epsilon) * rounding
    const lowest = Math.max(numbers[low]!, (rise - error) / sinceMs)
    const highest = Math.min(numbers[high]!, (rise + error) / sinceMs)
    if (ends) this.#drop(out)
    else if (lowest > highest) return false
    numbers[low] = lowest
    numbers[high] = highest
    return true
  }

  #hold(index: number): void {
    const count = this.#count++
    if (index === count) return
    const numbers = this.#numbers
    const to = heldFrom + heldNumbers * count
    const from = heldFrom + heldNumbers * index
    for (let i = 0; i < heldNumbers; i++) numbers[to + i] = numbers[from + i]!
    if (this.#seen) this.#seen[count] = this.#seen[index]!
  }

  /** The segment goes on to a newer end: what was held is as good as on the line. */
  #drop(out: Decisions): void {
    for (let i = 0; i < this.#count; i++) out.drop(this.#seen?.[i], i === 0)
    this.#count = 0
  }

  #open({ timeMs, timeNanos, value }: AdmittedReading): void {
    const numbers = this.#numbers
    numbers[anchorMs] = timeMs
    numbers[anchorNanos] = timeNanos
    numbers[anchorValue] = value as number
    numbers[low] = -Infinity
    numbers[high] = Infinity
    this.#begun = true
    this.#tolerance.renew()
  }

  /** Whether time goes forward to a reading, and is not silent for too long. */
  #follows({ timeMs, timeNanos }: AdmittedReading): boolean {
    const numbers = this.#numbers
    const stepMs = timeMs - numbers[newestMs]! + (timeNanos - numbers[newestNanos]!) / 1e6
    return stepMs > 0 && stepMs <= this.#heartbeatMs
  }

  #follow({ timeMs, timeNanos }: AdmittedReading): void {
    this.#numbers[newestMs] = timeMs
    this.#numbers[newestNanos] = timeNanos
  }
}

/** From one place to another where a time and its nanoseconds stand, ms; exact within a hundred days. */
function elapsedMs(numbers: readonly number[], from: number, to: number): number {
  return numbers[to]! - numbers[from]! + (numbers[to + 1]! - numbers[from + 1]!) / 1e6
}
