/**
 * Small texts under names, which an engine keeps beside the batches: what sinks and groups of readers
 * remember. All collectors of a log have the same ones. Each write names the revision that it was made from,
 * so of two that were made from one only one is taken.
 */
export interface Notes {
  /** Other collectors may write them, at any time. */
  readonly isShared: boolean

  /**
   * A note as it is; one that is not there has no text. A server that is cut off may tell of the past, of
   * which `write` then takes nothing.
   *
   * @throws LogFailure LOG_DISK
   */
  read(name: string): Promise<Note>

  /**
   * Puts a text in the place of the one that was read.
   *
   * @param name parts of letters, digits and whatever else, with `/` between
   * @param text not empty; undefined removes the note
   * @param expected revision that `read` or the last write gave
   * @returns the new revision, once it is durable; `moved` when there is another than the expected
   * @throws LogFailure LOG_DISK when it may or may not have been taken; it may come to be so late
   */
  write(name: string, text: string | undefined, expected: number): Promise<number | typeof moved>

  /** Names of the notes that are there and begin so. @throws LogFailure LOG_DISK */
  list(prefix: string): Promise<string[]>

  /** Puts one that makes no sense where nobody reads it. Only of notes on a disk, which may damage them. */
  setAside?(name: string): Promise<void>
}

export interface Note {
  text: string | undefined
  /** Grows with each write; 0 where there was none yet. */
  revision: number
}

/** Where there was another revision than was expected. */
export const moved = Symbol('moved')
