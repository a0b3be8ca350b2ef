const nothing = new Uint8Array(0)
const scratch = new DataView(new ArrayBuffer(8))
const scratchBytes = new Uint8Array(scratch.buffer)

/** Bytes that grow at their end. Takes no memory before the first is written. */
export class ByteWriter {
  readonly #capacity: number
  #bytes: Uint8Array = nothing
  #length = 0

  /** @param capacity bytes to begin with */
  constructor(capacity = 64) {
    this.#capacity = capacity
  }

  get length(): number {
    return this.#length
  }

  /** A copy of what has been written. */
  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  /** What has been written, valid until the next write. */
  peek(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  clear(): void {
    this.#length = 0
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  /** The `width` low bytes of an integer, most significant first. */
  uint(value: number, width: 2 | 4): void {
    this.#reserve(width)
    for (let shift = width * 8 - 8; shift >= 0; shift -= 8)
      this.#bytes[this.#length++] = value >>> shift
  }

  uint64(value: bigint): void {
    scratch.setBigUint64(0, value)
    this.raw(scratchBytes)
  }

  float32(value: number): void {
    scratch.setFloat32(0, value)
    this.uint(scratch.getUint32(0), 4)
  }

  float64(value: number): void {
    scratch.setFloat64(0, value)
    this.raw(scratchBytes)
  }

  /**
   * Little-endian groups of 7 bits, each but the last with its top bit set (LEB128).
   *
   * @param value integer, 0 ≤ value < 2^53
   */
  varint(value: number): void {
    this.#reserve(8)
    const bytes = this.#bytes
    let at = this.#length
    if (value < 0x4000) {
      if (value >= 0x80) {
        bytes[at++] = value | 0x80
        value >>= 7
      }
      bytes[at] = value
      this.#length = at + 1
      return
    }
    if (!(value <= Number.MAX_SAFE_INTEGER)) throw new RangeError(`${value} as a varint`)
    while (value >= 0x80) {
      bytes[at++] = (value % 0x80) | 0x80
      value = Math.floor(value / 0x80)
    }
    bytes[at++] = value
    this.#length = at
  }

  /**
   * A varint of 0, -1, 1, -2, 2 … as 0, 1, 2, 3, 4 …
   *
   * @param value integer, |value| < 2^52
   */
  signed(value: number): void {
    this.varint(value < 0 ? -2 * value - 1 : 2 * value)
  }

  #reserve(more: number): void {
    const needed = this.#length + more
    if (needed <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2, this.#capacity))
    grown.set(this.#bytes)
    this.#bytes = grown
  }
}
