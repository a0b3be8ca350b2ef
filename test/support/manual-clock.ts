import type { Clock } from '../../shared/ports.ts'

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #now = 0
  #wallOffset: number
  #timers: { at: number; order: number; callback: () => void }[] = []
  #order = 0

  constructor(wallMs = Date.UTC(2026, 0, 1)) {
    this.#wallOffset = wallMs
  }

  wallMs(): number {
    return Math.floor(this.#wallOffset + this.#now)
  }

  monotonicMs(): number {
    return this.#now
  }

  timer(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, callback }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  /** Fires what falls due within the next `ms`, in order, letting promises settle in between. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    for (;;) {
      await settle()
      const next = this.#timers
        .filter(({ at }) => at <= end)
        .sort((a, b) => a.at - b.at || a.order - b.order)[0]
      if (!next) break
      this.#now = Math.max(this.#now, next.at)
      this.#timers = this.#timers.filter((other) => other !== next)
      next.callback()
    }
    this.#now = end
    await settle()
  }

  /** Moves the wall clock alone, as an operator or NTP would. */
  setWall(wallMs: number): void {
    this.#wallOffset = wallMs - this.#now
  }

  get pending(): number {
    return this.#timers.length
  }
}

/** Lets everything that is ready run: promises, and callbacks of real files and sockets on the loop. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
