import type { Value } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import type { CborReader, CborWriter } from './cbor.ts'
import {
  bestExponent,
  maxExponent,
  maxNudge,
  nudged,
  nudgeOf,
  scaledLimit,
  scaleExactly,
  scaleNearly,
  unscale,
} from './decimal.ts'
import { invalid } from './failure.ts'
import { FloatReader, floatColumn } from './float.ts'
import { VarintReader } from './varint.ts'

/**
 * Values of an item, series by series, within a series in sequence order: position 0 is the first value
 * of series 0. Each series has a form, one byte in the column `forms`:
 *
 *   0        null: nothing is stored
 *   1        boolean: 0 or 1, in `numbers`
 *   2        text: index into `texts`, in `numbers`
 *   3        float64, in `doubles`
 *   4        float32, in `singles`
 *   5        integer to 64 bits: less the one before it in the series (0 for the first), in `numbers`, signed
 *   16 + e   decimal, plain: value · 10^e, in `numbers`, signed
 *   48 + e   decimal, difference: value · 10^e less that of the decimal before it in the series, in
 *            `numbers`, signed; the first less the first of the last series before with the same channel
 *            if that had the same form, and otherwise less 0
 *
 * with 0 ≤ e ≤ 22; value · 10^e is an integer below 2^52, and dividing it by 10^e gives the value.
 * A decimal whose position is in `nudges` is some units in the last place off: its 64 bits, read as an
 * integer, are that much more. `nudges` holds pairs: positions between this one and the one before, and
 * the nudge, signed.
 *
 * A value that its series' form cannot hold is one of the `others`: pairs of positions between this and
 * the one before, and the value in plain CBOR. It takes no place in its series' column; an integer
 * among them counts as the one before in form 5.
 */
export interface ValueColumns {
  forms: Uint8Array
  numbers: Uint8Array
  nudges: Uint8Array
  doubles: Uint8Array
  singles: Uint8Array
  texts: string[]
  others: Other[]
}
export interface Other {
  gap: number
  value: Value
}

const form = {
  null: 0,
  boolean: 1,
  text: 2,
  double: 3,
  single: 4,
  integer: 5,
  plain: 16,
  difference: 48,
} as const
const wideLimit = BigInt(scaledLimit)

const numberBytes = new ByteWriter()
const nudgeBytes = new ByteWriter()

/**
 * @param values by position
 * @param starts position of each series' first value, and behind the last series the number of values
 * @param channelOf per series
 * @returns columns that are valid until the next call
 */
export function valueColumns(
  values: readonly Value[],
  starts: Uint32Array,
  channelOf: Uint16Array,
): ValueColumns {
  const writer = new ValueWriter(values, channelOf)
  const forms = new Uint8Array(channelOf.length)
  for (let series = 0; series < forms.length; series++)
    forms[series] = writer.series(starts[series]!, starts[series + 1]!, channelOf[series]!)
  return { forms, ...writer.finish() }
}

class ValueWriter {
  readonly #values: readonly Value[]
  /** The decimals among them, scaled; NaN elsewhere. */
  readonly #scaled: Float64Array
  readonly #doubles: number[] = []
  readonly #singles: number[] = []
  readonly #texts = new Map<string, number>()
  readonly #others: Other[] = []
  readonly #channels: ChannelHistory
  #nextNudge = 0
  #nextOther = 0

  constructor(values: readonly Value[], channelOf: Uint16Array) {
    this.#values = values
    this.#scaled = new Float64Array(values.length)
    this.#channels = new ChannelHistory(channelOf)
    numberBytes.clear()
    nudgeBytes.clear()
  }

  /** @returns the form chosen */
  series(start: number, end: number, channel: number): number {
    const values = this.#values
    let numbers = 0
    let wide = 0
    let texts = 0
    let booleans = 0
    for (let i = start; i < end; i++) {
      const type = typeof values[i]
      if (type === 'number') numbers++
      else if (type === 'bigint') wide++
      else if (type === 'string') texts++
      else if (type === 'boolean') booleans++
    }
    const nulls = end - start - numbers - wide - texts - booleans
    if (numbers + wide >= Math.max(texts, booleans, nulls))
      return wide > 0 && this.#areIntegers(start, end)
        ? this.#integers(start, end)
        : this.#decimals(start, end, channel)
    if (texts >= Math.max(booleans, nulls)) return this.#each(form.text, start, end)
    return this.#each(booleans >= nulls ? form.boolean : form.null, start, end)
  }

  finish(): Omit<ValueColumns, 'forms'> {
    return {
      numbers: numberBytes.peek(),
      nudges: nudgeBytes.peek(),
      doubles: floatColumn(this.#doubles, 8),
      singles: floatColumn(this.#singles, 4),
      texts: [...this.#texts.keys()],
      others: this.#others,
    }
  }

  #decimals(start: number, end: number, channel: number): number {
    const e = this.#chooseExponent(start, end, channel)
    if (e === undefined) return this.#floats(start, end)
    const base = this.#channels.first(channel, form.difference + e)
    let plainSum = 0
    let differenceSum = 0
    let steepest = 0
    let before = base
    for (let i = start; i < end; i++) {
      const value = this.#values[i]
      const scaled = typeof value === 'number' ? scaleNearly(value, e) : Number.NaN
      this.#scaled[i] = scaled
      if (Number.isNaN(scaled)) continue
      const difference = Math.abs(scaled - before)
      plainSum += Math.abs(scaled)
      differenceSum += difference
      if (difference > steepest) steepest = difference
      before = scaled
    }
    const isPlain = steepest >= scaledLimit || plainSum < differenceSum
    const chosen = (isPlain ? form.plain : form.difference) + e
    let isFirst = true
    before = isPlain ? 0 : base
    for (let i = start; i < end; i++) {
      const scaled = this.#scaled[i]!
      const value = this.#values[i]!
      if (Number.isNaN(scaled)) {
        this.#other(i, value)
        continue
      }
      numberBytes.signed(scaled - before)
      if (unscale(scaled, e) !== value) this.#nudge(i, nudgeOf(value as number, scaled, e))
      if (isFirst) this.#channels.began(channel, chosen, scaled)
      isFirst = false
      if (!isPlain) before = scaled
    }
    return chosen
  }

  #chooseExponent(start: number, end: number, channel: number): number | undefined {
    const values = this.#values
    const code = this.#channels.code(channel)
    const e = code >= form.difference ? code - form.difference : Math.max(0, code - form.plain)
    if (code >= form.plain && e <= quickExponent) {
      // Nearly always what served the channel's last series serves this one, and no smaller one does;
      // a short series may just happen to end in zeros.
      let needed = e === 0 || end - start < shortSeries
      let i = start
      while (i < end) {
        const value = values[i]
        if (typeof value !== 'number' || Number.isNaN(scaleExactly(value, e))) break
        if (!needed) needed = Number.isNaN(scaleExactly(value, e - 1))
        i++
      }
      if (i === end && needed) return e
    }
    const numbers: number[] = []
    for (let i = start; i < end; i++) {
      const value = values[i]
      if (typeof value === 'number') numbers.push(value)
    }
    return bestExponent(numbers, e)
  }

  #floats(start: number, end: number): number {
    let singles = 0
    for (let i = start; i < end; i++) if (isSingle(this.#values[i]!)) singles++
    return this.#each(singles * 2 > end - start ? form.single : form.double, start, end)
  }

  #areIntegers(start: number, end: number): boolean {
    for (let i = start; i < end; i++) {
      const value = this.#values[i]
      if (typeof value === 'number' && !Number.isSafeInteger(value)) return false
    }
    return true
  }

  #integers(start: number, end: number): number {
    let before = 0n
    for (let i = start; i < end; i++) {
      const value = this.#values[i]!
      const exact = integerOf(value)
      const difference = exact === undefined ? wideLimit : exact - before
      if (exact !== undefined) before = exact
      if (difference < wideLimit && difference > -wideLimit) numberBytes.signed(Number(difference))
      else this.#other(i, value)
    }
    return form.integer
  }

  #each(chosen: number, start: number, end: number): number {
    for (let i = start; i < end; i++) {
      const value = this.#values[i]!
      if (chosen === form.text && typeof value === 'string') numberBytes.varint(this.#text(value))
      else if (chosen === form.boolean && typeof value === 'boolean')
        numberBytes.varint(value ? 1 : 0)
      else if (chosen === form.double && typeof value === 'number') this.#doubles.push(value)
      else if (chosen === form.single && isSingle(value)) this.#singles.push(value as number)
      else if (chosen !== form.null || value !== null) this.#other(i, value)
    }
    return chosen
  }

  #text(value: string): number {
    const known = this.#texts.get(value)
    if (known !== undefined) return known
    this.#texts.set(value, this.#texts.size)
    return this.#texts.size - 1
  }

  #nudge(at: number, nudge: number): void {
    nudgeBytes.varint(at - this.#nextNudge)
    nudgeBytes.signed(nudge)
    this.#nextNudge = at + 1
  }

  #other(at: number, value: Value): void {
    this.#others.push({ gap: at - this.#nextOther, value })
    this.#nextOther = at + 1
  }
}

/** With more digits than this, floats may take fewer bits. */
const quickExponent = 6
const shortSeries = 8

/** Form and first decimal of each channel's last series. */
class ChannelHistory {
  readonly #codes: Uint8Array
  readonly #firsts: Float64Array

  constructor(channelOf: Uint16Array) {
    let channels = 0
    for (const channel of channelOf) if (channel >= channels) channels = channel + 1
    this.#codes = new Uint8Array(channels)
    this.#firsts = new Float64Array(channels)
  }

  code(channel: number): number {
    return this.#codes[channel]!
  }

  /** What the first decimal of a series counts from. */
  first(channel: number, code: number): number {
    return this.#codes[channel] === code ? this.#firsts[channel]! : 0
  }

  began(channel: number, code: number, scaled: number): void {
    this.#codes[channel] = code
    this.#firsts[channel] = scaled
  }
}

function isSingle(value: Value): boolean {
  return typeof value === 'number' && (Math.fround(value) === value || Number.isNaN(value))
}

function integerOf(value: Value): bigint | undefined {
  if (typeof value === 'bigint') return value
  return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value as number) : undefined
}

export function writeTexts(writer: CborWriter, texts: readonly string[]): void {
  writer.array(texts.length)
  for (const text of texts) writer.text(text)
}

export function writeOthers(writer: CborWriter, others: readonly Other[]): void {
  writer.array(others.length * 2)
  for (const { gap, value } of others) {
    writer.int(gap)
    writer.value(value)
  }
}

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
      if (first) this.#channels.began(channel, code, scaled)
      first = false
      const value = unscale(scaled, e)
      if (at === this.#nudgeAt) this.#takeNudge(at, value)
      else if (into) into[at] = value
    }
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
