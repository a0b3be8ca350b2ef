import { invalid } from './failure.ts'

/** Reads what `ByteWriter.varint` and `signed` wrote: one column of a readings item. */
export class VarintReader {
  readonly #bytes: Uint8Array
  readonly #name: string
  #at = 0

  /** @param name of the column, for messages */
  constructor(bytes: Uint8Array, name: string) {
    this.#bytes = bytes
    this.#name = name
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length
  }

  /**
   * @returns integer, 0 ≤ value < 2^53
   * @throws WireFailure at the end of the column, or when the number is larger
   */
  next(): number {
    const bytes = this.#bytes
    let at = this.#at
    if (at >= bytes.length) throw invalid(`${this.#name}: ends early`)
    let byte = bytes[at++]!
    if (byte < 0x80) {
      this.#at = at
      return byte
    }
    let value = byte & 0x7f
    let scale = 0x80
    do {
      if (at >= bytes.length) throw invalid(`${this.#name}: ends early`)
      if (scale > 2 ** 49) throw invalid(`${this.#name}: number over 2^53`)
      byte = bytes[at++]!
      value += (byte & 0x7f) * scale
      scale *= 0x80
    } while (byte >= 0x80)
    if (value > Number.MAX_SAFE_INTEGER) throw invalid(`${this.#name}: number over 2^53`)
    this.#at = at
    return value
  }

  /** @returns integer, |value| < 2^52 + 1 */
  nextSigned(): number {
    const folded = this.next()
    if (folded < 0x80000000) return (folded >>> 1) ^ -(folded & 1)
    return folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2
  }

  /**
   * Steps over the next `count` numbers if each has at most two bytes, and so is below 2^14.
   *
   * @returns whether it did; otherwise nothing has been read
   */
  skipSmall(count: number): boolean {
    const bytes = this.#bytes
    const { length } = bytes
    let at = this.#at
    for (let left = count; left > 0; left--) {
      if (at >= length) return false
      if (bytes[at++]! < 0x80) continue
      if (at >= length || bytes[at++]! >= 0x80) return false
    }
    this.#at = at
    return true
  }

  /** @throws WireFailure unless everything has been read */
  end(): void {
    if (this.#at !== this.#bytes.length) throw invalid(`${this.#name}: more than it should hold`)
  }
}
