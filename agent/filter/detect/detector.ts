import type { StateReader, StateWriter } from '../state-bytes.ts'

/** Finds what is out of the ordinary in one series, in one pass, learning as it goes. */
export interface Detector {
  /**
   * Score of a value, from what came before it: 0 is ordinary, from 0.5 on it would be worth an alarm, 1 is
   * the most. Learns from the value; makes no garbage.
   *
   * @param value finite
   */
  take(value: number, timeMs: number): number
  /** What would have been ordinary in place of the value taken last; NaN where it cannot tell. */
  readonly expected: number
  save(writer: StateWriter): void
  /** Goes on with what a detector of the same kind has saved. @throws StateProblem */
  load(reader: StateReader): void
}
