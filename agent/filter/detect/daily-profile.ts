import type { StateReader, StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
import type { Scored } from './detector.ts'

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
 * State: 38 numbers, and sums over the slot that is under way.
 */
export class DailyProfile {
  /**
   * Of the value taken last: how far it lies from what the time of day lets one expect, in mean deviations;
   * 0 as long as nothing is expected.
   */
  residual = 0
  readonly #tuning: ProfileTuning
  /** Mean, mean deviation and number of days of each slot, one behind the other; then the numbers below. */
  readonly #known: number[]
  /** The slot under way; -1 before the first. */
  #slot = -1
  #count = 0
  #deviationCount = 0
  /** Slots gone through that had a deviation. */
  #visits = 0

  constructor(tuning: ProfileTuning = profileTuning) {
    this.#tuning = tuning
    // A plain array: so short a typed one is mostly overhead.
    this.#known = new Array(3 * tuning.slots + 5).fill(0)
    this.#least = Infinity
    this.#most = -Infinity
  }

  /** Learns from a value, and says in `residual` how far it lies from what was expected. */
  take({ value, timeMs }: Scored): void {
    this.residual = 0
    const { slots } = this.#tuning
    // Not a remainder: that would be negative before 1970.
    const inDayMs = timeMs - Math.floor(timeMs / dayMs) * dayMs
    const slot = Math.floor((inDayMs * slots) / dayMs)
    if (slot !== this.#slot) this.#enter(slot)
    this.#sum += value
    this.#count++
    if (value < this.#least) this.#least = value
    if (value > this.#most) this.#most = value
    const known = this.#known
    const days = known[3 * slot + 2]!
    if (days === 0) return
    let error = value - known[3 * slot]!
    if (Math.abs(error) < (this.#most - this.#least) * finest) error = 0
    this.#deviationSum += Math.abs(error)
    this.#deviationCount++
    if (this.#visits === 0) return
    // A slot that was calm by chance must not make small errors large: half its own, half the usual.
    const own = days > 1 ? known[3 * slot + 1]! : this.#usual
    const scale = (own + this.#usual) / 2
    if (scale > 0) this.residual = error / scale
  }

  warm(): void {
    const known = this.#known
    warmth[0] = this.#count + known[3 * Math.max(0, this.#slot)]! + known[known.length - 1]!
  }

  /** Mean of the slot under way on earlier days; NaN where there was none. */
  get expected(): number {
    const at = 3 * this.#slot
    return at >= 0 && this.#known[at + 2]! > 0 ? this.#known[at]! : Number.NaN
  }

  #enter(slot: number): void {
    if (this.#slot >= 0) this.#leave(3 * this.#slot)
    this.#slot = slot
    this.#sum = this.#deviationSum = 0
    this.#count = this.#deviationCount = 0
  }

  /** Takes the day that has just been into what is known of a slot. */
  #leave(at: number): void {
    const known = this.#known
    const { newest, slots } = this.#tuning
    const days = known[at + 2]! + 1
    known[at + 2] = days
    known[at]! += Math.max(newest, 1 / days) * (this.#sum / this.#count - known[at]!)
    if (this.#deviationCount === 0) return
    const deviation = this.#deviationSum / this.#deviationCount
    const visits = ++this.#visits
    known[at + 1]! += Math.max(newest, 1 / (days - 1)) * (deviation - known[at + 1]!)
    this.#usual += Math.max(newest / slots, 1 / visits) * (deviation - this.#usual)
  }

  save(writer: StateWriter): void {
    for (const number of this.#known) writer.float(number)
    writer.varint(this.#slot + 1)
    writer.varint(this.#count)
    writer.varint(this.#deviationCount)
    writer.varint(this.#visits)
  }

  /** @throws StateProblem */
  load(reader: StateReader): void {
    const { slots } = this.#tuning
    for (let i = 0; i < this.#known.length; i++) this.#known[i] = reader.float()
    this.#slot = reader.count(slots) - 1
    this.#count = reader.varint()
    this.#deviationCount = reader.varint()
    this.#visits = reader.varint()
  }

  /** Sums over the slot under way. */
  get #sum(): number {
    return this.#known[this.#known.length - 5]!
  }
  set #sum(value: number) {
    this.#known[this.#known.length - 5] = value
  }

  get #deviationSum(): number {
    return this.#known[this.#known.length - 4]!
  }
  set #deviationSum(value: number) {
    this.#known[this.#known.length - 4] = value
  }

  /** Mean deviation over all slots. */
  get #usual(): number {
    return this.#known[this.#known.length - 3]!
  }
  set #usual(value: number) {
    this.#known[this.#known.length - 3] = value
  }

  /** Range of the values seen. */
  get #least(): number {
    return this.#known[this.#known.length - 2]!
  }
  set #least(value: number) {
    this.#known[this.#known.length - 2] = value
  }

  get #most(): number {
    return this.#known[this.#known.length - 1]!
  }
  set #most(value: number) {
    this.#known[this.#known.length - 1] = value
  }
}
