/** A series with windows, as its device sees it. */
export interface Windowed {
  /** When the first window is due that holds anything, by event time, ms; Infinity when there is none. */
  readonly dueMs: number
  /** Length of a window, and how long one waits for late readings, ms. */
  readonly patienceMs: number
  /** Closes windows that the watermark has passed. */
  closeWindows(watermarkMs: number): void
}

/**
 * Event time of one device: the newest time that any of its windowed series has told. Windows of all its
 * series close by it, so that a series that falls silent does not keep its last window open.
 */
export class Device {
  #watermarkMs = -Infinity
  /** The earliest that any window is due. */
  #dueMs = Infinity
  /** Arrival of the last reading, monotonic ms; Infinity before the first since the start. */
  #arrivedMs = Infinity
  /** Silence after which the longest window of any series must be over, ms. */
  #patienceMs = 0
  readonly #members = new Set<Windowed>()

  join(member: Windowed): void {
    this.#members.add(member)
    this.#patienceMs = Math.max(this.#patienceMs, member.patienceMs)
    this.#dueMs = Math.min(this.#dueMs, member.dueMs)
  }

  /** A window was opened, or a reading has come. */
  see(timeMs: number, dueMs: number, arrivedMs: number): void {
    this.#arrivedMs = arrivedMs
    if (dueMs < this.#dueMs) this.#dueMs = dueMs
    if (timeMs > this.#watermarkMs) this.#watermarkMs = timeMs
    if (this.#watermarkMs >= this.#dueMs) this.#close(this.#watermarkMs)
  }

  /** Closes what is open when the device has been silent for too long: event time stands still then. */
  tick(monotonicMs: number): void {
    if (this.#dueMs === Infinity) return
    // After a start silence counts from there.
    if (this.#arrivedMs === Infinity) this.#arrivedMs = monotonicMs
    if (monotonicMs - this.#arrivedMs > this.#patienceMs) this.#close(Infinity)
  }

  /** Closes everything. */
  flush(): void {
    this.#close(Infinity)
  }

  #close(watermarkMs: number): void {
    this.#dueMs = Infinity
    for (const member of this.#members) {
      if (member.dueMs <= watermarkMs) member.closeWindows(watermarkMs)
      if (member.dueMs < this.#dueMs) this.#dueMs = member.dueMs
    }
  }
}
