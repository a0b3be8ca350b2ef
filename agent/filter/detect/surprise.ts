import type { StateReader, StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
import { DailyProfile, type ProfileTuning, profileTuning } from './daily-profile.ts'
import type { Detector, Scored } from './detector.ts'
import { Novelty, type NoveltyTuning, noveltyTuning } from './novelty.ts'

/** This many bits score 1: the like of a value was seen once in 262,144 readings. Half of it, once in 512. */
const mostBits = 18

export const surpriseTuning = { ...noveltyTuning, ...profileTuning }

/**
 * The default detector: how surprising is the value, or else its distance from what the time of day lets
 * one expect? The larger of the two counts, in bits.
 *
 * Cost: two `Novelty` a reading. State: 1.3 KB after the first 200 readings.
 */
export class Surprise implements Detector {
  readonly #value: Novelty
  readonly #residual: Novelty
  readonly #profile: DailyProfile
  #byTimeOfDay = false
  score = 0

  constructor(tuning: NoveltyTuning & ProfileTuning = surpriseTuning) {
    this.#value = new Novelty(tuning)
    this.#residual = new Novelty(tuning)
    this.#profile = new DailyProfile(tuning)
  }

  take(reading: Scored): void {
    this.#value.take(reading.value)
    this.#profile.take(reading)
    this.#residual.take(this.#profile.residual)
    this.#byTimeOfDay = this.#residual.rarity > this.#value.rarity
    const rarity = this.#byTimeOfDay ? this.#residual.rarity : this.#value.rarity
    this.score = Math.min(1, Math.max(0, Math.log2(rarity)) / mostBits)
  }

  warm(): void {
    this.#value.warm()
    this.#residual.warm()
    this.#profile.warm()
    warmth[0] = this.score
  }

  get expected(): number {
    return this.#byTimeOfDay ? this.#profile.expected : this.#value.median
  }

  save(writer: StateWriter): void {
    this.#value.save(writer)
    this.#residual.save(writer)
    this.#profile.save(writer)
  }

  load(reader: StateReader): void {
    this.#value.load(reader)
    this.#residual.load(reader)
    this.#profile.load(reader)
  }
}
