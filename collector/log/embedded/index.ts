import crc32c from 'crc-32/crc32c.js'
import { type Stream, streams } from '../../../shared/reading.ts'
import { type Feed, perStream } from '../engine.ts'
import { type Frame, getUint64, setUint64 } from './frame.ts'

/** A stretch of a segment, long enough to be worth skipping. */
export interface Block {
  position: number
  /** Per stream the offset that begins here, and earliest and latest time inside, ms. */
  streams: Record<Stream, BlockRange>
}

type BlockRange = Pick<StreamSummary, 'first' | 'fromMs' | 'toMs'>

/** What a segment holds of one stream. */
export interface StreamSummary {
  first: number
  next: number
  records: number
  batches: number
  bytes: number
  /** Infinity and −Infinity where there is nothing. */
  fromMs: number
  toMs: number
}

/** What a segment holds. */
export interface SegmentSummary {
  streams: Record<Stream, StreamSummary>
  /** Position behind the last frame. */
  end: number
  frames: number
  lastArrivedMs: number
  /** SHA-256 of all up to `end`, taken once the segment is sealed. */
  sha256: Uint8Array | undefined
}

/**
 * Sparse index and counts of a segment. It grows with the active segment and is kept beside a sealed one;
 * lost, it is rebuilt from the frames' heads.
 */
export class SegmentIndex {
  readonly summary: SegmentSummary
  readonly blocks: Block[]

  constructor(summary: SegmentSummary, blocks: Block[] = []) {
    this.summary = summary
    this.blocks = blocks
  }

  /** Of a segment whose frames will begin at `position`. */
  static empty(first: Record<Stream, number>, position: number): SegmentIndex {
    return new SegmentIndex({
      streams: perStream((stream) => emptySummary(first[stream])),
      end: position,
      frames: 0,
      lastArrivedMs: Number.NEGATIVE_INFINITY,
      sha256: undefined,
    })
  }

  add(position: number, frame: Frame): void {
    const { summary, blocks } = this
    let block = blocks.at(-1)
    if (!block || position - block.position >= blockBytes) {
      block = { position, streams: perStream((stream) => beginRange(frame.feeds[stream].first)) }
      blocks.push(block)
    }
    let bytes = frame.bodyLength
    for (const stream of streams) {
      const feed = frame.feeds[stream]
      const held = summary.streams[stream]
      // Offsets that damage has hidden are used up all the same.
      held.next = Math.max(held.next, feed.first + feed.count)
      if (feed.count === 0) continue
      held.records += feed.count
      held.batches += 1
      held.bytes += bytes
      bytes = 0
      widen(held, feed)
      widen(block.streams[stream], feed)
    }
    summary.frames += 1
    summary.lastArrivedMs = Math.max(summary.lastArrivedMs, frame.arrivedMs)
    summary.end = position + frame.headLength + frame.bodyLength
  }
}

function beginRange(first: number): BlockRange {
  return { first, fromMs: Number.POSITIVE_INFINITY, toMs: Number.NEGATIVE_INFINITY }
}

function widen(range: { fromMs: number; toMs: number }, { fromMs, toMs }: Feed): void {
  range.fromMs = Math.min(range.fromMs, fromMs)
  range.toMs = Math.max(range.toMs, toMs)
}

const blockBytes = 64 * 1024

function emptySummary(first: number): StreamSummary {
  return { ...beginRange(first), next: first, records: 0, batches: 0, bytes: 0 }
}

export function indexName(number: number): string {
  return `${String(number).padStart(12, '0')}.index`
}

const magic = new TextEncoder().encode('HGINDEX\x02')
const hashAt = 8 + 4 + 4 + 8 + 8 + 8 + streams.length * 56
const headBytes = hashAt + 32
const rowBytes = 8 + streams.length * 24

/**
 * The file beside a sealed segment. All numbers are big-endian.
 *
 * ```
 *  0    8  "HGINDEX" 2
 *  8    4  number of blocks
 * 12    4  CRC-32C of all other bytes
 * 16    8  position behind the last frame
 * 24    8  number of frames
 * 32    8  latest arrival, ms                                   float
 * 40  280  per stream: first, next, records, batches, bytes, then earliest and latest time (floats)
 * 320   32  SHA-256 of the segment up to that position; zeros while it is not known
 *     128  per block: position, then per stream first offset, earliest and latest time (floats)
 * ```
 */
export function encodeIndex({ summary, blocks }: SegmentIndex): Uint8Array {
  const bytes = new Uint8Array(headBytes + blocks.length * rowBytes)
  const view = new DataView(bytes.buffer)
  bytes.set(magic)
  view.setUint32(8, blocks.length)
  setUint64(view, 16, summary.end)
  setUint64(view, 24, summary.frames)
  view.setFloat64(32, summary.lastArrivedMs)
  streams.forEach((stream, i) => {
    const held = summary.streams[stream]
    const at = 40 + i * 56
    for (const [j, name] of countNames.entries()) setUint64(view, at + j * 8, held[name])
    view.setFloat64(at + 40, held.fromMs)
    view.setFloat64(at + 48, held.toMs)
  })
  if (summary.sha256) bytes.set(summary.sha256, hashAt)
  blocks.forEach((block, i) => {
    const at = headBytes + i * rowBytes
    setUint64(view, at, block.position)
    for (const [j, stream] of streams.entries()) {
      const { first, fromMs, toMs } = block.streams[stream]
      setUint64(view, at + 8 + j * 24, first)
      view.setFloat64(at + 16 + j * 24, fromMs)
      view.setFloat64(at + 24 + j * 24, toMs)
    }
  })
  view.setInt32(12, indexCrc(bytes))
  return bytes
}

const countNames = ['first', 'next', 'records', 'batches', 'bytes'] as const

/** @returns undefined when it is damaged or of another version: it is rebuilt then */
export function decodeIndex(bytes: Uint8Array): SegmentIndex | undefined {
  if (bytes.length < headBytes || magic.some((byte, i) => bytes[i] !== byte)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const count = view.getUint32(8)
  if (bytes.length !== headBytes + count * rowBytes || view.getInt32(12) !== indexCrc(bytes))
    return undefined
  return new SegmentIndex(
    {
      end: getUint64(view, 16),
      frames: getUint64(view, 24),
      lastArrivedMs: view.getFloat64(32),
      sha256: known(bytes.slice(hashAt, headBytes)),
      streams: perStream((stream) => {
        const at = 40 + streams.indexOf(stream) * 56
        const [first, next, records, batches, size] = countNames.map((_, j) =>
          getUint64(view, at + j * 8),
        ) as [number, number, number, number, number]
        const [fromMs, toMs] = [view.getFloat64(at + 40), view.getFloat64(at + 48)]
        return { first, next, records, batches, bytes: size, fromMs, toMs }
      }),
    },
    Array.from({ length: count }, (_, i) => {
      const at = headBytes + i * rowBytes
      return {
        position: getUint64(view, at),
        streams: perStream((stream) => {
          const j = at + 8 + streams.indexOf(stream) * 24
          const [fromMs, toMs] = [view.getFloat64(j + 8), view.getFloat64(j + 16)]
          return { first: getUint64(view, j), fromMs, toMs }
        }),
      }
    }),
  )
}

function known(hash: Uint8Array): Uint8Array | undefined {
  return hash.some((byte) => byte !== 0) ? hash : undefined
}

function indexCrc(bytes: Uint8Array): number {
  return crc32c.buf(bytes.subarray(16), crc32c.buf(bytes.subarray(0, 12), 0))
}
