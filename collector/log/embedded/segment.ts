import crc32c from 'crc-32/crc32c.js'
import type { DiskFile } from '../../../shared/ports.ts'
import { type Stream, streams } from '../../../shared/reading.ts'
import { LogFailure, perStream } from '../engine.ts'
import {
  anyMark,
  decodeHead,
  type Frame,
  getUint64,
  isBodyIntact,
  type Mark,
  maxHeadLength,
  setUint64,
} from './frame.ts'

/** What stands at the head of a segment, before its frames. */
export interface SegmentHeader {
  number: number
  createdMs: number
  mark: Mark
  /** Where the segment before it ends: what lies behind was never acknowledged. 0 for the first. */
  previousLength: number
  /** First offset of each stream. */
  first: Record<Stream, number>
  /** Retention has taken some of its frames: offsets that are missing are not lost. */
  isSifted: boolean
}

export const segmentHeaderLength = 88
const magic = new TextEncoder().encode('HGSEGMNT')
/** Of a segment as it was written, and of one that retention has taken frames from. */
const versions = { whole: 1, sifted: 2 }

/**
 * All numbers are big-endian.
 *
 * ```
 *  0   8  "HGSEGMNT"
 *  8   4  version: 1, or 2 when it is sifted
 * 12   4  CRC-32C of all other bytes
 * 16   8  number
 * 24   8  created, ms      float
 * 32   8  mark of its frames
 * 40   8  length of the segment before
 * 48  40  first offset per stream
 * ```
 */
export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const bytes = new Uint8Array(segmentHeaderLength)
  const view = new DataView(bytes.buffer)
  bytes.set(magic)
  view.setUint32(8, header.isSifted ? versions.sifted : versions.whole)
  setUint64(view, 16, header.number)
  view.setFloat64(24, header.createdMs)
  bytes.set(header.mark, 32)
  setUint64(view, 40, header.previousLength)
  streams.forEach((stream, index) => {
    setUint64(view, 48 + index * 8, header.first[stream])
  })
  view.setInt32(12, headerCrc(bytes))
  return bytes
}

/**
 * @returns undefined when it is damaged
 * @throws LogFailure LOG_NEWER when it is whole but of a later version
 */
export function decodeSegmentHeader(bytes: Uint8Array): SegmentHeader | undefined {
  if (bytes.length < segmentHeaderLength || magic.some((byte, i) => bytes[i] !== byte))
    return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, segmentHeaderLength)
  if (view.getInt32(12) !== headerCrc(bytes.subarray(0, segmentHeaderLength))) return undefined
  const found = view.getUint32(8)
  if (found > versions.sifted)
    throw new LogFailure('LOG_NEWER', `format ${found}, this program knows ${versions.sifted}`)
  return {
    number: getUint64(view, 16),
    createdMs: view.getFloat64(24),
    mark: bytes.slice(32, 40),
    previousLength: getUint64(view, 40),
    first: perStream((stream) => getUint64(view, 48 + streams.indexOf(stream) * 8)),
    isSifted: found === versions.sifted,
  }
}

function headerCrc(bytes: Uint8Array): number {
  return crc32c.buf(bytes.subarray(16), crc32c.buf(bytes.subarray(0, 12), 0))
}

export function segmentName(number: number): string {
  return `${String(number).padStart(12, '0')}.segment`
}

/** @returns undefined for a name that is no segment's */
export function segmentNumber(name: string): number | undefined {
  const match = /^(\d{12})\.segment$/.exec(name)
  return match ? Number(match[1]) : undefined
}

/** A whole frame, or a stretch in which none could be read. */
export type Scanned =
  | { kind: 'frame'; position: number; end: number; frame: Frame; body: Uint8Array | undefined }
  | { kind: 'bad'; position: number; end: number }

export interface ScanOptions {
  from: number
  /** Nothing at or behind it is looked at. */
  to: number
  /** Undefined accepts any segment's frames, as where the segment's header is damaged. */
  mark: Mark | undefined
  /** Whether to read and check a frame's body; without, a frame counts as whole when its head is. */
  bodies: (frame: Frame) => boolean
  /** Ends where no frame can be read, without looking for another behind it. */
  untilBad?: boolean
}

/** Walks the frames of a segment; behind damage it goes on at the next frame that is whole. */
export async function* scanFrames(file: DiskFile, options: ScanOptions): AsyncGenerator<Scanned> {
  const { to, mark, bodies, untilBad } = options
  const window = new Window(file, to)
  let position = options.from
  let badFrom = -1
  while (position < to) {
    const head = await window.read(position, Math.min(maxHeadLength, to - position))
    const frame = decodeHead(head, 0, mark)
    const end = frame ? position + frame.headLength + frame.bodyLength : 0
    if (!frame || end > to) {
      if (untilBad) return
      if (badFrom < 0) badFrom = position
      position = await window.findFrame(position + 1, mark)
      continue
    }
    const body = bodies(frame)
      ? await window.read(position + frame.headLength, frame.bodyLength)
      : undefined
    if (body && !isBodyIntact(frame, body)) {
      if (untilBad) return
      if (badFrom < 0) badFrom = position
      position = end
      continue
    }
    if (badFrom >= 0) yield { kind: 'bad', position: badFrom, end: position }
    badFrom = -1
    yield { kind: 'frame', position, end, frame, body }
    position = end
  }
  if (badFrom >= 0) yield { kind: 'bad', position: badFrom, end: to }
}

const windowBytes = 256 * 1024

/** Reads a file front to back in large pieces. */
class Window {
  readonly #file: DiskFile
  readonly #to: number
  #start = 0
  #bytes: Uint8Array = new Uint8Array(0)

  constructor(file: DiskFile, to: number) {
    this.#file = file
    this.#to = to
  }

  /** What the window gives stays as it is: the window moves on to new memory. */
  async read(position: number, length: number): Promise<Uint8Array> {
    const at = position - this.#start
    if (at < 0 || at + length > this.#bytes.length) {
      const wanted = Math.max(length, Math.min(windowBytes, this.#to - position))
      this.#bytes = await this.#file.read(position, wanted)
      this.#start = position
      return this.#bytes.subarray(0, length)
    }
    return this.#bytes.subarray(at, at + length)
  }

  /** Position of the next whole head from `position` on, or the end. */
  async findFrame(position: number, mark: Mark | undefined): Promise<number> {
    const wanted = mark ?? anyMark
    // Pieces overlap, because a mark may lie across their seam.
    for (let from = position; from < this.#to; from += windowBytes - wanted.length + 1) {
      const piece = Buffer.from(await this.read(from, Math.min(windowBytes, this.#to - from)))
      for (let at = piece.indexOf(wanted); at >= 0; at = piece.indexOf(wanted, at + 1)) {
        const head = await this.#file.read(from + at, Math.min(maxHeadLength, this.#to - from - at))
        if (decodeHead(head, 0, mark)) return from + at
      }
    }
    return this.#to
  }
}
