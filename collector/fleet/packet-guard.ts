import type { Duplex } from 'node:stream'

/** A fixed header has a byte, and a length of at most four. */
const maxLengthBytes = 4

/**
 * Watches the lengths of MQTT packets as they pass: a parser keeps all of a packet before it says anything,
 * and a packet may announce 256 MiB.
 */
export class PacketGuard {
  readonly #maxBytes: number
  /** Bytes of the packet under way that are still to come; 0 where a header is next. */
  #left = 0
  /** A header under way: how many bytes of it were seen, and the length so far. */
  #seen = 0
  #length = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** @returns false as soon as a packet is too long, or its length is none */
  pass(bytes: Uint8Array): boolean {
    let at = 0
    while (at < bytes.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, bytes.length - at)
        this.#left -= step
        at += step
        continue
      }
      const byte = bytes[at++]!
      if (this.#seen++ === 0) continue // The packet's kind.
      const place = this.#seen - 2
      if (place >= maxLengthBytes) return false
      this.#length += (byte & 0x7f) * 128 ** place
      if (this.#length > this.#maxBytes) return false
      if (byte & 0x80) continue
      this.#left = this.#length
      this.#seen = 0
      this.#length = 0
    }
    return true
  }
}

/** Ends a stream whose reader would meet a packet of more than `maxBytes`. */
export function guardPackets(stream: Duplex, maxBytes: number): void {
  const guard = new PacketGuard(maxBytes)
  const read = stream.read.bind(stream)
  // aedes reads the stream by itself, so the way in is its `read`.
  stream.read = (size?: number) => {
    const chunk: Buffer | null = read(size)
    if (chunk === null || guard.pass(chunk)) return chunk
    stream.destroy(new Error(`an MQTT packet of more than ${maxBytes} bytes`))
    return null
  }
}
