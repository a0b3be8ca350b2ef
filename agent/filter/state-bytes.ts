import type { AdmittedReading, Series, Value } from '../../shared/reading.ts'

/** Bytes of saved state that this version cannot make sense of: state of another version, or damage. */
export class StateProblem extends Error {}

/** States are written one behind the other into chunks: bytes of their own would cost more than what is in them. */
const chunkBytes = 65_536

/** Writes states, one after another. */
export class StateWriter {
  #bytes = new Uint8Array(chunkBytes)
  #view = new DataView(this.#bytes.buffer)
  /** Where the state under way begins, and where it has got to. */
  #start = 0
  #at = 0

  /** What has been written since the last call. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(this.#start, this.#at)
    this.#start = this.#at
    return bytes
  }

  /** Bytes written since the last `take`. */
  get length(): number {
    return this.#at - this.#start
  }

  /** Takes back what was written behind a length. */
  rewind(length: number): void {
    this.#at = this.#start + length
  }

  /** Leaves room for the length of what follows; `closeLength` fills it in, and returns it. */
  openLength(): number {
    this.#reserve(4)
    this.#at += 4
    return this.length
  }

  closeLength(opened: number): number {
    const length = this.length - opened
    this.#view.setUint32(this.#start + opened - 4, length)
    return length
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#at++] = value
  }

  /** @param value integer, 0 ≤ value < 2^53 */
  varint(value: number): void {
    this.#reserve(8)
    while (value >= 0x80) {
      this.#bytes[this.#at++] = (value % 0x80) | 0x80
      value = Math.floor(value / 0x80)
    }
    this.#bytes[this.#at++] = value
  }

  float(value: number): void {
    this.#reserve(8)
    this.#view.setFloat64(this.#at, value)
    this.#at += 8
  }

  text(value: string): void {
    const bytes = encoder.encode(value)
    this.varint(bytes.length)
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
  }

  value(value: Value): void {
    if (typeof value === 'number') {
      this.byte(0)
      this.float(value)
    } else if (typeof value === 'string') {
      this.byte(1)
      this.text(value)
    } else if (typeof value === 'bigint') {
      this.byte(value < 0n ? 2 : 3)
      this.#reserve(8)
      this.#view.setBigUint64(this.#at, BigInt.asUintN(64, value))
      this.#at += 8
    } else this.byte(value === null ? 4 : value ? 5 : 6)
  }

  /** All of a reading but its series. */
  reading({ timeMs, timeNanos, value, quality, arrival }: AdmittedReading): void {
    const { wallMs, monotonicMs } = arrival
    if (typeof value === 'number')
      this.numericReading(timeMs, timeNanos, value, quality, wallMs, monotonicMs)
    else {
      this.#times(timeMs, timeNanos, quality, wallMs, monotonicMs)
      this.value(value)
    }
  }

  /** As `reading`, from its numbers alone. */
  numericReading(
    timeMs: number,
    timeNanos: number,
    value: number,
    quality: number,
    wallMs: number,
    monotonicMs: number,
  ): void {
    this.#times(timeMs, timeNanos, quality, wallMs, monotonicMs)
    this.byte(0)
    this.float(value)
  }

  #times(
    timeMs: number,
    timeNanos: number,
    quality: number,
    wallMs: number,
    monotonicMs: number,
  ): void {
    this.float(timeMs)
    this.varint(timeNanos)
    this.varint(quality)
    this.float(wallMs)
    this.float(monotonicMs)
  }

  #reserve(more: number): void {
    if (this.#at + more <= this.#bytes.length) return
    const begun = this.#bytes.subarray(this.#start, this.#at)
    this.#bytes = new Uint8Array(Math.max(chunkBytes, 2 * (begun.length + more)))
    this.#view = new DataView(this.#bytes.buffer)
    this.#bytes.set(begun)
    this.#start = 0
    this.#at = begun.length
  }
}

/** Reads what `StateWriter` wrote. @throws StateProblem where the bytes are none of its */
export class StateReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  byte(): number {
    return this.#bytes[this.#advance(1)]!
  }

  varint(): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) break
      scale *= 0x80
    }
    if (!Number.isSafeInteger(value)) throw new StateProblem('a number over 2^53')
    return value
  }

  /** A count of things that follow. @throws StateProblem when there are more than `most` */
  count(most: number): number {
    const count = this.varint()
    if (count > most) throw new StateProblem(`${count} where ${most} is the most`)
    return count
  }

  float(): number {
    return this.#view.getFloat64(this.#advance(8))
  }

  uint32(): number {
    return this.#view.getUint32(this.#advance(4))
  }

  /** The next so many bytes; they stay where they are. */
  bytes(length: number): Uint8Array {
    const start = this.#advance(length)
    return this.#bytes.subarray(start, start + length)
  }

  text(): string {
    return decoder.decode(this.bytes(this.count(this.#bytes.length)))
  }

  value(): Value {
    const kind = this.byte()
    if (kind === 0) return this.float()
    if (kind === 1) return this.text()
    if (kind === 2) return this.#view.getBigInt64(this.#advance(8))
    if (kind === 3) return this.#view.getBigUint64(this.#advance(8))
    if (kind > 6) throw new StateProblem(`value of kind ${kind}`)
    return kind === 4 ? null : kind === 5
  }

  reading(series: Series): AdmittedReading {
    const timeMs = this.float()
    const timeNanos = this.varint()
    const quality = this.varint()
    const arrival = { wallMs: this.float(), monotonicMs: this.float() }
    return { series, timeMs, timeNanos, value: this.value(), quality, arrival }
  }

  get done(): boolean {
    return this.#at === this.#bytes.length
  }

  /** @throws StateProblem unless everything has been read */
  end(): void {
    if (!this.done) throw new StateProblem('more than there should be')
  }

  #advance(by: number): number {
    const at = this.#at
    if (at + by > this.#bytes.length) throw new StateProblem('ends early')
    this.#at = at + by
    return at
  }
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()
