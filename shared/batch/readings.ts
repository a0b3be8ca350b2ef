import type { AdmittedReading, Arrival, Series, SeriesTable, Value } from '../reading.ts'
import type { CborReader } from './cbor-reader.ts'
import type { CborWriter } from './cbor-writer.ts'
import {
  type Dictionary,
  dictionaryOf,
  internSeries,
  readChannels,
  readPairs,
  readSources,
  seriesColumn,
  writeChannels,
  writeSources,
} from './dictionary.ts'
import { invalid } from './failure.ts'
import { orderColumn, readOrder } from './order.ts'
import {
  type ArrivalRun,
  arrivalColumn,
  maxQuality,
  qualityColumn,
  readArrivals,
  readQualities,
} from './runs.ts'
import { Scratch } from './scratch.ts'
import { maxTimeMs, paces, readTimes, type Times, timeColumns } from './times.ts'
import { readOthers, readTexts, readValues } from './value-reader.ts'
import { valueColumns, writeOthers, writeTexts } from './value-writer.ts'
import type { Other } from './values.ts'

/** Readings in one item. */
export const maxReadings = 50_000

/** Members of a body. The place in this list is the key on the wire: never move one, only add. */
const names = [
  'from',
  'span',
  'sources',
  'channels',
  'series',
  'order',
  'tick',
  'step',
  'pace',
  'sharing',
  'steps',
  'nanoTick',
  'nanos',
  'forms',
  'numbers',
  'nudges',
  'doubles',
  'singles',
  'texts',
  'others',
  'qualities',
  'perMs',
  'arrivals',
] as const
type Name = (typeof names)[number]
type IntegerName = 'from' | 'span' | 'tick' | 'step' | 'pace' | 'nanoTick' | 'perMs'
type ListName = 'sources' | 'channels' | 'texts' | 'others'
type ColumnName = Exclude<Name, IntegerName | ListName>

/** Left out where they have this value. */
const usual: Readonly<Record<IntegerName, number>> = {
  from: 0,
  span: 0,
  tick: 1,
  step: 0,
  pace: paces.steady,
  nanoTick: 0,
  perMs: 1,
}
const ranges: Readonly<Record<IntegerName, readonly [min: number, max: number]>> = {
  from: [-maxTimeMs, maxTimeMs],
  span: [0, 2 * maxTimeMs],
  tick: [1, 2 * maxTimeMs],
  step: [-2 * maxTimeMs, 2 * maxTimeMs],
  pace: [paces.steady, paces.adaptive],
  nanoTick: [0, 999_999],
  perMs: [1, 1000],
}
const none: Uint8Array = new Uint8Array(0)
/** Left out where they are empty. */
const noColumns: Readonly<Record<ColumnName, Uint8Array>> = {
  series: none,
  order: none,
  sharing: none,
  steps: none,
  nanos: none,
  forms: none,
  numbers: none,
  nudges: none,
  doubles: none,
  singles: none,
  qualities: none,
  arrivals: none,
}

/** A body as it lies in the bytes: columns not decoded yet. */
interface Body {
  integers: Record<IntegerName, number>
  columns: Record<ColumnName, Uint8Array>
  dictionary: Dictionary
  texts: string[]
  others: Other[]
}

const seriesScratch = new Scratch((length) => new Uint16Array(length))
const startScratch = new Scratch((length) => new Uint32Array(length))
const slotScratch = new Scratch((length) => new Uint32Array(length))
const msScratch = new Scratch((length) => new Float64Array(length))
const nanosScratch = new Scratch((length) => new Float64Array(length))
const qualityScratch = new Scratch((length) => new Int32Array(length))

/**
 * Writes the body of an item.
 *
 * @throws RangeError for a time, quality or arrival that the columns cannot hold
 */
export function writeReadings(writer: CborWriter, readings: readonly AdmittedReading[]): void {
  const count = readings.length
  const indexes = new Map<Series, number>()
  const seriesOf = seriesScratch.take(count)
  const ms = msScratch.take(count)
  const nanos = nanosScratch.take(count)
  const qualities = qualityScratch.take(count)
  const arrivals: Arrival[] = new Array(count)
  let from = Infinity
  let to = -Infinity
  for (let i = 0; i < count; i++) {
    const { series, timeMs, timeNanos, quality, arrival } = readings[i]!
    if (!isWithin(timeMs, -maxTimeMs, maxTimeMs) || !isWithin(timeNanos, 0, 999_999))
      throw new RangeError(`a time of ${timeMs} ms and ${timeNanos} ns`)
    if (!isWithin(quality, 0, maxQuality)) throw new RangeError(`a quality of ${quality}`)
    let index = indexes.get(series)
    if (index === undefined) {
      index = indexes.size
      indexes.set(series, index)
    }
    seriesOf[i] = index
    if (timeMs < from) from = timeMs
    if (timeMs > to) to = timeMs
    ms[i] = timeMs
    nanos[i] = timeNanos
    qualities[i] = quality
    arrivals[i] = arrival
  }
  const dictionary = dictionaryOf([...indexes.keys()])
  const starts = startsOf(seriesOf, indexes.size)
  const slots = slotScratch.take(starts.length)
  slots.set(starts)
  const values: Value[] = new Array(count)
  for (let i = 0; i < count; i++) values[slots[seriesOf[i]!]!++] = readings[i]!.value

  const { tick, step, pace, nanoTick, ...timed } = timeColumns(
    ms,
    nanos,
    seriesOf,
    dictionary.sourceOf,
    from,
  )
  const { texts, others, ...valued } = valueColumns(values, starts, dictionary.channelOf)
  const { perMs, runs } = arrivalColumn(arrivals, from)
  writeBody(writer, {
    integers: { from, span: to - from, tick, step, pace, nanoTick, perMs },
    columns: {
      series: seriesColumn(dictionary),
      order: orderColumn(seriesOf, indexes.size),
      ...timed,
      ...valued,
      qualities: qualityColumn(qualities),
      arrivals: runs,
    },
    dictionary,
    texts,
    others,
  })
}

function isWithin(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max
}

function startsOf(seriesOf: Uint16Array, seriesCount: number): Uint32Array {
  const counts = startScratch.take(seriesCount + 1).fill(0)
  for (let i = 0; i < seriesOf.length; i++) counts[seriesOf[i]! + 1]!++
  return addUp(counts)
}

/**
 * Makes of how many values each series has, at its number plus one, the position of each series' first value, and
 * behind the last series the number of values.
 */
function addUp(counts: Uint32Array): Uint32Array {
  for (let series = 1; series < counts.length; series++) counts[series]! += counts[series - 1]!
  return counts
}

function writeBody(writer: CborWriter, { integers, columns, dictionary, texts, others }: Body) {
  const members: Record<Name, number | Uint8Array | readonly unknown[]> = {
    ...integers,
    ...columns,
    sources: dictionary.sources,
    channels: dictionary.channels,
    texts,
    others,
  }
  let size = 0
  for (const name of names) if (isThere(name, members[name])) size++
  writer.map(size)
  for (let key = 0; key < names.length; key++) {
    const name = names[key]!
    const member = members[name]
    if (!isThere(name, member)) continue
    writer.int(key)
    if (typeof member === 'number') writer.int(member)
    else if (member instanceof Uint8Array) writer.bytes(member)
    else if (name === 'sources') writeSources(writer, dictionary.sources)
    else if (name === 'channels') writeChannels(writer, dictionary.channels)
    else if (name === 'texts') writeTexts(writer, texts)
    else writeOthers(writer, others)
  }
}

function isThere(name: Name, member: number | { length: number }): boolean {
  return typeof member === 'number' ? member !== usual[name as IntegerName] : member.length > 0
}

function isInteger(name: Name): name is IntegerName {
  return name in usual
}

function isColumn(name: Name): name is ColumnName {
  return name in noColumns
}

function readBody(reader: CborReader, count: number): Body {
  const integers = { ...usual }
  const columns = { ...noColumns }
  let sources: Dictionary['sources'] = []
  let channels: Dictionary['channels'] = []
  let texts: string[] = []
  let others: Other[] = []
  reader.fields('readings', names.length - 1, (key) => {
    const name = names[key]!
    if (isInteger(name)) integers[name] = reader.int(name, ...ranges[name])
    else if (isColumn(name)) columns[name] = reader.bytes(name)
    else if (name === 'sources') sources = readSources(reader, count)
    else if (name === 'channels') channels = readChannels(reader, count)
    else if (name === 'texts') texts = readTexts(reader, count)
    else others = readOthers(reader, count)
  })
  const dictionary = readPairs(columns.series, sources, channels, count)
  return { integers, columns, dictionary, texts, others }
}

/** Takes what the columns hold, in sequence order but for the values. */
interface Decoded {
  times: Times
  /** By position. */
  values: Value[]
  qualities: Int32Array
  arrived: ArrivalRun[]
}

/**
 * @param into takes what is read; without it that is checked only
 * @returns which series each reading belongs to, and the position of each series' first value
 * @throws WireFailure unless every column holds exactly what `count` readings need
 */
function decode(
  body: Body,
  count: number,
  into?: Decoded,
): { seriesOf: Uint16Array; starts: Uint32Array } {
  const { integers, columns, dictionary, texts, others } = body
  const { from, span, tick, step, pace, nanoTick, perMs } = integers
  const { sourceOf, channelOf } = dictionary
  const { seriesOf, counts } = readOrder(columns.order, count, sourceOf.length)
  const starts = addUp(counts)
  const { sharing, steps, nanos } = columns
  const timed = { tick, step, pace, nanoTick, sharing, steps, nanos }
  const { earliestMs, latestMs } = readTimes(timed, seriesOf, sourceOf, from, into?.times)
  if (earliestMs !== from || latestMs !== from + span)
    throw invalid('from and span: not of these times')
  readValues({ ...columns, texts, others }, starts, channelOf, into?.values)
  readQualities(columns.qualities, count, into?.qualities)
  readArrivals({ perMs, runs: columns.arrivals }, count, from, into?.arrived)
  return { seriesOf, starts }
}

/** @throws WireFailure */
export function readReadings(
  reader: CborReader,
  count: number,
  table: SeriesTable,
): AdmittedReading[] {
  const body = readBody(reader, count)
  const times = { ms: msScratch.take(count), nanos: nanosScratch.take(count) }
  const values: Value[] = new Array(count)
  const qualities = qualityScratch.take(count)
  const arrived: ArrivalRun[] = []
  const { seriesOf, starts } = decode(body, count, { times, values, qualities, arrived })
  const series = internSeries(body.dictionary, table)
  const readings: AdmittedReading[] = []
  let i = 0
  for (const run of arrived) {
    for (const end = i + run.count; i < end; i++) {
      const index = seriesOf[i]!
      readings.push({
        series: series[index]!,
        timeMs: times.ms[i]!,
        timeNanos: times.nanos[i]!,
        value: values[starts[index]!++]!,
        quality: qualities[i]!,
        arrival: run.arrival,
      })
    }
  }
  return readings
}

/** Times that an item's readings lie between, inclusive. */
export interface TimeRange {
  fromMs: number
  toMs: number
}

/** Checks all of a body without building readings. @throws WireFailure */
export function checkReadings(reader: CborReader, count: number): TimeRange {
  const body = readBody(reader, count)
  decode(body, count)
  return rangeOf(body.integers)
}

/** Reads only a body's time range, and steps over the rest unseen. @throws WireFailure */
export function readingsRange(reader: CborReader): TimeRange {
  const integers = { from: usual.from, span: usual.span }
  reader.fields('readings', names.length - 1, (key) => {
    const name = names[key]!
    if (name === 'from' || name === 'span') integers[name] = reader.int(name, ...ranges[name])
    else reader.step()
  })
  return rangeOf(integers)
}

function rangeOf({ from, span }: { from: number; span: number }): TimeRange {
  return { fromMs: from, toMs: from + span }
}
