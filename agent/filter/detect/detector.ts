import type { StateReader, StateWriter } from '../state-bytes.ts'

/** A reading as detectors see it; the value is finite. */
export interface Scored {
  readonly timeMs: number
  readonly value: number
}

/** Finds what is out of the ordinary in one series, in one pass, learning as it goes. */
export interface Detector {
  /**
   * Learns from a value, and scores it by what came before; makes no garbage.
   *
   * Numbers come in a reading and go out in fields: handed on one by one, each would cost an object.
   */
  take(reading: Scored): void
  /** Of the value taken last: 0 is ordinary, from 0.5 on it would be worth an alarm, 1 is the most. */
  readonly score: number
  /** What would have been ordinary in place of the value taken last; NaN where it cannot tell. */
  readonly expected: number
  /** Fetches what the next value will need, see `warmth`. */
  warm?(): void
  save(writer: StateWriter): void
  /** Goes on with what a detector of the same kind has saved. @throws StateProblem */
  load(reader: StateReader): void
}
