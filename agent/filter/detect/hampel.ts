import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'
import type { Detector, Scored } from './detector.ts'

/** Makes the median absolute deviation estimate a Gaussian σ. */
const sigmas = 1.4826

/**
 * Distance from the median of the last readings, in scaled median absolute deviations: finds spikes in what
 * is otherwise smooth, and forgets a new level within half a window. 0.5 is `limit` deviations.
 *
 * Cost: one shift of a sorted window and half a walk over it. State: two windows of numbers.
 * Source: Hampel, JASA 69 (1974).
 */
export class Hampel implements Detector {
  readonly #limit: number
  /** The last readings in order of time, a ring, and in order of size. */
  readonly #recent: Float64Array
  readonly #sorted: Float64Array
  #count = 0
  #at = 0
  expected = Number.NaN
  score = 0

  /** @param window readings, odd, ≥ 3 @param limit deviations, > 0 */
  constructor({ window, limit }: { window: number; limit: number }) {
    this.#limit = limit
    this.#recent = new Float64Array(window)
    this.#sorted = new Float64Array(window)
  }

  take({ value }: Pick<Scored, 'value'>): void {
    const window = this.#recent.length
    let score = 0
    if (this.#count === window) {
      const median = this.#sorted[window >> 1]!
      const distance = Math.abs(value - median)
      this.expected = median
      if (distance > 0) {
        const scaled = distance / (sigmas * this.#deviation(median))
        score = Math.min(1, scaled / this.#limit / 2)
      }
      this.#remove(this.#recent[this.#at]!)
    }
    this.#insert(value)
    this.#recent[this.#at] = value
    this.#at = (this.#at + 1) % window
    this.score = score
  }

  /** Median absolute deviation: the nearer half of the window, walked outwards from the median. */
  #deviation(median: number): number {
    const sorted = this.#sorted
    let low = sorted.length >> 1
    let high = low
    let distance = 0
    for (let left = sorted.length >> 1; left > 0; left--) {
      const below = low > 0 ? median - sorted[low - 1]! : Infinity
      const above = high < sorted.length - 1 ? sorted[high + 1]! - median : Infinity
      if (below <= above) low--
      else high++
      distance = Math.min(below, above)
    }
    return distance
  }

  #insert(value: number): void {
    const sorted = this.#sorted
    let at = this.#count
    while (at > 0 && sorted[at - 1]! > value) at--
    sorted.copyWithin(at + 1, at, this.#count++)
    sorted[at] = value
  }

  #remove(value: number): void {
    const sorted = this.#sorted
    let at = 0
    while (sorted[at]! < value) at++
    sorted.copyWithin(at, at + 1, this.#count--)
  }

  save(writer: StateWriter): void {
    writer.varint(this.#count)
    const window = this.#recent.length
    for (let i = this.#count; i > 0; i--)
      writer.float(this.#recent[(this.#at - i + window) % window]!)
  }

  load(reader: StateReader): void {
    for (let left = reader.count(this.#recent.length); left > 0; left--) {
      const value = reader.float()
      if (!Number.isFinite(value)) throw new StateProblem(`a value of ${value}`)
      this.take({ value })
    }
  }
}
