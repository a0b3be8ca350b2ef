import { sleep } from '../shared/clock.ts'
import type { Clock } from '../shared/ports.ts'

/** A longer silence in a recording is played as one of this length. */
const maxGapMs = 3_600_000

/** Holds a recording to its own pace, or `speed` times it. */
export class Pace {
  readonly #clock: Clock
  readonly #speed: number
  /** Place on the time line last waited for, and when it was due on the clock. */
  #lastMs: number | undefined
  #dueMs: number

  /** @param speed > 0; Infinity never waits */
  constructor(clock: Clock, speed: number) {
    this.#clock = clock
    this.#speed = speed
    this.#dueMs = clock.monotonicMs()
  }

  /** A promise until `atMs` is due, or undefined when it is now; backward steps wait for nothing. */
  until(atMs: number, signal: AbortSignal): Promise<void> | undefined {
    if (this.#speed === Number.POSITIVE_INFINITY) return undefined
    const gapMs = Math.min(Math.max(0, atMs - (this.#lastMs ?? atMs)), maxGapMs)
    this.#lastMs = Math.max(atMs, this.#lastMs ?? atMs)
    this.#dueMs += gapMs / this.#speed
    const waitMs = this.#dueMs - this.#clock.monotonicMs()
    return waitMs < 1 ? undefined : sleep(this.#clock, waitMs, signal)
  }
}
