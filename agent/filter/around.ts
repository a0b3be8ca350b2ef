import type { AdmittedReading } from '../../shared/reading.ts'
import { Context } from './context.ts'
import { part } from './hard-state.ts'
import type { FilterRule } from './schema.ts'
import type { StateWriter } from './state-bytes.ts'

/** What is wanted whole around an alarm: readings before it that were held back for this, and those after it. */
export class Around {
  readonly #context: Context | undefined
  readonly #afterMs: number
  #alarmMs = Infinity
  #newestMs = -Infinity

  /** @param settle takes each reading before that no alarm has wanted */
  constructor(
    around: NonNullable<FilterRule['around']>,
    settle: (reading: AdmittedReading) => void,
  ) {
    this.#afterMs = around.after
    if (around.before > 0) this.#context = new Context(around.before, settle)
  }

  /** Readings that wait in case of an alarm. */
  get held(): number {
    return this.#context?.held ?? 0
  }

  /** A reading of this time is about to be judged. */
  pass(timeMs: number): void {
    // What came before a step of the clock is no longer before what follows.
    if (timeMs < this.#newestMs) this.#context?.clear()
    else this.#context?.expire(timeMs)
    this.#newestMs = timeMs
  }

  /** An alarm: hands over what came before it, oldest first. */
  alarm(timeMs: number, take: (reading: AdmittedReading) => void): void {
    this.#alarmMs = timeMs
    this.#context?.pull(take)
  }

  /** Whether a reading comes so soon behind an alarm that it is wanted. */
  wants(timeMs: number): boolean {
    const sinceMs = timeMs - this.#alarmMs
    return sinceMs >= 0 && sinceMs <= this.#afterMs
  }

  /**
   * Holds a reading back that is about to go.
   *
   * @param node see `Decisions.drop`
   * @returns false when nothing is held back here
   */
  hold(reading: AdmittedReading, node: boolean): boolean {
    this.#context?.push(reading, node)
    return this.#context !== undefined
  }

  /** Settles what waits. */
  release(): void {
    this.#context?.clear()
  }

  /** @param waiting the part that says what becomes of those that wait */
  save(writer: StateWriter, waiting: typeof part.dropped | typeof part.gathered): void {
    if (this.held > 0) {
      writer.byte(waiting)
      writer.varint(this.held)
    }
    if (this.wants(this.#newestMs)) {
      writer.byte(part.around)
      writer.float(this.#alarmMs)
    }
  }

  /** Goes on behind an alarm of before the start. */
  load(alarmMs: number | undefined): void {
    this.#alarmMs = alarmMs ?? Infinity
  }
}
