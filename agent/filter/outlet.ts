import type { AdmittedReading, Arrival } from '../../shared/reading.ts'
import type { StateWriter } from './state-bytes.ts'

/** Where the judged readings of one series go: thinned, or gathered into windows. */
export interface Outlet {
  /** Readings that wait for a decision, or in case of an alarm. */
  readonly held: number
  /**
   * What came before this is decided, wall clock, ms: a consumer reconstructs it from what was let go.
   * Infinity when nothing waits.
   */
  readonly undecidedMs: number
  /** @param alarmed the reading has raised an alert: it goes on whole and first */
  take(reading: AdmittedReading, alarmed: boolean): void
  /** Fetches what the next reading will need, see `warmth`. */
  warm?(): void
  /** Time passes without a reading. */
  tick(now: Arrival): void
  /** Lets go of everything held. */
  release(): void
  /** Writes what must survive, as parts that `readHardState` knows. */
  save(writer: StateWriter): void
}
