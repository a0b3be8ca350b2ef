/**
 * What a stage keeps in the outbox's store beside the readings, so that it commits in the same atomic
 * write: redelivery marks, a decoder's state, a filter's hard state. Each stage has a space of its own.
 */
export type StateSpace = 'source' | 'decode' | 'filter'

/** `value` undefined deletes. Keys are at most 512 bytes of UTF-8. */
export interface StateChange {
  space: StateSpace
  key: string
  value: Uint8Array | undefined
}

/** Reads back what was committed, in key order. */
export interface StateReader {
  read(space: StateSpace): AsyncIterable<{ key: string; value: Uint8Array }>
}
