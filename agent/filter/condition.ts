import type { StateReader, StateWriter } from './state-bytes.ts'

export type AlertState = 'raised' | 'still' | 'cleared'

/** How long a fault must be gone before it is, and how often it is told while it lasts, ms. */
export interface AlertTiming {
  holdMs: number
  remindMs: number
}

/**
 * One fault of one series, so that it is one alert however it flickers: raised at once, told again every so
 * often while it lasts, cleared only when it has stayed away for the hold time. Times are the readings'.
 */
export class Condition {
  #raised = false
  #sinceMs = 0
  #lastMs = 0
  #toldMs = 0

  get raised(): boolean {
    return this.#raised
  }

  /** When it was raised. */
  get sinceMs(): number {
    return this.#sinceMs
  }

  /** The fault is there. @returns what to tell, if anything */
  bad(atMs: number, { remindMs }: AlertTiming): AlertState | undefined {
    if (!this.#raised) {
      this.#raised = true
      this.#sinceMs = this.#lastMs = this.#toldMs = atMs
      return 'raised'
    }
    this.extend(atMs)
    if (atMs - this.#toldMs < remindMs) return undefined
    this.#toldMs = atMs
    return 'still'
  }

  /** The fault was there until then. */
  extend(atMs: number): void {
    this.#lastMs = Math.max(this.#lastMs, atMs)
  }

  /** The fault is not there, and not nearly. @returns what to tell, if anything */
  good(atMs: number, { holdMs }: AlertTiming): AlertState | undefined {
    if (!this.#raised || atMs - this.#lastMs < holdMs) return undefined
    this.#raised = false
    return 'cleared'
  }

  save(writer: StateWriter): void {
    writer.byte(this.#raised ? 1 : 0)
    writer.float(this.#sinceMs)
    writer.float(this.#lastMs)
    writer.float(this.#toldMs)
  }

  static load(reader: StateReader): Condition {
    const condition = new Condition()
    condition.#raised = reader.byte() === 1
    condition.#sinceMs = reader.float()
    condition.#lastMs = reader.float()
    condition.#toldMs = reader.float()
    return condition
  }
}
