import { CborWriter } from './cbor-writer.ts'
import type { Encoding } from './compression.ts'
import { encodings } from './compression.ts'
import { invalid, WireFailure } from './failure.ts'

/**
 * How a log is read as a CBOR sequence (RFC 8742): batches as they came, between marks of where the reader is.
 *
 * ```
 * [ 0, partition, offset, count, arrived, encoding, body ]  a batch; the stream's records in it have `count`
 *                                                           offsets from `offset` on
 * [ 1, partition, first, last ]                             offsets that the log's disk has lost
 * [ 2, [ * next ] ]                                         by partition, the offset that would come next
 * ```
 *
 * `arrived` is the collector's wall time, ms; `encoding` 0 zstd, 1 gzip, 2 none; `body` a byte string.
 */
export type Passage =
  | {
      type: 'batch'
      partition: number
      offset: number
      count: number
      arrivedMs: number
      encoding: Encoding
      body: Uint8Array
    }
  | { type: 'damage'; partition: number; first: number; last: number }
  | { type: 'position'; next: number[] }

/** A body as any collector may have taken it. */
const maxBodyBytes = 32 * 2 ** 20
const maxPartitions = 256
const headBytes = 9

/** @returns chunks to be written one behind the other; a body is not copied */
export function encodePassage(passage: Passage): Uint8Array[] {
  const writer = new CborWriter()
  switch (passage.type) {
    case 'batch': {
      const { partition, offset, count, arrivedMs, encoding, body } = passage
      writer.array(7)
      for (const value of [0, partition, offset, count, arrivedMs, encodings.indexOf(encoding)])
        writer.int(value)
      writer.bytesHead(body.length)
      return [writer.take(), body]
    }
    case 'damage':
      writer.array(4)
      for (const value of [1, passage.partition, passage.first, passage.last]) writer.int(value)
      return [writer.take()]
    case 'position':
      writer.array(2)
      writer.int(2)
      writer.array(passage.next.length)
      for (const next of passage.next) writer.int(next)
      return [writer.take()]
  }
}

/** Takes such a sequence apart, in whatever chunks it comes. */
export class PassageReader {
  #bytes: Uint8Array = new Uint8Array(0)
  #at = 0
  /** What came since; joined once there is enough for the item that was begun. */
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #needed = 0

  /** Bytes that are not a whole item yet. */
  get restBytes(): number {
    return this.#left + this.#waitingBytes
  }

  get #left(): number {
    return this.#bytes.length - this.#at
  }

  /** @throws WireFailure for what is no such sequence */
  *take(chunk: Uint8Array): Generator<Passage> {
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    if (this.restBytes < this.#needed) return
    const left = this.#bytes.subarray(this.#at)
    this.#bytes =
      left.length === 0 && this.#waiting.length === 1
        ? chunk
        : Buffer.concat([left, ...this.#waiting])
    this.#at = 0
    this.#waiting = []
    this.#waitingBytes = 0
    this.#needed = 0
    while (this.#left > 0) {
      const start = this.#at
      try {
        yield this.#item()
      } catch (error) {
        if (error !== more) throw error
        this.#at = start
        return
      }
    }
  }

  #item(): Passage {
    const start = this.#at
    const length = this.#head(4, 7)
    const kind = this.#int()
    if (kind === 0 && length === 7) {
      const partition = this.#int()
      const offset = this.#int()
      const count = this.#int()
      const arrivedMs = this.#signed()
      const encoding = encodings[this.#int()]
      if (!encoding) throw invalid('an encoding that is not known')
      const size = this.#head(2, maxBodyBytes)
      if (this.#left < size) {
        this.#needed = this.#at - start + size
        throw more
      }
      this.#at += size
      const body = this.#bytes.subarray(this.#at - size, this.#at)
      return { type: 'batch', partition, offset, count, arrivedMs, encoding, body }
    }
    if (kind === 1 && length === 4)
      return { type: 'damage', partition: this.#int(), first: this.#int(), last: this.#int() }
    if (kind !== 2 || length !== 2) throw invalid('an item of another kind')
    const next = Array.from({ length: this.#head(4, maxPartitions) }, () => this.#int())
    return { type: 'position', next }
  }

  #int(): number {
    return this.#head(0, Number.MAX_SAFE_INTEGER)
  }

  /** The collector's clock may show a time before 1970. */
  #signed(): number {
    const isNegative = this.#left > 0 && this.#bytes[this.#at]! >> 5 === 1
    return isNegative ? -1 - this.#head(1, Number.MAX_SAFE_INTEGER) : this.#int()
  }

  /** Reads the head of an item of this major type. @returns its argument */
  #head(major: number, most: number): number {
    if (this.#left < 1) throw more
    const first = this.#bytes[this.#at]!
    const bits = first & 31
    if (first >> 5 !== major || bits > 27) throw invalid('the log as it is read: another type')
    const size = bits < 24 ? 0 : 2 ** (bits - 24)
    if (this.#left < 1 + size) throw more
    const view = new DataView(
      this.#bytes.buffer,
      this.#bytes.byteOffset + this.#at,
      Math.min(headBytes, this.#left),
    )
    this.#at += 1 + size
    const value =
      size === 0
        ? bits
        : size === 1
          ? view.getUint8(1)
          : size === 2
            ? view.getUint16(1)
            : size === 4
              ? view.getUint32(1)
              : view.getUint32(1) * 2 ** 32 + view.getUint32(5)
    if (value > most) throw new WireFailure('WIRE_TOO_LARGE', `${value} is more than ${most}`)
    return value
  }
}

/** The item goes on in the next chunk. */
const more = Symbol('more')
