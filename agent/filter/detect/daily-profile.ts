import type { StateReader, StateWriter } from '../state-bytes.ts'

const dayMs = 86_400_000

/** Deviations below this share of the range seen are rounding, in series that repeat exactly. */
const finest = 1e-6

export const profileTuning = {
  /** Slots of a day. */
  slots: 12,
  /** Weight of the newest day at least, so that the profile follows the seasons. */
  newest: 0.1,
}
export type ProfileTuning = typeof profileTuning

/**
 * What the time of day lets one expect, from the days before: mean and mean deviation of twelve two-hour
 * slots, in UTC. How many readings a slot holds does not matter; each day counts as one.
 *
 * State: 26 numbers, and sums over the slot that is under way.
 */
export class DailyProfile {
  readonly #tuning: ProfileTuning
  readonly #mean: Float64Array
  readonly #deviation: Float64Array
  readonly #days: Uint16Array
  #slot = -1
  #sum = 0
  #count = 0
  #deviationSum = 0
  #deviationCount = 0
  /** Mean deviation over all slots, and from how many visits. */
  #usual = 0
  #visits = 0
  #least = Infinity
  #most = -Infinity

  constructor(tuning: ProfileTuning = profileTuning) {
    this.#tuning = tuning
    this.#mean = new Float64Array(tuning.slots)
    this.#deviation = new Float64Array(tuning.slots)
    this.#days = new Uint16Array(tuning.slots)
  }

  /**
   * How far a value lies from what the time of day lets one expect, in mean deviations; 0 as long as
   * nothing is expected.
   */
  take(value: number, timeMs: number): number {
    const { slots } = this.#tuning
    const slot = Math.floor((timeMs * slots) / dayMs) % slots
    if (slot !== this.#slot) this.#enter(slot)
    this.#sum += value
    this.#count++
    if (value < this.#least) this.#least = value
    if (value > this.#most) this.#most = value
    if (this.#days[slot] === 0) return 0
    let error = value - this.#mean[slot]!
    if (Math.abs(error) < (this.#most - this.#least) * finest) error = 0
    this.#deviationSum += Math.abs(error)
    this.#deviationCount++
    if (this.#visits === 0) return 0
    // A slot that was calm by chance must not make small errors large: half its own, half the usual.
    const own = this.#days[slot]! > 1 ? this.#deviation[slot]! : this.#usual
    const scale = (own + this.#usual) / 2
    return scale > 0 ? error / scale : 0
  }

  /** Mean of the slot under way on earlier days; NaN where there was none. */
  get expected(): number {
    return this.#slot >= 0 && this.#days[this.#slot]! > 0 ? this.#mean[this.#slot]! : Number.NaN
  }

  #enter(slot: number): void {
    const left = this.#slot
    const { newest, slots } = this.#tuning
    if (left >= 0) {
      // Days are counted only as far as they matter.
      const days = Math.min(this.#days[left]! + 1, 65_535)
      this.#days[left] = days
      const mean = this.#sum / this.#count
      if (days === 1) this.#mean[left] = mean
      else this.#mean[left]! += Math.max(newest, 1 / days) * (mean - this.#mean[left]!)
      if (this.#deviationCount > 0) {
        const deviation = this.#deviationSum / this.#deviationCount
        const visits = ++this.#visits
        this.#deviation[left]! +=
          Math.max(newest, 1 / (days - 1)) * (deviation - this.#deviation[left]!)
        this.#usual += Math.max(newest / slots, 1 / visits) * (deviation - this.#usual)
      }
    }
    this.#slot = slot
    this.#sum = this.#count = this.#deviationSum = this.#deviationCount = 0
  }

  save(writer: StateWriter): void {
    for (const mean of this.#mean) writer.float(mean)
    for (const deviation of this.#deviation) writer.float(deviation)
    for (const days of this.#days) writer.varint(days)
    writer.varint(this.#slot + 1)
    writer.float(this.#sum)
    writer.varint(this.#count)
    writer.float(this.#deviationSum)
    writer.varint(this.#deviationCount)
    writer.float(this.#usual)
    writer.varint(this.#visits)
    writer.float(this.#least)
    writer.float(this.#most)
  }

  /** @throws StateProblem */
  load(reader: StateReader): void {
    const { slots } = this.#tuning
    for (let i = 0; i < slots; i++) this.#mean[i] = reader.float()
    for (let i = 0; i < slots; i++) this.#deviation[i] = reader.float()
    for (let i = 0; i < slots; i++) this.#days[i] = reader.count(65_535)
    this.#slot = reader.count(slots) - 1
    this.#sum = reader.float()
    this.#count = reader.varint()
    this.#deviationSum = reader.float()
    this.#deviationCount = reader.varint()
    this.#usual = reader.float()
    this.#visits = reader.varint()
    this.#least = reader.float()
    this.#most = reader.float()
  }
}
