import { isUtf8 } from 'node:buffer'
import { ByteWriter } from './bytes.ts'
import { WireFailure } from './failure.ts'

/**
 * The part of CBOR (RFC 8949) that batches use: integers to 64 bits signed or unsigned, byte and text strings, arrays,
 * maps with text or small integer keys, false, true, null, floats. No tags, no indefinite lengths, no
 * other simple values. Written in the deterministic encoding of section 4.2.1; read in any length form.
 */
const major = { uint: 0, nint: 1, bytes: 2, text: 3, array: 4, map: 5, tag: 6, simple: 7 } as const

export type CborValue =
  | number
  | bigint
  | string
  | boolean
  | null
  | Uint8Array
  | CborValue[]
  | { [key: string]: CborValue }

export interface CborLimits {
  /** Arrays and maps within each other. */
  maxDepth: number
  /** Items in all, containers and keys included. */
  maxItems: number
  /** Bytes of one text. */
  maxTextBytes: number
}
export const cborLimits: CborLimits = { maxDepth: 16, maxItems: 1_000_000, maxTextBytes: 65_536 }

const scratch = new DataView(new ArrayBuffer(8))
const textEncoder = new TextEncoder()
const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Throws RangeError for a text that is too long to be read back. */
export class CborWriter extends ByteWriter {
  /** Items written, containers and keys included. */
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
    this.#head(major.bytes, value.length)
    this.raw(value)
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

/**
 * Reads one CBOR item from foreign bytes, front to back, in time linear in their number. What is read
 * is what a schema asks for (`int`, `text` …) or anything of the profile (`value`, `skip`).
 * Every method throws WireFailure 'WIRE_MALFORMED' for bytes outside the profile and 'WIRE_INVALID' for
 * another type than was asked for.
 */
export class CborReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #limits: CborLimits
  #at = 0
  #items = 0
  #type = 0
  /** Value or length behind the head just read; Infinity beyond 2^53, then in `#wide`. */
  #argument = 0
  #wide = 0n

  constructor(bytes: Uint8Array, limits: CborLimits = cborLimits) {
    // A Buffer's `slice` would give views where copies are wanted.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#limits = limits
  }

  /** Position in the bytes. */
  get at(): number {
    return this.#at
  }

  /** Whether the next item is of this type; false at the end. */
  next(type: keyof typeof major): boolean {
    return this.#at < this.#bytes.length && this.#bytes[this.#at]! >> 5 === major[type]
  }

  /** @returns integer between the bounds, which lie within ±(2^53 − 1) */
  int(what: string, min: number, max: number): number {
    this.#head()
    const value =
      this.#type === major.uint
        ? this.#argument
        : this.#type === major.nint
          ? -1 - this.#argument
          : Number.NaN
    if (!(value >= min && value <= max)) throw invalidAt(what, `no integer of ${min} to ${max}`)
    return value
  }

  /** @returns finite number */
  number(what: string): number {
    const value = this.value()
    if (typeof value !== 'number' || !Number.isFinite(value)) throw invalidAt(what, 'no number')
    return value
  }

  boolean(what: string): boolean {
    const byte = this.#bytes[this.#at]
    if (byte !== 0xf4 && byte !== 0xf5) throw invalidAt(what, 'neither true nor false')
    this.#at++
    this.#count(1)
    return byte === 0xf5
  }

  /** Steps over a null if there is one. */
  null(): boolean {
    if (this.#bytes[this.#at] !== 0xf6) return false
    this.#at++
    this.#count(1)
    return true
  }

  /** @returns a view, not a copy */
  bytes(what: string, length?: number): Uint8Array {
    this.#head()
    if (this.#type !== major.bytes) throw invalidAt(what, 'no byte string')
    if (length !== undefined && this.#argument !== length)
      throw invalidAt(what, `not ${length} bytes`)
    return this.#take()
  }

  text(what: string): string {
    this.#head()
    if (this.#type !== major.text) throw invalidAt(what, 'no text')
    return this.#text()
  }

  /** @returns number of elements that follow */
  array(what: string, min: number, max: number): number {
    this.#head()
    if (this.#type !== major.array) throw invalidAt(what, 'no array')
    if (!(this.#argument >= min && this.#argument <= max))
      throw invalidAt(what, `no array of ${min} to ${max}`)
    this.#room(this.#argument)
    return this.#argument
  }

  /** @returns number of pairs that follow */
  map(what: string, max: number): number {
    this.#head()
    if (this.#type !== major.map) throw invalidAt(what, 'no map')
    if (!(this.#argument <= max)) throw invalidAt(what, `no map of up to ${max}`)
    this.#room(this.#argument * 2)
    return this.#argument
  }

  /**
   * Reads a map with small integer keys, each once: calls back at each value, which must be consumed.
   *
   * @param max largest key, ≤ 31
   * @returns bit set of the keys found
   */
  fields(what: string, max: number, field: (key: number) => void): number {
    const size = this.map(what, max + 1)
    let seen = 0
    for (let i = 0; i < size; i++) {
      const key = this.int(`${what}: key`, 0, max)
      if ((seen >>> key) & 1) throw malformed(`key ${key} twice`)
      seen |= 1 << key
      field(key)
    }
    return seen >>> 0
  }

  /** Any value of the profile, built. Objects have own members only, whatever their names. */
  value(): CborValue {
    return this.#value(1, true) as CborValue
  }

  /** Any value of the profile, checked but not built. */
  skip(): void {
    this.#value(1, false)
  }

  /** @throws WireFailure unless everything has been read */
  end(): void {
    if (this.#at !== this.#bytes.length) throw malformed('bytes behind the end')
  }

  #value(depth: number, build: boolean): CborValue | undefined {
    if (depth > this.#limits.maxDepth) throw malformed('nested too deep')
    this.#head()
    switch (this.#type) {
      case major.uint:
        return this.#argument === Infinity ? this.#wide : this.#argument
      case major.nint:
        return this.#argument === Infinity ? this.#negative() : -1 - this.#argument
      case major.bytes: {
        const bytes = this.#take()
        return build ? bytes.slice() : undefined
      }
      case major.text:
        return build ? this.#text() : this.#skipText()
      case major.array: {
        const length = this.#argument
        this.#room(length)
        if (!build) {
          for (let i = 0; i < length; i++) this.#value(depth + 1, false)
          return undefined
        }
        const elements: CborValue[] = []
        for (let i = 0; i < length; i++) elements.push(this.#value(depth + 1, true) as CborValue)
        return elements
      }
      case major.map:
        return this.#map(depth, build)
      case major.tag:
        throw malformed('a tag')
      default:
        return this.#simple()
    }
  }

  #map(depth: number, build: boolean): CborValue | undefined {
    const size = this.#argument
    this.#room(size * 2)
    const result: { [key: string]: CborValue } = {}
    const seen = new Set<string>()
    for (let i = 0; i < size; i++) {
      this.#head()
      let key: string
      if (this.#type === major.text) key = this.#text()
      else if (this.#type === major.uint && this.#argument < 256) key = String(this.#argument)
      else throw malformed('a key that is neither text nor a small integer')
      // With a letter in front no key looks like an array index, whose hash V8 does not seed.
      const known = `${this.#type === major.text ? 't' : 'i'}${key}`
      if (seen.has(known)) throw malformed(`key "${key}" twice`)
      seen.add(known)
      const value = this.#value(depth + 1, build)
      if (!build) continue
      if (key === '__proto__')
        Object.defineProperty(result, key, {
          value,
          enumerable: true,
          configurable: true,
          writable: true,
        })
      else result[key] = value as CborValue
    }
    return build ? result : undefined
  }

  #simple(): CborValue {
    switch (this.#argument) {
      case 20:
        return false
      case 21:
        return true
      case 22:
        return null
      case 25:
        this.#need(2)
        this.#at += 2
        return fromHalf(this.#view.getUint16(this.#at - 2))
      case 26:
        this.#need(4)
        this.#at += 4
        return this.#view.getFloat32(this.#at - 4)
      case 27:
        this.#need(8)
        this.#at += 8
        return this.#view.getFloat64(this.#at - 8)
      default:
        throw malformed(`simple value ${this.#argument}`)
    }
  }

  #negative(): bigint {
    if (this.#wide >= 2n ** 63n) throw malformed('an integer over 64 bits')
    return -1n - this.#wide
  }

  #head(): void {
    this.#need(1)
    this.#count(1)
    const first = this.#bytes[this.#at++]!
    const info = first & 31
    this.#type = first >> 5
    if (info < 24 || this.#type === major.simple) {
      this.#argument = info
      return
    }
    switch (info) {
      case 24:
        this.#need(1)
        this.#argument = this.#bytes[this.#at++]!
        return
      case 25:
        this.#need(2)
        this.#argument = this.#view.getUint16(this.#at)
        this.#at += 2
        return
      case 26:
        this.#need(4)
        this.#argument = this.#view.getUint32(this.#at)
        this.#at += 4
        return
      case 27: {
        this.#need(8)
        const high = this.#view.getUint32(this.#at)
        // −1 − (2^53 − 1) is not a safe integer, so the last of them counts as wide.
        if (high < 0x1fffff)
          this.#argument = high * 0x1_0000_0000 + this.#view.getUint32(this.#at + 4)
        else {
          this.#wide = this.#view.getBigUint64(this.#at)
          this.#argument = Infinity
          if (this.#wide < 0x1f_ffff_ffff_ffffn) this.#argument = Number(this.#wide)
          else if (this.#wide === 0x1f_ffff_ffff_ffffn && this.#type === major.uint)
            this.#argument = Number.MAX_SAFE_INTEGER
        }
        this.#at += 8
        return
      }
      default:
        throw malformed(info === 31 ? 'an indefinite length' : 'a reserved length')
    }
  }

  #take(): Uint8Array {
    this.#need(this.#argument)
    const start = this.#at
    this.#at += this.#argument
    return this.#bytes.subarray(start, this.#at)
  }

  #text(): string {
    const start = this.#at
    this.#skipText()
    const end = this.#at
    if (end - start <= 64) {
      let text = ''
      for (let i = start; i < end; i++) {
        const byte = this.#bytes[i]!
        if (byte >= 0x80) return textDecoder.decode(this.#bytes.subarray(start, end))
        text += String.fromCharCode(byte)
      }
      return text
    }
    return textDecoder.decode(this.#bytes.subarray(start, end))
  }

  #skipText(): undefined {
    if (!(this.#argument <= this.#limits.maxTextBytes)) throw malformed('a text too long')
    this.#need(this.#argument)
    const start = this.#at
    const end = start + this.#argument
    this.#at = end
    for (let i = start; i < end; i++)
      if (this.#bytes[i]! >= 0x80) {
        if (!isUtf8(this.#bytes.subarray(start, end))) throw malformed('text that is not UTF-8')
        return
      }
  }

  #need(length: number): void {
    if (!(length <= this.#bytes.length - this.#at)) throw malformed('ends early')
  }

  /** Elements take a byte each at least, so a length beyond the bytes left is a lie. */
  #room(elements: number): void {
    this.#need(elements)
    if (this.#items + elements > this.#limits.maxItems) this.#count(elements)
  }

  #count(items: number): void {
    this.#items += items
    if (this.#items > this.#limits.maxItems)
      throw new WireFailure('WIRE_TOO_LARGE', `over ${this.#limits.maxItems} CBOR items`)
  }
}

/** Passes bytes that are exactly one item of the profile. @throws WireFailure for all others */
export function checkCbor(bytes: Uint8Array, limits: Partial<CborLimits> = {}): void {
  const reader = new CborReader(bytes, { ...cborLimits, ...limits })
  reader.skip()
  reader.end()
}

function malformed(detail: string): WireFailure {
  return new WireFailure('WIRE_MALFORMED', detail)
}

function invalidAt(what: string, detail: string): WireFailure {
  return new WireFailure('WIRE_INVALID', `${what}: ${detail}`)
}

/** Bits of the binary16 that equals `value`, if one does. Every NaN becomes the one quiet NaN. */
function toHalf(value: number): number | undefined {
  if (Number.isNaN(value)) return 0x7e00
  if (Math.fround(value) !== value) return undefined
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  const sign = (bits >>> 16) & 0x8000
  const exponent = (bits >>> 23) & 0xff
  const mantissa = bits & 0x7fffff
  if (exponent === 0xff) return sign | 0x7c00
  if (exponent === 0 && mantissa === 0) return sign
  const shifted = exponent - 112
  if (shifted >= 31) return undefined
  if (shifted >= 1) return mantissa & 0x1fff ? undefined : sign | (shifted << 10) | (mantissa >> 13)
  // Subnormal in binary16: the leading 1 becomes explicit and moves right.
  const shift = 14 - shifted
  const whole = mantissa | 0x800000
  if (shift > 24 || whole & ((1 << shift) - 1)) return undefined
  return sign | (whole >> shift)
}

function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const mantissa = bits & 0x3ff
  if (exponent === 31) return mantissa ? Number.NaN : sign * Infinity
  if (exponent === 0) return sign * mantissa * 2 ** -24
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}
