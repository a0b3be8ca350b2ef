import { createHash } from 'node:crypto'

/** Where objects go that are written once: a folder, or a bucket. Paths are `/`-separated. */
export interface TierStore {
  /** Writes an object whole or not at all; it is durable then. */
  put(path: string, object: TierObject): Promise<void>
  /** All of a small object; undefined when there is none. */
  get(path: string): Promise<Uint8Array | undefined>
  /** Up to `length` bytes from `offset`; undefined when there is no such object. */
  range(path: string, offset: number, length: number): Promise<Uint8Array | undefined>
  /** Does nothing where there is none. */
  remove(path: string): Promise<void>
}

export interface TierObject {
  length: number
  sha256: Uint8Array
  /** Exactly `length` bytes from `offset`. */
  read(offset: number, length: number): Promise<Uint8Array>
}

/** An object that is in memory. */
export function wholeObject(bytes: Uint8Array): TierObject {
  return {
    length: bytes.length,
    sha256: new Uint8Array(createHash('sha256').update(bytes).digest()),
    read: async (offset, length) => bytes.subarray(offset, offset + length),
  }
}

const pieceBytes = 1024 * 1024

/** An object's bytes in pieces. */
export async function* piecesOf({ length, read }: TierObject): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < length; at += pieceBytes)
    yield await read(at, Math.min(pieceBytes, length - at))
}
