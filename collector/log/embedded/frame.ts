import crc32c from 'crc-32/crc32c.js'
import type { Encoding } from '../../../shared/batch.ts'
import { chainFromBytes, chainToBytes } from '../../../shared/chain.ts'
import { laneNumber, lanes, type Stream, streams } from '../../../shared/reading.ts'
import { type Entry, perStream, type StoredBatch } from '../engine.ts'

/** A frame as it stands in a segment, without its body. */
export interface Frame extends Omit<StoredBatch, 'partition' | 'body'> {
  /** Bytes of head and body. */
  headLength: number
  bodyLength: number
  bodyCrc: number
  /** Position in the segment where the group begins that was written in one go; all before is durable. */
  group: number
}

/** Longest head: an agent's name has at most 255 bytes. */
export const maxHeadLength = 185 + 255
/** Longest body that a frame can have, bytes. */
export const maxBodyLength = 64 * 1024 * 1024

/** Marks the frames of one segment: 4 bytes that are known, 4 that nobody outside can guess. */
export type Mark = Uint8Array
/** What the marks of all segments begin with: "HGF", version 1. */
export const anyMark = new Uint8Array([0x48, 0x47, 0x46, 0x01])

/** @param secret 4 random bytes, so that no payload can pass for a frame when a damaged one is skipped */
export function makeMark(secret: Uint8Array): Mark {
  const mark = new Uint8Array(8)
  mark.set(anyMark)
  mark.set(secret.subarray(0, 4), 4)
  return mark
}

/**
 * Head of a frame; the body follows it. All numbers are big-endian.
 *
 * ```
 *   0   8  mark of the segment
 *   8   4  length of the head, all of it
 *  12   4  length of the body
 *  16   4  CRC-32C of the body
 *  20   4  CRC-32C of the head, without these four bytes
 *  24   1  lane's number
 *  25   1  encoding: 0 identity, 1 gzip, 2 zstd
 *  26   1  1 when a predecessor is named
 *  27   1  number of streams, 5
 *  28   8  position of its group in the segment
 *  36   8  arrived, ms                         float
 *  44  16  earliest and latest time inside, ms float
 *  60  16  first and last sequence
 *  76  16  running hash before and behind them
 *  92  16  incarnation
 * 108  16  its predecessor, or zeros
 * 124  60  per stream: first offset (8), number of records (4)
 * 184   1  length of the agent's name
 * 185   …  agent's name, UTF-8
 * ```
 */
export function encodeHead(
  entry: Entry,
  place: { mark: Mark; group: number; next: Record<Stream, number> },
): Uint8Array {
  const { header, counts, body } = entry
  const name = new TextEncoder().encode(header.agent)
  if (name.length > 255) throw new RangeError(`an agent's name has at most 255 bytes`)
  const head = new Uint8Array(nameAt + name.length)
  const view = new DataView(head.buffer)
  head.set(place.mark)
  view.setUint32(8, head.length)
  view.setUint32(12, body.length)
  view.setInt32(16, crc32c.buf(body, 0))
  view.setUint8(24, laneNumber[header.lane])
  view.setUint8(25, encodingNumbers.indexOf(entry.encoding))
  view.setUint8(26, header.predecessor ? 1 : 0)
  view.setUint8(27, streams.length)
  setUint64(view, 28, place.group)
  view.setFloat64(36, entry.arrivedMs)
  view.setFloat64(44, entry.fromMs)
  view.setFloat64(52, entry.toMs)
  setUint64(view, 60, header.first)
  setUint64(view, 68, header.last)
  head.set(chainToBytes(header.before), 76)
  head.set(chainToBytes(header.after), 84)
  head.set(header.incarnation, 92)
  if (header.predecessor) head.set(header.predecessor.incarnation, 108)
  streams.forEach((stream, index) => {
    setUint64(view, 124 + index * 12, place.next[stream])
    view.setUint32(132 + index * 12, counts[stream])
  })
  view.setUint8(nameAt - 1, name.length)
  head.set(name, nameAt)
  view.setInt32(20, headCrc(head))
  return head
}

const nameAt = 185
/** By their numbers: only ever added to. */
const encodingNumbers: readonly Encoding[] = ['identity', 'gzip', 'zstd']

/**
 * Reads the head at `at`.
 *
 * @returns undefined unless a whole and valid one stands there, marked as `mark` says when one is given
 */
export function decodeHead(bytes: Uint8Array, at: number, mark?: Mark): Frame | undefined {
  if (bytes.length - at < nameAt) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at)
  const headLength = view.getUint32(8)
  if (!isMarked(bytes, at, mark) || headLength < nameAt || headLength > view.byteLength)
    return undefined
  const head = bytes.subarray(at, at + headLength)
  const lane = lanes[view.getUint8(24)]
  const encoding = encodingNumbers[view.getUint8(25)]
  const bodyLength = view.getUint32(12)
  if (
    view.getUint8(nameAt - 1) !== headLength - nameAt ||
    view.getUint8(27) !== streams.length ||
    bodyLength > maxBodyLength ||
    !lane ||
    !encoding ||
    view.getInt32(20) !== headCrc(head)
  )
    return undefined
  return {
    headLength,
    bodyLength,
    bodyCrc: view.getInt32(16),
    group: getUint64(view, 28),
    agent: new TextDecoder().decode(head.subarray(nameAt)),
    incarnation: head.slice(92, 108),
    lane,
    first: getUint64(view, 60),
    last: getUint64(view, 68),
    before: chainFromBytes(head.subarray(76, 84)),
    after: chainFromBytes(head.subarray(84, 92)),
    predecessor: view.getUint8(26) === 1 ? head.slice(108, 124) : undefined,
    offsets: perStream((stream) => {
      const index = 124 + streams.indexOf(stream) * 12
      return { first: getUint64(view, index), count: view.getUint32(index + 8) }
    }),
    arrivedMs: view.getFloat64(36),
    fromMs: view.getFloat64(44),
    toMs: view.getFloat64(52),
    encoding,
  }
}

export function isBodyIntact(frame: Frame, body: Uint8Array): boolean {
  return body.length === frame.bodyLength && crc32c.buf(body, 0) === frame.bodyCrc
}

function isMarked(bytes: Uint8Array, at: number, mark: Mark | undefined): boolean {
  for (let i = 0; i < anyMark.length; i++) if (bytes[at + i] !== anyMark[i]) return false
  for (let i = 4; mark && i < 8; i++) if (bytes[at + i] !== mark[i]) return false
  return true
}

function headCrc(head: Uint8Array): number {
  return crc32c.buf(head.subarray(24), crc32c.buf(head.subarray(0, 20), 0))
}

/** @param value integer from 0 to 2^53 − 1 */
export function setUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32))
  view.setUint32(at + 4, value >>> 0)
}

export function getUint64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
}
