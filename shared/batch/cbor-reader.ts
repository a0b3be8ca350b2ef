import { isUtf8 } from 'node:buffer'
import { type CborLimits, type CborValue, cborLimits, keyWeight, major } from './cbor.ts'
import { WireFailure } from './failure.ts'
import { fromHalf } from './half.ts'

const textDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

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

  /** Items read so far, those inside of others included. */
  get items(): number {
    return this.#items
  }

  /** Goes on at `at`, as if so many items had been read. */
  goTo(at: number, items = this.#items): void {
    this.#at = at
    this.#items = items
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
    const size = this.#mapHead(what, max)
    this.#count(size * keyWeight)
    return size
  }

  /**
   * Reads a map with small integer keys, each once: calls back at each value, which must be consumed.
   *
   * @param max largest key, ≤ 31
   * @returns bit set of the keys found
   */
  fields(what: string, max: number, field: (key: number) => void): number {
    const size = this.#mapHead(what, max + 1)
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

  /**
   * A map of plain data, checked but not built: no bytes, no integer beyond 2^53, arrays and maps at most `maxDepth`
   * deep.
   */
  plain(what: string, maxDepth: number): void {
    // What is outside the profile is said first, wherever it is.
    const problem = this.#plain(maxDepth, 1)
    if (problem) throw invalidAt(what, problem)
  }

  /** Any value, of which only the lengths are looked at: for what is read at another time. */
  step(): void {
    for (let left = 1; left > 0; left--) {
      this.#head()
      if (this.#type === major.bytes || this.#type === major.text) this.#take()
      else if (this.#type === major.array || this.#type === major.map) {
        const elements = this.#type === major.map ? this.#argument * 2 : this.#argument
        this.#room(elements)
        left += elements
      } else if (this.#type === major.simple) this.#simple()
    }
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

  /** @returns what is not plain about it */
  #plain(maxDepth: number, depth: number): string | undefined {
    if (depth > this.#limits.maxDepth) throw malformed('nested too deep')
    this.#head()
    switch (this.#type) {
      case major.text:
        return this.#skipText()
      case major.array:
      case major.map: {
        const isMap = this.#type === major.map
        const size = this.#argument
        this.#room(isMap ? size * 2 : size)
        if (isMap) this.#count(size * keyWeight)
        const seen = isMap ? new Set<string>() : undefined
        let problem = depth > maxDepth ? 'nested too deep' : undefined
        for (let i = 0; i < size; i++) {
          if (seen) this.#key(seen)
          const found = this.#plain(maxDepth, depth + 1)
          problem ??= found
        }
        return problem
      }
      case major.bytes:
        this.#take()
        return 'bytes'
      case major.tag:
        throw malformed('a tag')
      case major.simple:
        this.#simple()
        return undefined
      default:
        if (this.#argument !== Infinity) return undefined
        if (this.#type === major.nint) this.#negative()
        return 'an integer over 2^53'
    }
  }

  /** The next key, which is none of those seen before. */
  #key(seen: Set<string>): string {
    this.#head()
    let key: string
    if (this.#type === major.text) key = this.#text()
    else if (this.#type === major.uint && this.#argument < 256) key = String(this.#argument)
    else throw malformed('a key that is neither text nor a small integer')
    // With a letter in front no key looks like an array index, whose hash V8 does not seed.
    const known = `${this.#type === major.text ? 't' : 'i'}${key}`
    if (seen.has(known)) throw malformed(`key "${key}" twice`)
    seen.add(known)
    return key
  }

  #map(depth: number, build: boolean): CborValue | undefined {
    const size = this.#argument
    this.#room(size * 2)
    this.#count(size * keyWeight)
    const result: { [key: string]: CborValue } = {}
    const seen = new Set<string>()
    for (let i = 0; i < size; i++) {
      const key = this.#key(seen)
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

  #mapHead(what: string, max: number): number {
    this.#head()
    if (this.#type !== major.map) throw invalidAt(what, 'no map')
    if (!(this.#argument <= max)) throw invalidAt(what, `no map of up to ${max}`)
    this.#room(this.#argument * 2)
    return this.#argument
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
