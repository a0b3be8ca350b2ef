import type { AdmittedReading } from '../../shared/reading.ts'

/** Readings kept back at most, whatever the time they span. */
export const maxContext = 512

/**
 * What came just before, in case an alarm wants it whole: readings that were dropped or absorbed, kept back
 * for a while. It begins with one that can be added to what was kept without spoiling what lies before it
 * (see `Decisions.drop`), so it may reach back a little farther than asked.
 */
export class Context {
  readonly #beforeMs: number
  readonly #settle: (reading: AdmittedReading) => void
  #readings: (AdmittedReading | undefined)[] = new Array(16).fill(undefined)
  #nodes = new Uint8Array(16)
  /** Places count on and on; a place's slot is its remainder. */
  #start = 0
  #end = 0
  /** First place not yet looked at as a new beginning. */
  #next = 0

  /** @param settle takes each reading that no alarm has wanted */
  constructor(beforeMs: number, settle: (reading: AdmittedReading) => void) {
    this.#beforeMs = beforeMs
    this.#settle = settle
  }

  get held(): number {
    return this.#end - this.#start
  }

  /** @param node see `Decisions.drop` */
  push(reading: AdmittedReading, node: boolean): void {
    if (this.held === this.#readings.length && this.held < maxContext) this.#grow()
    // Full: the oldest goes; what then stands first may be no node, which `pull` minds.
    if (this.held === this.#readings.length) this.#dropTo(this.#start + 1)
    const slot = this.#end++ % this.#readings.length
    this.#readings[slot] = reading
    this.#nodes[slot] = node ? 1 : 0
  }

  /** Settles what has become too old. */
  expire(nowMs: number): void {
    const limitMs = nowMs - this.#beforeMs
    const { length } = this.#readings
    let start = this.#start
    for (; this.#next < this.#end; this.#next++) {
      const slot = this.#next % length
      if (this.#readings[slot]!.timeMs > limitMs) break
      if (this.#nodes[slot] === 1) start = this.#next
    }
    this.#dropTo(start)
  }

  /** Settles all. */
  clear(): void {
    this.#dropTo(this.#end)
  }

  /** Hands over what it holds, oldest first; what none may begin with is settled. */
  pull(take: (reading: AdmittedReading) => void): void {
    const { length } = this.#readings
    let from = this.#start
    while (from < this.#end && this.#nodes[from % length] === 0) from++
    this.#dropTo(from)
    for (; this.#start < this.#end; this.#start++) {
      const slot = this.#start % length
      const reading = this.#readings[slot]!
      this.#readings[slot] = undefined
      take(reading)
    }
    this.#next = this.#end
  }

  #dropTo(place: number): void {
    for (; this.#start < place; this.#start++) {
      const slot = this.#start % this.#readings.length
      const reading = this.#readings[slot]!
      this.#readings[slot] = undefined
      this.#settle(reading)
    }
    if (this.#next < place) this.#next = place
  }

  #grow(): void {
    const { length } = this.#readings
    const readings = new Array<AdmittedReading | undefined>(2 * length).fill(undefined)
    const nodes = new Uint8Array(2 * length)
    for (let place = this.#start; place < this.#end; place++) {
      readings[place % (2 * length)] = this.#readings[place % length]
      nodes[place % (2 * length)] = this.#nodes[place % length]!
    }
    this.#readings = readings
    this.#nodes = nodes
  }
}
