import { ByteWriter } from './bytes.ts'
import { type CborValue, cborLimits, keyWeight, major } from './cbor.ts'
import { toHalf } from './half.ts'

const textEncoder = new TextEncoder()

/** Throws RangeError for a text that is too long to be read back. */
export class CborWriter extends ByteWriter {
  /** Items written, as `CborLimits.maxItems` counts them. */
  items = 0

  override clear(): void {
    super.clear()
    this.items = 0
  }

  /** @param value integer, |value| < 2^53 */
  int(value: number): void {
    if (value < 0) this.#head(major.nint, -1 - value)
    else this.#head(major.uint, value)
  }

  /** @param value −2^63 ≤ value < 2^64 */
  bigInt(value: bigint): void {
    if (value < -(2n ** 63n) || value >= 2n ** 64n)
      throw new RangeError(`${value} takes more than 64 bits`)
    const negative = value < 0n
    const argument = negative ? -1n - value : value
    if (argument <= 0xffff_ffffn) {
      this.#head(negative ? major.nint : major.uint, Number(argument))
    } else {
      this.items++
      this.byte(((negative ? major.nint : major.uint) << 5) | 27)
      this.uint64(argument)
    }
  }

  /** An integer where it is one (−0 is none), otherwise the shortest float that is equal. */
  number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) this.int(value)
    else this.#float(value)
  }

  text(value: string): void {
    const { length } = value
    if (length <= 64) {
      let ascii = true
      for (let i = 0; i < length && ascii; i++) ascii = value.charCodeAt(i) < 0x80
      if (ascii) {
        this.#head(major.text, length)
        for (let i = 0; i < length; i++) this.byte(value.charCodeAt(i))
        return
      }
    }
    this.#encodedText(textEncoder.encode(value))
  }

  bytes(value: Uint8Array): void {
    this.bytesHead(value.length)
    this.raw(value)
  }

  /** Opens a byte string, whose bytes the caller puts behind it. */
  bytesHead(length: number): void {
    this.#head(major.bytes, length)
  }

  boolean(value: boolean): void {
    this.items++
    this.byte(value ? 0xf5 : 0xf4)
  }

  null(): void {
    this.items++
    this.byte(0xf6)
  }

  /** Opens an array: `length` items follow. */
  array(length: number): void {
    this.#head(major.array, length)
  }

  /** Opens a map: `size` pairs follow, keys ascending by their encoded bytes. */
  map(size: number): void {
    this.#head(major.map, size)
  }

  /** Any value; undefined members of objects are left out. */
  value(value: CborValue): void {
    if (typeof value === 'number') this.number(value)
    else if (typeof value === 'string') this.text(value)
    else if (typeof value === 'boolean') this.boolean(value)
    else if (typeof value === 'bigint') this.bigInt(value)
    else if (value === null) this.null()
    else if (value instanceof Uint8Array) this.bytes(value)
    else if (Array.isArray(value)) {
      this.array(value.length)
      for (const element of value) this.value(element)
    } else this.textMap(value)
  }

  /** Pairs ordered as RFC 8949, 4.2.1 wants: by length, then by bytes. */
  textMap(pairs: Readonly<Record<string, CborValue | undefined>>): void {
    const entries: { key: Uint8Array; value: CborValue }[] = []
    for (const [name, value] of Object.entries(pairs)) {
      if (value !== undefined) entries.push({ key: textEncoder.encode(name), value })
    }
    entries.sort((a, b) => a.key.length - b.key.length || Buffer.compare(a.key, b.key))
    this.map(entries.length)
    this.items += entries.length * keyWeight
    for (const { key, value } of entries) {
      this.#encodedText(key)
      this.value(value)
    }
  }

  /** Items that another writer has encoded. */
  embed(other: CborWriter): void {
    this.raw(other.peek())
    this.items += other.items
  }

  #encodedText(encoded: Uint8Array): void {
    if (encoded.length > cborLimits.maxTextBytes)
      throw new RangeError(`a text of ${encoded.length} bytes`)
    this.#head(major.text, encoded.length)
    this.raw(encoded)
  }

  #head(type: number, argument: number): void {
    this.items++
    if (argument < 24) this.byte((type << 5) | argument)
    else if (argument < 0x100) {
      this.byte((type << 5) | 24)
      this.byte(argument)
    } else if (argument < 0x10000) {
      this.byte((type << 5) | 25)
      this.uint(argument, 2)
    } else if (argument < 0x1_0000_0000) {
      this.byte((type << 5) | 26)
      this.uint(argument, 4)
    } else {
      this.byte((type << 5) | 27)
      this.uint(Math.floor(argument / 0x1_0000_0000), 4)
      this.uint(argument, 4)
    }
  }

  #float(value: number): void {
    this.items++
    const half = toHalf(value)
    if (half !== undefined) {
      this.byte(0xf9)
      this.uint(half, 2)
    } else if (Math.fround(value) === value) {
      this.byte(0xfa)
      this.float32(value)
    } else {
      this.byte(0xfb)
      this.float64(value)
    }
  }
}
