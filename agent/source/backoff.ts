import type { Clock, Random } from '../../shared/ports.ts'

/** A connection that has held this long starts the counter over, ms. */
const stableMs = 60_000
/** And where it starts: who loses a broker that has long been there is seldom alone. */
const triesWhenStable = 4

/**
 * When to try again: uniform in 0 … min(max, base · 2^k), so that those who lost the same broker do not
 * come back as one; `k` counts tries since the last stable connection, and starts at 4 behind one.
 */
export class Backoff {
  readonly #clock: Clock
  readonly #random: Random
  readonly #base: number
  readonly #max: number
  #tries = 0

  constructor(options: { clock: Clock; random: Random; base: number; max: number }) {
    this.#clock = options.clock
    this.#random = options.random
    this.#base = options.base
    this.#max = options.max
  }

  /** @param connectedMs monotonic time since when the connection held that is now lost, if there was one */
  nextDelayMs(connectedMs?: number): number {
    if (connectedMs !== undefined && this.#clock.monotonicMs() - connectedMs >= stableMs)
      this.#tries = triesWhenStable
    const ceiling = Math.min(this.#max, this.#base * 2 ** Math.min(this.#tries, 32))
    this.#tries += 1
    return this.#random.uniform() * ceiling
  }
}
