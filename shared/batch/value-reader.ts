import type { Value } from '../reading.ts'
import type { CborReader } from './cbor-reader.ts'
import { maxExponent, maxNudge, nudged, scaledLimit, unscale } from './decimal.ts'
import { invalid } from './failure.ts'
import { FloatReader } from './float.ts'
import { ChannelHistory, form, integerOf, type Other, type ValueColumns } from './values.ts'
import { VarintReader } from './varint.ts'

/**
 * @param starts as for `valueColumns`
 * @param into takes the values by position; without it they are checked only
 * @throws WireFailure unless the columns hold exactly one value for each position
 */
export function readValues(
  columns: ValueColumns,
  starts: Uint32Array,
  channelOf: Uint16Array,
  into?: Value[],
): void {
  if (columns.forms.length !== channelOf.length) throw invalid('forms: not one for each series')
  const reader = new ValueReader(columns, channelOf, into)
  for (let series = 0; series < channelOf.length; series++)
    reader.series(columns.forms[series]!, starts[series]!, starts[series + 1]!, channelOf[series]!)
  reader.end()
}

class ValueReader {
  readonly #into: Value[] | undefined
  readonly #numbers: VarintReader
  readonly #nudges: VarintReader
  readonly #doubles: FloatReader
  readonly #singles: FloatReader
  readonly #texts: readonly string[]
  readonly #others: readonly Other[]
  readonly #channels: ChannelHistory
  #other = 0
  /** Position of the next of the others, and of the next nudge. */
  #otherAt: number
  #nudgeAt: number

  constructor(columns: ValueColumns, channelOf: Uint16Array, into: Value[] | undefined) {
    this.#channels = new ChannelHistory(channelOf)
    this.#into = into
    this.#numbers = new VarintReader(columns.numbers, 'numbers')
    this.#nudges = new VarintReader(columns.nudges, 'nudges')
    this.#doubles = new FloatReader(columns.doubles, 8, 'doubles')
    this.#singles = new FloatReader(columns.singles, 4, 'singles')
    this.#texts = columns.texts
    this.#others = columns.others
    this.#otherAt = this.#others[0]?.gap ?? Infinity
    this.#nudgeAt = this.#nudges.done ? Infinity : this.#nudges.next()
  }

  series(code: number, start: number, end: number, channel: number): void {
    if (code >= form.plain) this.#decimals(code, start, end, channel)
    else if (code === form.integer) this.#integers(start, end)
    else if (code < form.integer) this.#each(code, start, end)
    else throw invalid(`forms: unknown form ${code}`)
  }

  end(): void {
    if (this.#otherAt !== Infinity) throw invalid('others: more than it should hold')
    if (this.#nudgeAt !== Infinity) throw invalid('nudges: at no decimal')
    this.#numbers.end()
    this.#doubles.end()
    this.#singles.end()
  }

  #decimals(code: number, start: number, end: number, channel: number): void {
    const isDifference = code >= form.difference
    const e = code - (isDifference ? form.difference : form.plain)
    if (e > maxExponent) throw invalid(`forms: unknown form ${code}`)
    const numbers = this.#numbers
    const into = this.#into
    let scaled = isDifference ? this.#channels.first(channel, code) : 0
    let first = true
    for (let at = start; at < end; at++) {
      if (at === this.#otherAt) {
        this.#takeOther(at)
        continue
      }
      scaled = isDifference ? scaled + numbers.nextSigned() : numbers.nextSigned()
      if (scaled >= scaledLimit || scaled <= -scaledLimit) throw invalid('numbers: over 2^52')
      if (first) {
        this.#channels.began(channel, code, scaled)
        if (!into && this.#skipSmall(at + 1, end, scaled)) return
      }
      first = false
      if (at === this.#nudgeAt) this.#takeNudge(at, unscale(scaled, e))
      else if (into) into[at] = unscale(scaled, e)
    }
  }

  /**
   * Steps over the decimals in [start, end) where none can be out of range: they are plain, or from `scaled`
   * on so few and small that their sum stays clear of the limit. For who checks only, without adding them up.
   */
  #skipSmall(start: number, end: number, scaled: number): boolean {
    if (this.#otherAt < end || this.#nudgeAt < end) return false
    return Math.abs(scaled) < scaledLimit / 2 && this.#numbers.skipSmall(end - start)
  }

  #integers(start: number, end: number): void {
    let before = 0n
    for (let at = start; at < end; at++) {
      if (at === this.#otherAt) {
        before = integerOf(this.#takeOther(at)) ?? before
        continue
      }
      before += BigInt(this.#numbers.nextSigned())
      if (before > maxUint64 || before < minInt64) throw invalid('numbers: over 64 bits')
      const value = before <= maxSafe && before >= -maxSafe ? Number(before) : before
      if (this.#into) this.#into[at] = value
    }
  }

  #each(code: number, start: number, end: number): void {
    for (let at = start; at < end; at++) {
      if (at === this.#otherAt) {
        this.#takeOther(at)
        continue
      }
      let value: Value = null
      if (code === form.boolean) {
        const bit = this.#numbers.next()
        if (bit > 1) throw invalid('numbers: no boolean')
        value = bit === 1
      } else if (code === form.text) {
        const index = this.#numbers.next()
        if (index >= this.#texts.length) throw invalid('numbers: no such text')
        value = this.#texts[index]!
      } else if (code === form.double) value = this.#doubles.next()
      else if (code === form.single) value = this.#singles.next()
      if (this.#into) this.#into[at] = value
    }
  }

  #takeOther(at: number): Value {
    const { value } = this.#others[this.#other++]!
    if (this.#into) this.#into[at] = value
    const next = this.#others[this.#other]
    this.#otherAt = next ? at + 1 + next.gap : Infinity
    return value
  }

  #takeNudge(at: number, value: number): void {
    const nudge = this.#nudges.nextSigned()
    if (Math.abs(nudge) > maxNudge) throw invalid(`nudges: over ${maxNudge}`)
    if (this.#into) this.#into[at] = nudged(value, nudge)
    this.#nudgeAt = this.#nudges.done ? Infinity : at + 1 + this.#nudges.next()
  }
}

const maxUint64 = (1n << 64n) - 1n
const minInt64 = -(1n << 63n)
const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)

export function readTexts(reader: CborReader, max: number): string[] {
  const length = reader.array('texts', 0, max)
  const texts: string[] = []
  for (let i = 0; i < length; i++) texts.push(reader.text('text'))
  return texts
}

export function readOthers(reader: CborReader, max: number): Other[] {
  const length = reader.array('others', 0, max * 2)
  if (length % 2 !== 0) throw invalid('others: an odd number')
  const others: Other[] = []
  for (let i = 0; i < length; i += 2) {
    const gap = reader.int('others: gap', 0, max)
    const value = reader.value()
    if (typeof value === 'object' && value !== null) throw invalid('others: no scalar')
    others.push({ gap, value })
  }
  return others
}
