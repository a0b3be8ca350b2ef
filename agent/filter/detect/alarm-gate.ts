import type { StateReader, StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
import type { Detector, Scored } from './detector.ts'

export interface AlarmConfig {
  /** Score from which on there is an alarm. */
  threshold: number
  /** Alarms at most in a day of a series, on average. */
  alarmsPerDay: number
}

const dayMs = 86_400_000
/** What an alarm takes off later scores: one bit of surprise. It wears off over a week. */
const fatigue = 1 / 18
const restMs = 7 * dayMs
/** Readings below the threshold after which an anomaly is over. */
const quiet = 20

/** None of these is sharp either. */
export const gateTuning = { fatigue, restMs, quiet }
export type GateTuning = typeof gateTuning

/**
 * Decides which scores are alarms, so that one anomaly is one alarm and a series that cries often has to
 * cry louder: each alarm lowers the scores of the next week a little, an anomaly that goes on raises no
 * second alarm, and beyond the budget there is none.
 */
export class AlarmGate {
  readonly #config: AlarmConfig
  readonly #tuning: GateTuning
  readonly #most: number
  #tired = 0
  /** Alarms left in the budget. A number from the start: a field that was ever empty costs an object at each change. */
  #left = Number.NaN
  #newestMs = Infinity
  /** Readings until the anomaly is over; 0 when there is none. */
  #remaining = 0
  #sinceMs = 0
  #events = 0
  /** In [0, 1], of the last reading: reaches the threshold exactly where it raised an alarm. */
  score = 0
  /** What the last reading did: raised an alarm, or ended the anomaly. */
  event: 'raised' | 'cleared' | undefined

  constructor(config: AlarmConfig, tuning: GateTuning = gateTuning) {
    this.#config = config
    this.#tuning = tuning
    this.#most = Math.max(1, config.alarmsPerDay)
    this.#left = this.#most
  }

  /** Alarms raised and cleared so far. */
  get events(): number {
    return this.#events
  }

  /** When the anomaly began that is under way or has just ended, ms. */
  get sinceMs(): number {
    return this.#sinceMs
  }

  warm(): void {
    warmth[0] = this.score + this.#tired + this.#left + this.#newestMs
  }

  /** @param detector that has just scored the reading */
  take({ score: raw }: Pick<Detector, 'score'>, reading: Pick<Scored, 'timeMs'>): void {
    const { threshold } = this.#config
    this.#pass(reading)
    this.event = undefined
    this.score = Math.max(0, raw - this.#tired * this.#tuning.fatigue)
    if (this.score < threshold) {
      if (this.#remaining > 0 && --this.#remaining === 0) {
        this.event = 'cleared'
        this.#events++
      }
      return
    }
    const free = this.#remaining === 0 && this.#left >= 1
    if (free || this.#remaining > 0) this.#remaining = this.#tuning.quiet
    if (!free) {
      this.score = threshold * (1 - 1e-6)
      return
    }
    this.#tired++
    this.#left--
    this.#sinceMs = reading.timeMs
    this.event = 'raised'
    this.#events++
  }

  #pass({ timeMs }: Pick<Scored, 'timeMs'>): void {
    const { alarmsPerDay } = this.#config
    // A clock that jumps ahead and back must not stop time here for years, nor hand out years of budget.
    const elapsedMs = Math.min(timeMs - this.#newestMs, this.#tuning.restMs)
    this.#newestMs = timeMs
    if (!(elapsedMs > 0)) return
    this.#tired *= Math.max(0, 1 - elapsedMs / this.#tuning.restMs)
    this.#left = Math.min(this.#most, this.#left + (elapsedMs / dayMs) * alarmsPerDay)
  }

  save(writer: StateWriter): void {
    writer.float(this.#tired)
    writer.float(this.#left)
    writer.float(this.#newestMs)
    writer.varint(this.#remaining)
    writer.float(this.#sinceMs)
    writer.varint(this.#events)
  }

  /** Goes on with what was saved, unless it is older than what is here. */
  load({ tired, left, newestMs, remaining, sinceMs, events }: SavedAlarms): void {
    if (events < this.#events) return
    this.#events = events
    this.#tired = tired
    this.#left = Math.min(this.#most, left)
    this.#newestMs = newestMs
    this.#remaining = remaining
    this.#sinceMs = sinceMs
  }
}

/** A gate's state as it was saved. */
export interface SavedAlarms {
  tired: number
  left: number
  newestMs: number
  remaining: number
  sinceMs: number
  /** Alarms raised and cleared so far. */
  events: number
}

/** @throws StateProblem */
export function readAlarms(reader: StateReader): SavedAlarms {
  return {
    tired: reader.float(),
    left: reader.float(),
    newestMs: reader.float(),
    remaining: reader.varint(),
    sinceMs: reader.float(),
    events: reader.varint(),
  }
}
