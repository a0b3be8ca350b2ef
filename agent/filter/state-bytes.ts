import type { AdmittedReading, Series, Value } from '../../shared/reading.ts'

/** Bytes of saved state that this version cannot make sense of: state of another version, or damage. */
export class StateProblem extends Error {}

/** Writes state. Reused from one save to the next: `take` copies what was written. */
export class StateWriter {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = 0

  /** A copy of what has been written since the last call. */
  take(): Uint8Array {
    const bytes = this.#bytes.slice(0, this.#length)
    this.#length = 0
    return bytes
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
  }

  /** @param value integer, 0 ≤ value < 2^53 */
  varint(value: number): void {
    this.#reserve(8)
    while (value >= 0x80) {
      this.#bytes[this.#length++] = (value % 0x80) | 0x80
      value = Math.floor(value / 0x80)
    }
    this.#bytes[this.#length++] = value
  }

  float(value: number): void {
    this.#reserve(8)
    this.#view.setFloat64(this.#length, value)
    this.#length += 8
  }

  text(value: string): void {
    const bytes = encoder.encode(value)
    this.varint(bytes.length)
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
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
      this.#view.setBigUint64(this.#length, BigInt.asUintN(64, value))
      this.#length += 8
    } else this.byte(value === null ? 4 : value ? 5 : 6)
  }

  /** All of a reading but its series. */
  reading({ timeMs, timeNanos, value, quality, arrival }: AdmittedReading): void {
    this.float(timeMs)
    this.varint(timeNanos)
    this.value(value)
    this.varint(quality)
    this.float(arrival.wallMs)
    this.float(arrival.monotonicMs)
  }

  #reserve(more: number): void {
    const needed = this.#length + more
    if (needed <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2))
    grown.set(this.#bytes)
    this.#bytes = grown
    this.#view = new DataView(grown.buffer)
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

  text(): string {
    const length = this.count(this.#bytes.length)
    const start = this.#advance(length)
    return decoder.decode(this.#bytes.subarray(start, start + length))
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
    return {
      series,
      timeMs: this.float(),
      timeNanos: this.varint(),
      value: this.value(),
      quality: this.varint(),
      arrival: { wallMs: this.float(), monotonicMs: this.float() },
    }
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
