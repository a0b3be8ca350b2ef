import type { Value } from '../../shared/reading.ts'
import type { Pointer } from './pointer.ts'

/** Not read: it has to be looked at properly. */
const unusual = Symbol('unusual')

/** More digits than this a float may not keep. */
const safeDigits = 15
/** Longest number that is made text, characters. */
const longest = 40
const powersOfTen = Array.from({ length: safeDigits + 1 }, (_, places) => 10 ** places)

/**
 * Reads what most sensors send, a bare scalar or an object of a few plain members such as
 * `{"t":1763800000123,"v":21.5}`, from its bytes, without making text or a tree of it. What is not plain
 * in any way it leaves to `parseExact`, and on the rest it agrees with that.
 */
export class FastReader {
  /** Of the payload last read: undefined where there is none. */
  value: Value | undefined = undefined
  /** Likewise; a number as text where a float might not keep it. */
  time: Value | undefined = undefined
  readonly #valueName: Uint8Array
  readonly #timeName: Uint8Array | undefined
  #bytes: Uint8Array = new Uint8Array()
  #at = 0

  /** Undefined where the pointers do not both point at a member, of a plain name, of the document. */
  static for(value: Pointer, time: Pointer | undefined): FastReader | undefined {
    const valueName = plainName(value)
    const timeName = time && plainName(time)
    if (!valueName || (time && (!timeName || time[0] === value[0]))) return undefined
    return new FastReader(valueName, timeName)
  }

  private constructor(valueName: Uint8Array, timeName: Uint8Array | undefined) {
    this.#valueName = valueName
    this.#timeName = timeName
  }

  /** @returns false when the payload is not plain: `value` and `time` then mean nothing */
  read(payload: Uint8Array): boolean {
    this.#bytes = payload
    this.#at = 0
    this.value = undefined
    this.time = undefined
    this.#skipSpace()
    if (this.#peek() === 0x7b) {
      if (!this.#object()) return false
    } else {
      const value = this.#scalar(false)
      if (value === unusual) return false
      this.value = value
    }
    this.#skipSpace()
    return this.#at === payload.length
  }

  #object(): boolean {
    this.#at++
    this.#skipSpace()
    if (this.#take(0x7d)) return true
    for (;;) {
      const from = this.#at + 1
      if (!this.#string()) return false
      const to = this.#at - 1
      const isValue = this.#is(this.#valueName, from, to)
      this.#skipSpace()
      if (!this.#take(0x3a)) return false
      this.#skipSpace()
      const member = this.#scalar(!isValue)
      if (member === unusual) return false
      // Of members with one name, the last one counts, as everywhere.
      if (isValue) this.value = member
      else if (this.#timeName && this.#is(this.#timeName, from, to)) this.time = member
      this.#skipSpace()
      if (this.#take(0x7d)) return true
      if (!this.#take(0x2c)) return false
      this.#skipSpace()
    }
  }

  /** @param asText what to do with a long number: give its text, or give up */
  #scalar(asText: boolean): Value | typeof unusual {
    switch (this.#peek()) {
      case 0x22: {
        const from = this.#at + 1
        return this.#string() ? this.#text(from, this.#at - 1) : unusual
      }
      case 0x74:
        return this.#word('true') ? true : unusual
      case 0x66:
        return this.#word('false') ? false : unusual
      case 0x6e:
        return this.#word('null') ? null : unusual
      default:
        return this.#number(asText)
    }
  }

  /**
   * Exact: a whole number and a power of ten that a float both keeps, divided once (Clinger, 1990). An
   * exponent is left standing, where nothing expects it.
   */
  #number(asText: boolean): number | string | typeof unusual {
    const bytes = this.#bytes
    const from = this.#at
    const negative = this.#take(0x2d)
    const first = this.#at
    let mantissa = this.#digits(0)
    const whole = this.#at - first
    if (whole === 0 || (whole > 1 && bytes[first] === 0x30)) return unusual
    let places = 0
    if (this.#take(0x2e)) {
      const point = this.#at
      mantissa = this.#digits(mantissa)
      places = this.#at - point
      if (places === 0) return unusual
    }
    if (whole + places > safeDigits) {
      // A fraction becomes the nearest float, a whole number must stay exact.
      if (this.#at - from > longest || (places === 0 && !asText)) return unusual
      const text = this.#text(from, this.#at)
      return asText ? text : Number(text)
    }
    const value = places === 0 ? mantissa : mantissa / powersOfTen[places]!
    return negative ? -value : value
  }

  /** Passes digits, and appends them to `mantissa`. */
  #digits(mantissa: number): number {
    const bytes = this.#bytes
    let at = this.#at
    let value = mantissa
    for (; at < bytes.length; at++) {
      const digit = bytes[at]! - 0x30
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
    }
    this.#at = at
    return value
  }

  /** Passes a string of ASCII without escapes. */
  #string(): boolean {
    if (!this.#take(0x22)) return false
    const bytes = this.#bytes
    for (let at = this.#at; at < bytes.length; at++) {
      const code = bytes[at]!
      if (code === 0x22) {
        this.#at = at + 1
        return true
      }
      if (code < 0x20 || code > 0x7e || code === 0x5c) return false
    }
    return false
  }

  #word(word: string): boolean {
    for (let i = 0; i < word.length; i++)
      if (this.#bytes[this.#at + i] !== word.charCodeAt(i)) return false
    this.#at += word.length
    return true
  }

  #text(from: number, to: number): string {
    const { buffer, byteOffset } = this.#bytes
    return Buffer.from(buffer, byteOffset + from, to - from).toString('latin1')
  }

  #is(name: Uint8Array, from: number, to: number): boolean {
    if (to - from !== name.length) return false
    for (let i = 0; i < name.length; i++) if (this.#bytes[from + i] !== name[i]) return false
    return true
  }

  #take(code: number): boolean {
    if (this.#peek() !== code) return false
    this.#at++
    return true
  }

  #peek(): number {
    return this.#at < this.#bytes.length ? this.#bytes[this.#at]! : -1
  }

  #skipSpace(): void {
    for (;;) {
      const code = this.#peek()
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at++
    }
  }
}

function plainName([name, ...more]: Pointer): Uint8Array | undefined {
  if (name === undefined || more.length > 0 || !/^[ -!#-[\]-~]*$/.test(name)) return undefined
  return new TextEncoder().encode(name)
}
