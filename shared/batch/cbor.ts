/**
 * The part of CBOR (RFC 8949) that batches use: integers to 64 bits signed or unsigned, byte and text
 * strings, arrays, maps with text or small integer keys, false, true, null, floats. No tags, no
 * indefinite lengths, no other simple values. Written in the deterministic encoding of section 4.2.1;
 * read in any length form.
 */
export const major = {
  uint: 0,
  nint: 1,
  bytes: 2,
  text: 3,
  array: 4,
  map: 5,
  tag: 6,
  simple: 7,
} as const

export type CborValue =
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | CborValue[]
  | { [key: string]: CborValue }

export interface CborLimits {
  /** Arrays and maps within each other. */
  maxDepth: number
  /**
   * Items in all, containers and keys included; a text key counts five times, as it costs the time to look
   * for another one like it. Bounds the time that a body takes: docs/WIRE.md.
   */
  maxItems: number
  /** Bytes of one text. */
  maxTextBytes: number
}
/** What a text key counts for beyond itself. */
export const keyWeight = 4

export const cborLimits: CborLimits = { maxDepth: 16, maxItems: 250_000, maxTextBytes: 65_536 }
