import type { Value } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import type { CborReader, CborWriter } from './cbor.ts'
import { invalid } from './failure.ts'
import { VarintReader } from './varint.ts'

/**
 * Values of an item, series by series, within a series in sequence order: position 0 is the first value
 * of series 0. Each series has a form, one byte in the column `forms`:
 *
 *   0        null, nothing is stored
 *   1        boolean: 0 or 1 in `numbers`
 *   2        text: index into `texts`, in `numbers`
 *   3        float64, in `doubles`
 *   4        float32, in `singles`
 *   5        integer to 64 bits: difference to the value before it in the series, in `numbers`, signed
 *   16 + e   decimal: value · 10^e, in `numbers`, signed
 *   48 + e   decimal: value · 10^e less that of the decimal before it in the series (0 for the first)
 *
 * with 0 ≤ e ≤ 22; value · 10^e is an integer below 2^52, and dividing it by 10^e gives the value
 * exactly. A value that its series' form cannot hold is one of the `others`, a plain CBOR value, and
 * takes no place in its series' column; for form 5 it counts as the value before.
 *
 * `doubles` and `singles` hold big-endian IEEE 754 in planes: the first bytes of all, then the second …
 */
export interface ValueColumns {
  forms: Uint8Array
  numbers: Uint8Array
  doubles: Uint8Array
  singles: Uint8Array
  texts: string[]
  others: Other[]
}
/** `gap` values that fit their form lie between this one and the other before it. */
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
const maxExponent = 22
/** Decimals and differences stay below, so that sums and zigzag codes are exact. */
const decimalLimit = 2 ** 52
const powers = Array.from({ length: maxExponent + 1 }, (_, e) => Number(`1e${e}`))

/**
 * @param values by position
 * @param starts position of each series' first value, and behind the last series the number of values
 */
export function valueColumns(values: readonly Value[], starts: Uint32Array): ValueColumns {
  const seriesCount = starts.length - 1
  const writer = new ValueWriter()
  const forms = new Uint8Array(seriesCount)
  for (let series = 0; series < seriesCount; series++)
    forms[series] = writer.series(values, starts[series]!, starts[series + 1]!)
  return { forms, ...writer.finish() }
}

class ValueWriter {
  readonly #numbers = new ByteWriter()
  readonly #doubles: number[] = []
  readonly #singles: number[] = []
  readonly #texts = new Map<string, number>()
  readonly #others: Other[] = []
  #gap = 0

  /** @returns the form chosen */
  series(values: readonly Value[], start: number, end: number): number {
    const counts = { number: 0, bigint: 0, boolean: 0, string: 0, object: 0 }
    for (let i = start; i < end; i++) counts[typeof values[i] as keyof typeof counts]++
    const most = Math.max(...Object.values(counts))
    if (counts.bigint > 0 && counts.bigint + counts.number >= most)
      return this.#integers(values, start, end)
    if (counts.number === most) return this.#decimalsOrFloats(values, start, end)
    if (counts.string === most) return this.#each(form.text, values, start, end)
    if (counts.boolean === most) return this.#each(form.boolean, values, start, end)
    return this.#each(form.null, values, start, end)
  }

  finish(): Omit<ValueColumns, 'forms'> {
    return {
      numbers: this.#numbers.take(),
      doubles: planes(this.#doubles, 8),
      singles: planes(this.#singles, 4),
      texts: [...this.#texts.keys()],
      others: this.#others,
    }
  }

  #other(value: Value): void {
    this.#others.push({ gap: this.#gap, value })
    this.#gap = 0
  }

  #each(chosen: number, values: readonly Value[], start: number, end: number): number {
    for (let i = start; i < end; i++) {
      const value = values[i]!
      if (chosen === form.text && typeof value === 'string') this.#numbers.varint(this.#text(value))
      else if (chosen === form.boolean && typeof value === 'boolean')
        this.#numbers.varint(value ? 1 : 0)
      else if (chosen === form.double && typeof value === 'number') this.#doubles.push(value)
      else if (chosen === form.single && typeof value === 'number' && isSingle(value))
        this.#singles.push(value)
      else if (chosen !== form.null || value !== null) {
        this.#other(value)
        continue
      }
      this.#gap++
    }
    return chosen
  }

  #text(value: string): number {
    const known = this.#texts.get(value)
    if (known !== undefined) return known
    this.#texts.set(value, this.#texts.size)
    return this.#texts.size - 1
  }

  #integers(values: readonly Value[], start: number, end: number): number {
    let before = 0n
    for (let i = start; i < end; i++) {
      const value = values[i]!
      const exact =
        typeof value === 'bigint'
          ? value
          : Number.isSafeInteger(value) && !Object.is(value, -0)
            ? BigInt(value as number)
            : undefined
      const difference = exact === undefined ? undefined : exact - before
      if (exact !== undefined) before = exact
      if (difference === undefined || difference <= -bigLimit || difference >= bigLimit) {
        this.#other(value)
        continue
      }
      this.#numbers.signed(Number(difference))
      this.#gap++
    }
    return form.integer
  }

  #decimalsOrFloats(values: readonly Value[], start: number, end: number): number {
    const e = bestExponent(values, start, end)
    if (e === undefined) {
      let singles = 0
      for (let i = start; i < end; i++) if (isSingle(values[i]!)) singles++
      return this.#each(singles * 2 > end - start ? form.single : form.double, values, start, end)
    }
    let plainCost = 0
    let differenceCost = 0
    let before = 0
    let steep = false
    for (let i = start; i < end; i++) {
      const scaled = scale(values[i]!, e)
      if (scaled === undefined) continue
      const difference = scaled - before
      if (difference >= decimalLimit || difference <= -decimalLimit) steep = true
      plainCost += Math.log2(1 + Math.abs(scaled))
      differenceCost += Math.log2(1 + Math.abs(difference))
      before = scaled
    }
    const plain = steep || plainCost < differenceCost
    before = 0
    for (let i = start; i < end; i++) {
      const value = values[i]!
      const scaled = scale(value, e)
      if (scaled === undefined) {
        this.#other(value)
        continue
      }
      this.#numbers.signed(plain ? scaled : scaled - before)
      before = scaled
      this.#gap++
    }
    return (plain ? form.plain : form.difference) + e
  }
}

const bigLimit = 1n << 52n

function isSingle(value: Value): boolean {
  return typeof value === 'number' && (Math.fround(value) === value || Number.isNaN(value))
}

/** value · 10^e, if that is an integer that gives the value back. */
function scale(value: Value, e: number): number | undefined {
  if (typeof value !== 'number') return undefined
  const power = powers[e]!
  const scaled = Math.round(value * power)
  if (scaled / power !== value || scaled >= decimalLimit || scaled <= -decimalLimit)
    return undefined
  // −0 has no sign as an integer.
  return scaled === 0 ? (Object.is(value, -0) ? undefined : 0) : scaled
}

/** The exponent that makes the series small, or undefined when floats do. */
function bestExponent(values: readonly Value[], start: number, end: number): number | undefined {
  const fitting = new Uint32Array(maxExponent + 1)
  let guess = 0
  let numbers = 0
  let largest = 0
  for (let i = start; i < end; i++) {
    const value = values[i]!
    if (typeof value !== 'number') continue
    numbers++
    const e = smallestExponent(value, guess)
    if (e === undefined) continue
    guess = e
    fitting[e]!++
    largest = Math.max(largest, Math.abs(value))
  }
  let best: number | undefined
  let bestCost = numbers * 52
  let fits = 0
  for (let e = 0; e <= maxExponent; e++) {
    fits += fitting[e]!
    if (fitting[e] === 0) continue
    const cost = fits * (Math.log2(1 + largest) + e * Math.log2(10)) + (numbers - fits) * 80
    if (cost < bestCost) {
      best = e
      bestCost = cost
    }
  }
  return best
}

function smallestExponent(value: number, guess: number): number | undefined {
  if (scale(value, guess) !== undefined) {
    while (guess > 0 && scale(value, guess - 1) !== undefined) guess--
    return guess
  }
  const magnitude = Math.abs(value)
  for (let e = 0; e <= maxExponent && magnitude * powers[e]! < decimalLimit; e++)
    if (scale(value, e) !== undefined) return e
  return undefined
}

function planes(values: readonly number[], width: 4 | 8): Uint8Array {
  const count = values.length
  const result = new Uint8Array(count * width)
  const view = new DataView(new ArrayBuffer(8))
  for (let i = 0; i < count; i++) {
    if (width === 8) view.setFloat64(0, values[i]!)
    else view.setFloat32(0, values[i]!)
    for (let plane = 0; plane < width; plane++) result[plane * count + i] = view.getUint8(plane)
  }
  return result
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
export function readValues(columns: ValueColumns, starts: Uint32Array, into?: Value[]): void {
  const seriesCount = starts.length - 1
  const { forms, texts, others } = columns
  if (forms.length !== seriesCount) throw invalid('forms: not one for each series')
  const numbers = new VarintReader(columns.numbers, 'numbers')
  const doubles = new PlaneReader(columns.doubles, 8)
  const singles = new PlaneReader(columns.singles, 4)
  let other = 0
  let otherAt = others.length > 0 ? others[0]!.gap : Infinity
  for (let series = 0; series < seriesCount; series++) {
    const code = forms[series]!
    const e = code >= form.difference ? code - form.difference : code - form.plain
    const isDecimal = e >= 0 && e <= maxExponent
    if (!isDecimal && code > form.integer) throw invalid(`forms: unknown form ${code}`)
    const power = isDecimal ? powers[e]! : 1
    const isDifference = code >= form.difference
    let before = 0
    let bigBefore = 0n
    for (let at = starts[series]!, end = starts[series + 1]!; at < end; at++) {
      let value: Value
      if (at === otherAt) {
        value = others[other]!.value
        if (code === form.integer) {
          if (typeof value === 'bigint') bigBefore = value
          else if (Number.isSafeInteger(value)) bigBefore = BigInt(value as number)
        }
        other++
        otherAt = other < others.length ? at + 1 + others[other]!.gap : Infinity
      } else if (isDecimal) {
        const scaled = numbers.nextSigned() + (isDifference ? before : 0)
        if (scaled >= decimalLimit || scaled <= -decimalLimit) throw invalid('numbers: over 2^52')
        before = scaled
        value = scaled / power
      } else if (code === form.null) value = null
      else if (code === form.boolean) {
        const bit = numbers.next()
        if (bit > 1) throw invalid('numbers: no boolean')
        value = bit === 1
      } else if (code === form.text) {
        const index = numbers.next()
        if (index >= texts.length) throw invalid('numbers: no such text')
        value = texts[index]!
      } else if (code === form.double) value = doubles.next()
      else if (code === form.single) value = singles.next()
      else {
        bigBefore += BigInt(numbers.nextSigned())
        if (bigBefore > maxUint64 || bigBefore < minInt64) throw invalid('numbers: over 64 bits')
        value = bigBefore >= -maxSafe && bigBefore <= maxSafe ? Number(bigBefore) : bigBefore
      }
      if (into) into[at] = value
    }
  }
  if (other !== others.length) throw invalid('others: more than it should hold')
  numbers.end()
  doubles.end()
  singles.end()
}

const maxUint64 = (1n << 64n) - 1n
const minInt64 = -(1n << 63n)
const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)

class PlaneReader {
  readonly #bytes: Uint8Array
  readonly #width: 4 | 8
  readonly #count: number
  readonly #view = new DataView(new ArrayBuffer(8))
  #at = 0

  constructor(bytes: Uint8Array, width: 4 | 8) {
    if (bytes.length % width !== 0) throw invalid(`floats: not a multiple of ${width} bytes`)
    this.#bytes = bytes
    this.#width = width
    this.#count = bytes.length / width
  }

  next(): number {
    if (this.#at >= this.#count) throw invalid('floats: ends early')
    for (let plane = 0; plane < this.#width; plane++)
      this.#view.setUint8(plane, this.#bytes[plane * this.#count + this.#at]!)
    this.#at++
    return this.#width === 8 ? this.#view.getFloat64(0) : this.#view.getFloat32(0)
  }

  end(): void {
    if (this.#at !== this.#count) throw invalid('floats: more than it should hold')
  }
}
