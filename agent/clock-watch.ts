import type { LaneRecord } from '../shared/batch.ts'
import type { Clock } from '../shared/ports.ts'
import { clocksSetAfterMs } from '../shared/reading.ts'

/** A clock that was stepped further than this is told anew … */
const stepMs = 1_000
/** … but no more often than this, should it run wild or stand still. */
const repeatMs = 60_000

/**
 * Watches for the moment at which the gateway's clock is known to be set. A gateway without a battery
 * boots in 1970: its readings keep the monotonic time of their arrival, and once the clock is set a record
 * says how far the two are apart in this boot. Readers apply it; what has been sent is not rewritten.
 */
export class ClockWatch {
  readonly #clock: Clock
  readonly #boot: Uint8Array
  #told: { offsetMs: number; atMonotonicMs: number } | undefined

  /** @param boot 16 bytes that change with every boot */
  constructor(clock: Clock, boot: Uint8Array) {
    this.#clock = clock
    this.#boot = boot
  }

  /** A record when there is news: once in each incarnation, and after the clock was stepped. */
  news(): LaneRecord[] {
    const wallMs = this.#clock.wallMs()
    if (wallMs < clocksSetAfterMs) return []
    const atMonotonicMs = this.#clock.monotonicMs()
    const offsetMs = Math.round(wallMs - atMonotonicMs)
    if (this.#told) {
      if (Math.abs(offsetMs - this.#told.offsetMs) <= stepMs) return []
      if (atMonotonicMs - this.#told.atMonotonicMs < repeatMs) return []
    }
    this.#told = { offsetMs, atMonotonicMs }
    const boot = Buffer.from(this.#boot).toString('hex')
    return [{ type: 'clock', content: { boot, offsetMs } }]
  }
}
