import type { StateReader, StateWriter } from '../state-bytes.ts'
import type { Detector, Scored } from './detector.ts'

/**
 * Distance from an exponentially weighted mean, in exponentially weighted standard deviations: the control
 * chart of quality engineering, for noise about a level that drifts slowly. 0.5 is `limit` deviations.
 *
 * Cost: a square root and some multiplications. State: three numbers.
 * Source: Roberts, Technometrics 1 (1959); variance as in Finch, Incremental calculation (2009).
 */
export class Ewma implements Detector {
  readonly #limit: number
  readonly #weight: number
  readonly #warmUp: number
  #seen = 0
  #mean = 0
  #variance = 0
  expected = Number.NaN
  score = 0

  /** @param halfLife readings after which one counts half @param limit deviations, > 0 */
  constructor({ halfLife, limit }: { halfLife: number; limit: number }) {
    this.#limit = limit
    this.#weight = 1 - 2 ** (-1 / halfLife)
    this.#warmUp = Math.ceil(halfLife)
  }

  take({ value }: Pick<Scored, 'value'>): void {
    const distance = value - this.#mean
    let score = 0
    if (this.#seen >= this.#warmUp) {
      this.expected = this.#mean
      if (distance !== 0)
        score = Math.min(1, Math.abs(distance) / Math.sqrt(this.#variance) / this.#limit / 2)
    }
    // At first a plain mean, so that the first reading does not weigh for long.
    const weight = Math.max(this.#weight, 1 / ++this.#seen)
    this.#mean += weight * distance
    this.#variance = (1 - weight) * (this.#variance + weight * distance * distance)
    this.score = score
  }

  save(writer: StateWriter): void {
    writer.varint(this.#seen)
    writer.float(this.#mean)
    writer.float(this.#variance)
  }

  load(reader: StateReader): void {
    this.#seen = reader.varint()
    this.#mean = reader.float()
    this.#variance = reader.float()
  }
}
