import crc32c from 'crc-32/crc32c.js'
import {
  type BatchHeader,
  type Encoding,
  inflate,
  inspectBatch,
  WireFailure,
  type WireFailureCode,
} from '../../../shared/batch.ts'
import { chainFromBytes, chainToBytes } from '../../../shared/chain.ts'
import { laneNumber, lanes, type Stream, streams } from '../../../shared/reading.ts'
import { type Entry, maxInflatedBytes, noFeed, perStream, type StoredBatch } from '../engine.ts'

/** A frame as it stands in a segment, without its body. */
export interface Frame extends Omit<StoredBatch, 'partition' | 'body'> {
  /** Bytes of head and body. */
  headLength: number
  bodyLength: number
  bodyCrc: number
  /** Position in the segment where the group begins that was written in one go; all before is durable. */
  group: number
}

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

/** What a frame is made of. */
type Framed = Pick<Entry, 'feeds' | 'encoding' | 'body' | 'arrivedMs'> & {
  header: Pick<BatchHeader, 'agent' | 'incarnation' | 'lane' | 'first' | 'last'> &
    Pick<BatchHeader, 'before' | 'after'> & { predecessor: { incarnation: Uint8Array } | undefined }
}

const feedsAt = 148
const feedBytes = 21
const maxNameLength = 255
/** Longest body that a frame can have, bytes. */
const maxBodyLength = 64 * 1024 * 1024
const minHeadLength = feedsAt + 2
export const maxHeadLength = minHeadLength + streams.length * feedBytes + maxNameLength
/** By their numbers: only ever added to. */
const encodingNumbers: readonly Encoding[] = ['identity', 'gzip', 'zstd']

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
 *  36   8  arrived, ms                               float
 *  44  16  first and last sequence
 *  60  16  running hash before and behind them
 *  76  16  incarnation
 *  92  16  its predecessor, or zeros
 * 108  40  first offset per stream
 * 148   1  number of streams that it feeds, n
 *     21n  of each: its number (1), records (4), earliest and latest time, ms (floats)
 *       1  length of the agent's name
 *       …  agent's name, UTF-8
 * ```
 */
export function encodeHead(
  entry: Framed,
  place: { mark: Mark; group: number; next: Record<Stream, number> },
): Uint8Array {
  const { header, feeds, body } = entry
  const name = new TextEncoder().encode(header.agent)
  if (name.length > maxNameLength)
    throw new RangeError(`an agent's name has at most ${maxNameLength} bytes`)
  const fed = streams.filter((stream) => feeds[stream].count > 0)
  const nameAt = minHeadLength + fed.length * feedBytes
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
  setUint64(view, 44, header.first)
  setUint64(view, 52, header.last)
  head.set(chainToBytes(header.before), 60)
  head.set(chainToBytes(header.after), 68)
  head.set(header.incarnation, 76)
  if (header.predecessor) head.set(header.predecessor.incarnation, 92)
  for (const [i, stream] of streams.entries()) setUint64(view, 108 + i * 8, place.next[stream])
  view.setUint8(feedsAt, fed.length)
  for (const [i, stream] of fed.entries()) {
    const at = feedsAt + 1 + i * feedBytes
    const { count, fromMs, toMs } = feeds[stream]
    view.setUint8(at, streams.indexOf(stream))
    view.setUint32(at + 1, count)
    view.setFloat64(at + 5, fromMs)
    view.setFloat64(at + 13, toMs)
  }
  view.setUint8(nameAt - 1, name.length)
  head.set(name, nameAt)
  view.setInt32(20, headCrc(head))
  return head
}

/** The head of a frame that has come to stand elsewhere, and feeds only some of the streams any more. */
export function moveHead(
  frame: Frame,
  body: Uint8Array,
  place: { mark: Mark; group: number; kept: ReadonlySet<Stream> },
): Uint8Array {
  const { predecessor, feeds } = frame
  const header = {
    ...frame,
    predecessor: predecessor && { incarnation: predecessor },
  }
  const next = perStream((stream) => feeds[stream].first)
  const left = perStream((stream) => (place.kept.has(stream) ? feeds[stream] : noFeed))
  return encodeHead({ ...frame, header, feeds: left, body }, { ...place, next })
}

/**
 * Reads the head at `at`.
 *
 * @returns undefined unless a whole and valid one stands there, marked as `mark` says when one is given
 */
export function decodeHead(bytes: Uint8Array, at: number, mark?: Mark): Frame | undefined {
  if (bytes.length - at < minHeadLength || !isMarked(bytes, at, mark)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.length - at)
  const headLength = view.getUint32(8)
  if (headLength < minHeadLength || headLength > Math.min(maxHeadLength, view.byteLength))
    return undefined
  const head = bytes.subarray(at, at + headLength)
  const nameAt = minHeadLength + view.getUint8(feedsAt) * feedBytes
  const lane = lanes[view.getUint8(24)]
  const encoding = encodingNumbers[view.getUint8(25)]
  const bodyLength = view.getUint32(12)
  if (
    view.getInt32(20) !== headCrc(head) ||
    view.getUint8(27) !== streams.length ||
    nameAt > headLength ||
    view.getUint8(nameAt - 1) !== headLength - nameAt ||
    bodyLength > maxBodyLength ||
    !lane ||
    !encoding
  )
    return undefined
  return {
    headLength,
    bodyLength,
    bodyCrc: view.getInt32(16),
    group: getUint64(view, 28),
    agent: new TextDecoder().decode(head.subarray(nameAt)),
    incarnation: head.slice(76, 92),
    lane,
    first: getUint64(view, 44),
    last: getUint64(view, 52),
    before: chainFromBytes(head.subarray(60, 68)),
    after: chainFromBytes(head.subarray(68, 76)),
    predecessor: view.getUint8(26) === 1 ? head.slice(92, 108) : undefined,
    feeds: readFeeds(view),
    arrivedMs: view.getFloat64(36),
    encoding,
  }
}

function readFeeds(view: DataView): Frame['feeds'] {
  const feeds = perStream((stream) => ({
    ...noFeed,
    first: getUint64(view, 108 + streams.indexOf(stream) * 8),
  }))
  for (let i = 0; i < view.getUint8(feedsAt); i++) {
    const at = feedsAt + 1 + i * feedBytes
    const stream = streams[view.getUint8(at)]
    if (!stream) continue
    feeds[stream].count = view.getUint32(at + 1)
    feeds[stream].fromMs = view.getFloat64(at + 5)
    feeds[stream].toMs = view.getFloat64(at + 13)
  }
  return feeds
}

export function isBodyIntact(frame: Frame, body: Uint8Array): boolean {
  return body.length === frame.bodyLength && crc32c.buf(body, 0) === frame.bodyCrc
}

/**
 * Whether an intact body, which is one that could be inflated and outlined, is a batch: a crash may have come before it
 * was looked through. What fails here for want of memory, or is of another version, is not taken for none.
 */
export function isBatch({ encoding }: Frame, body: Uint8Array): boolean {
  try {
    inspectBatch(inflate(body, encoding, maxInflatedBytes))
    return true
  } catch (error) {
    return !(error instanceof WireFailure && refusals.has(error.code))
  }
}

const refusals = new Set<WireFailureCode>(['WIRE_MALFORMED', 'WIRE_INVALID', 'WIRE_TOO_LARGE'])

function isMarked(bytes: Uint8Array, at: number, mark: Mark | undefined): boolean {
  const wanted = mark ?? anyMark
  for (let i = 0; i < wanted.length; i++) if (bytes[at + i] !== wanted[i]) return false
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
