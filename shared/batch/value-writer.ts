import type { Value } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import type { CborWriter } from './cbor-writer.ts'
import {
  bestExponent,
  nudgeOf,
  scaledLimit,
  scaleExactly,
  scaleNearly,
  unscale,
} from './decimal.ts'
import { floatColumn } from './float.ts'
import { ChannelHistory, form, integerOf, type Other, type ValueColumns } from './values.ts'

/** With more digits than this, floats may take fewer bits. */
const quickExponent = 6
const shortSeries = 8

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

function isSingle(value: Value): boolean {
  return typeof value === 'number' && (Math.fround(value) === value || Number.isNaN(value))
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
