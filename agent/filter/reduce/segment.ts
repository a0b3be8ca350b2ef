import type { AdmittedReading } from '../../../shared/reading.ts'
import type { StateWriter } from '../state-bytes.ts'

/** Where decisions about readings go, in the order in which they fall. */
export interface Decisions {
  /** The reading goes on. `held` when this is decided only behind its own turn. */
  keep(reading: AdmittedReading, held: boolean): void
  /**
   * What a consumer reconstructs stands in for the reading.
   *
   * @param reading undefined where nobody has asked to see it
   * @param node that the reading could be added to what was kept without spoiling what lies before it:
   *   everything between the last kept reading and this one is as well reconstructed from these two
   */
  drop(reading: AdmittedReading | undefined, node: boolean): void
}

/** Keeps so few readings of one series that the others can be reconstructed from them within a bound. */
export interface Segmenter {
  /** Readings that wait for a decision. */
  readonly held: number
  /** When the one arrived that waits longest, monotonic ms. */
  readonly oldestMs: number | undefined
  /** The same by the wall clock. */
  readonly oldestWallMs: number | undefined
  /** A reading that is kept without our doing: the next segment begins with it. */
  begin(reading: AdmittedReading): void
  /** Takes the next reading; `whole` keeps it, whatever it is. */
  take(reading: AdmittedReading, whole: boolean, out: Decisions): void
  /** Fetches what the next reading will need, see `warmth`. */
  warm?(): void
  /** Keeps the oldest held reading; those behind it are considered anew from there. */
  advance(out: Decisions): void
  /** Decides everything held, the newest is kept; the next reading is kept too, since it is the first again. */
  release(out: Decisions): void
  /** Keeps everything held; the next segment begins with the newest. */
  spill(out: Decisions): void
  /** Writes the held readings, oldest first. */
  saveHeld(writer: StateWriter): void
}
