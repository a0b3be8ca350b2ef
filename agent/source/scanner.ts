import { protocolFailure } from './failure.ts'

/** Takes what a scanner finds. */
export interface PacketSink {
  /** A whole PUBLISH; what follows its fixed header is `bytes[start … end)`. The array may be kept. */
  publish(flags: number, bytes: Uint8Array, start: number, end: number): void
  /** A PUBLISH longer than the limit begins; what follows its fixed header comes in pieces. */
  largePublish(flags: number, length: number): PieceSink
  /** Any other packet, whole. */
  control(type: number, packet: Uint8Array): void
}
export interface PieceSink {
  piece(bytes: Uint8Array): void
  end(): void
}

const publishType = 3
/** Longest packet other than PUBLISH, bytes: a SUBACK of thousands of filters is shorter. */
const maxControlBytes = 64 * 1024
/** Fixed header: one byte of type and flags, then up to four of length. */
const maxHeaderBytes = 5

/**
 * Finds the packets in a stream of bytes. A packet that lies whole within one piece is passed on where it
 * lies; only one that straddles two pieces is copied, once.
 */
export class PacketScanner {
  readonly #sink: PacketSink
  readonly #maxPublishBytes: number
  /** The first bytes of a fixed header that ended with its piece. */
  #header: Uint8Array | undefined
  /** A packet that ended beyond its piece, and how much of it is there. */
  #straddling: Uint8Array | undefined
  #filled = 0
  #large: PieceSink | undefined
  #largeLeft = 0

  /** @param maxPublishBytes a PUBLISH with more than this behind its fixed header comes in pieces */
  constructor(sink: PacketSink, maxPublishBytes: number) {
    this.#sink = sink
    this.#maxPublishBytes = maxPublishBytes
  }

  /** @throws SourceFailure when the bytes are not MQTT; also passes on what the sink throws */
  push(piece: Uint8Array): void {
    let bytes = piece
    if (this.#header) {
      bytes = concat(this.#header, piece)
      this.#header = undefined
    }
    let at = this.#resume(bytes)
    while (at < bytes.length) at = this.#packet(bytes, at)
  }

  /** Goes on with a packet that began in an earlier piece; returns where the next one begins. */
  #resume(bytes: Uint8Array): number {
    if (this.#large) {
      const length = Math.min(this.#largeLeft, bytes.length)
      this.#large.piece(bytes.subarray(0, length))
      this.#largeLeft -= length
      if (this.#largeLeft === 0) this.#endLarge()
      return length
    }
    const packet = this.#straddling
    if (!packet) return 0
    const length = Math.min(packet.length - this.#filled, bytes.length)
    packet.set(length === bytes.length ? bytes : bytes.subarray(0, length), this.#filled)
    this.#filled += length
    if (this.#filled === packet.length) {
      this.#straddling = undefined
      this.#packet(packet, 0)
    }
    return length
  }

  #endLarge(): void {
    const large = this.#large!
    this.#large = undefined
    large.end()
  }

  /** Takes the packet that begins at `at`; returns where the next one begins. */
  #packet(bytes: Uint8Array, at: number): number {
    let start = at + 1
    let length = 0
    for (let shift = 0; ; shift += 7) {
      if (start === bytes.length) {
        this.#header = bytes.slice(at)
        return start
      }
      const byte = bytes[start++]!
      length += (byte & 0x7f) << shift
      if (byte < 0x80) break
      if (start - at === maxHeaderBytes)
        throw protocolFailure('a packet length of more than 4 bytes')
    }
    const first = bytes[at]!
    const type = first >> 4
    const end = start + length
    if (type === publishType && length > this.#maxPublishBytes) {
      this.#large = this.#sink.largePublish(first & 0x0f, length)
      this.#largeLeft = length
      const here = Math.min(length, bytes.length - start)
      if (here > 0) return start + this.#resume(bytes.subarray(start, start + here))
      return start
    }
    if (type !== publishType && length > maxControlBytes)
      throw protocolFailure(`a packet of type ${type} with ${length} bytes`)
    if (end > bytes.length) {
      this.#straddling = new Uint8Array(end - at)
      this.#straddling.set(bytes.subarray(at))
      this.#filled = bytes.length - at
      return bytes.length
    }
    if (type === publishType) this.#sink.publish(first & 0x0f, bytes, start, end)
    else this.#sink.control(type, bytes.subarray(at, end))
    return end
  }
}

function concat(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const whole = new Uint8Array(head.length + tail.length)
  whole.set(head)
  whole.set(tail, head.length)
  return whole
}
