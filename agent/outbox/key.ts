import { type Lane, laneNumber, lanes } from '../../shared/reading.ts'
import type { StateSpace } from '../state.ts'

/*
 * Keys, in the order in which the store keeps them (numbers big-endian):
 *
 *   'e' lane:u8 ordinal:u32 first:u64    an entry: consecutive sequences of one lane and incarnation
 *   'i' ordinal:u32                      an incarnation; ordinals count up, the 128-bit name is in the value
 *   'l'                                  totals: the ledger and what else is counted
 *   'm'                                  format version and the agent's name
 *   'p' ordinal:u32 lane:u8              up to where a lane of an incarnation is delivered
 *   's' space:u8 key:utf-8               a stage's own state
 *   't'                                  what is in the tail
 *   't' number:u64                       a piece of the tail: raw readings, in the order in which they came
 *
 * All entries of a lane stand in a row, older incarnations first: the order of delivery.
 */

const entryTag = 0x65
const incarnationTag = 0x69
const positionTag = 0x70
const stateTag = 0x73
const tailTag = 0x74
export const totalsKey = Uint8Array.of(0x6c)
export const metaKey = Uint8Array.of(0x6d)

const spaceNumber: Record<StateSpace, number> = { source: 1, decode: 2, filter: 3 }

export function entryKey(lane: Lane, ordinal: number, first: number): Uint8Array {
  const key = new Uint8Array(14)
  const view = new DataView(key.buffer)
  key[0] = entryTag
  key[1] = laneNumber[lane]
  view.setUint32(2, ordinal)
  view.setUint32(6, Math.floor(first / 2 ** 32))
  view.setUint32(10, first % 2 ** 32)
  return key
}

export interface EntryPlace {
  lane: Lane
  ordinal: number
  first: number
}

/** Undefined when the key is none of ours. */
export function parseEntryKey(key: Uint8Array): EntryPlace | undefined {
  const lane = lanes[key[1] ?? 255]
  if (key.length !== 14 || key[0] !== entryTag || !lane) return undefined
  const view = new DataView(key.buffer, key.byteOffset, key.length)
  const first = view.getUint32(6) * 2 ** 32 + view.getUint32(10)
  return Number.isSafeInteger(first) ? { lane, ordinal: view.getUint32(2), first } : undefined
}

/** All keys that there can be, ours and others'. */
export const wholeRange: KeyRange = { gte: Uint8Array.of(0), lt: new Uint8Array(16).fill(255) }

export function isOurs(key: Uint8Array): boolean {
  if (key.length === 1) return [totalsKey[0], metaKey[0], tailTag].includes(key[0])
  return (
    parseEntryKey(key) !== undefined ||
    parseIncarnationKey(key) !== undefined ||
    parsePositionKey(key) !== undefined ||
    parseTailKey(key) !== undefined ||
    (key[0] === stateTag && key[1]! >= 1 && key[1]! <= 3)
  )
}

/** Every entry of a lane from a place on; of all lanes when none is given. */
export function entryRange(lane?: Lane, from?: { ordinal: number; first: number }): KeyRange {
  if (!lane) return { gte: Uint8Array.of(entryTag), lt: Uint8Array.of(entryTag + 1) }
  return {
    gte: from
      ? entryKey(lane, from.ordinal, from.first)
      : Uint8Array.of(entryTag, laneNumber[lane]),
    lt: Uint8Array.of(entryTag, laneNumber[lane] + 1),
  }
}

export interface KeyRange {
  gte: Uint8Array
  lt: Uint8Array
}

export function incarnationKey(ordinal: number): Uint8Array {
  const key = new Uint8Array(5)
  key[0] = incarnationTag
  new DataView(key.buffer).setUint32(1, ordinal)
  return key
}

export const incarnationRange: KeyRange = {
  gte: Uint8Array.of(incarnationTag),
  lt: Uint8Array.of(incarnationTag + 1),
}

export function parseIncarnationKey(key: Uint8Array): number | undefined {
  if (key.length !== 5 || key[0] !== incarnationTag) return undefined
  return new DataView(key.buffer, key.byteOffset, 5).getUint32(1)
}

export function positionKey(ordinal: number, lane: Lane): Uint8Array {
  const key = new Uint8Array(6)
  key[0] = positionTag
  new DataView(key.buffer).setUint32(1, ordinal)
  key[5] = laneNumber[lane]
  return key
}

export const positionRange: KeyRange = {
  gte: Uint8Array.of(positionTag),
  lt: Uint8Array.of(positionTag + 1),
}

export function parsePositionKey(key: Uint8Array): { ordinal: number; lane: Lane } | undefined {
  const lane = lanes[key[5] ?? 255]
  if (key.length !== 6 || key[0] !== positionTag || !lane) return undefined
  return { ordinal: new DataView(key.buffer, key.byteOffset, 6).getUint32(1), lane }
}

/** @throws RangeError when the key is longer than 512 bytes */
export function stateKey(space: StateSpace, key: string): Uint8Array {
  const text = new TextEncoder().encode(key)
  if (text.length > 512) throw new RangeError(`state key of ${text.length} bytes, at most 512`)
  const bytes = new Uint8Array(2 + text.length)
  bytes[0] = stateTag
  bytes[1] = spaceNumber[space]
  bytes.set(text, 2)
  return bytes
}

export function stateRange(space: StateSpace): KeyRange {
  return {
    gte: Uint8Array.of(stateTag, spaceNumber[space]),
    lt: Uint8Array.of(stateTag, spaceNumber[space] + 1),
  }
}

export function parseStateKey(key: Uint8Array): string {
  return new TextDecoder().decode(key.subarray(2))
}

export const tailStateKey = Uint8Array.of(tailTag)

export function tailKey(number: number): Uint8Array {
  const key = new Uint8Array(9)
  key[0] = tailTag
  new DataView(key.buffer).setBigUint64(1, BigInt(number))
  return key
}

/** Pieces of the tail from a number on. */
export function tailRange(from = 0): KeyRange {
  return { gte: tailKey(from), lt: Uint8Array.of(tailTag + 1) }
}

export function parseTailKey(key: Uint8Array): number | undefined {
  if (key.length !== 9 || key[0] !== tailTag) return undefined
  const number = Number(new DataView(key.buffer, key.byteOffset, 9).getBigUint64(1))
  return Number.isSafeInteger(number) ? number : undefined
}
