/** So many messages are worth a commit of their own: with more of them, a message costs hardly less. */
const enoughMessages = 1_000

/**
 * Decides how long messages wait for company. A commit costs about the same for one message as for a
 * thousand, so at low rates waiting saves most of the work. But a broker sends only so many messages
 * ahead of our acknowledgements: once all of those are there, nothing more will come, and waiting would
 * only slow both down. How many they are shows at the commits: as many were un-acknowledged at one as at
 * the next.
 */
export class Linger {
  readonly #lingerMs: number
  /** What the broker lets be un-acknowledged at a time, as far as it shows. */
  #window: number | undefined
  /** Un-acknowledged at the last commit. */
  #before: number | undefined

  constructor(lingerMs: number) {
    this.#lingerMs = lingerMs
  }

  /** A group is committed, and not yet acknowledged; `unacked` counts it and what came meanwhile. */
  committed(unacked: number): void {
    if (unacked === 0) return
    if (unacked === this.#before) this.#window = unacked
    else if (unacked > (this.#window ?? 0)) this.#window = undefined
    this.#before = unacked
  }

  /** Another connection, perhaps to another broker. */
  reset(): void {
    this.#window = undefined
    this.#before = undefined
  }

  /**
   * How much longer `pending` messages should wait, ms; at most 0 when they should go.
   *
   * @param sinceMs when the first of them came
   * @param askedMs when a group was asked for, all before being acknowledged
   */
  waitMs(pending: number, sinceMs: number, askedMs: number, nowMs: number): number {
    if (pending >= (this.#window ?? enoughMessages)) return 0
    // What the last acknowledgements let the broker send is on its way, however long these have waited.
    const fromMs = this.#window === undefined ? sinceMs : askedMs
    return fromMs + this.#lingerMs - nowMs
  }
}
