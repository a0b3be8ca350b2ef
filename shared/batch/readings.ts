import type { AdmittedReading, Arrival, Series, SeriesTable, Value } from '../reading.ts'
import { type CborReader, CborWriter } from './cbor.ts'
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
import { arrivalColumn, maxQuality, qualityColumn, readArrivals, readQualities } from './runs.ts'
import { maxTimeMs, readTimes, type TimeColumns, timeColumns } from './times.ts'
import {
  type Other,
  readOthers,
  readTexts,
  readValues,
  type ValueColumns,
  valueColumns,
  writeOthers,
  writeTexts,
} from './values.ts'

/** Keys of a readings item's body. Empty columns and integers that have their default are left out. */
const key = {
  from: 0,
  span: 1,
  sources: 2,
  channels: 3,
  series: 4,
  order: 5,
  tick: 6,
  step: 7,
  pace: 8,
  sharing: 9,
  steps: 10,
  nanoTick: 11,
  nanos: 12,
  forms: 13,
  numbers: 14,
  nudges: 15,
  doubles: 16,
  singles: 17,
  texts: 18,
  others: 19,
  qualities: 20,
  perMs: 21,
  arrivals: 22,
} as const
const lastKey = key.arrivals

/** Readings in one item. */
export const maxReadings = 50_000

const fields = new CborWriter()

/** Writes the body, a map, behind an item's kind and count. */
export function writeReadings(writer: CborWriter, readings: readonly AdmittedReading[]): void {
  const count = readings.length
  const indexes = new Map<Series, number>()
  const seriesOf = new Uint16Array(count)
  const ms = new Float64Array(count)
  const nanos = new Float64Array(count)
  const qualities = new Int32Array(count)
  const arrivals: Arrival[] = new Array(count)
  let from = Infinity
  let to = -Infinity
  for (let i = 0; i < count; i++) {
    const reading = readings[i]!
    let index = indexes.get(reading.series)
    if (index === undefined) {
      index = indexes.size
      indexes.set(reading.series, index)
    }
    seriesOf[i] = index
    const { timeMs, timeNanos, quality } = reading
    if (!isWithin(timeMs, -maxTimeMs, maxTimeMs) || !isWithin(timeNanos, 0, 999_999))
      throw new RangeError(`a time of ${timeMs} ms and ${timeNanos} ns`)
    if (!isWithin(quality, 0, maxQuality)) throw new RangeError(`a quality of ${quality}`)
    if (timeMs < from) from = timeMs
    if (timeMs > to) to = timeMs
    ms[i] = timeMs
    nanos[i] = timeNanos
    qualities[i] = quality
    arrivals[i] = reading.arrival
  }
  const dictionary = dictionaryOf([...indexes.keys()])
  const starts = startsOf(seriesOf, indexes.size)
  const slots = starts.slice()
  const values: Value[] = new Array(count)
  for (let i = 0; i < count; i++) values[slots[seriesOf[i]!]!++] = readings[i]!.value

  const times = timeColumns(ms, nanos, seriesOf, dictionary.sourceOf, from)
  const columns = valueColumns(values, starts, dictionary.channelOf)
  const arrived = arrivalColumn(arrivals, from)

  fields.clear()
  let size = 0
  const integer = (field: number, value: number, usual = 0) => {
    if (value === usual) return
    size++
    fields.int(field)
    fields.int(value)
  }
  const bytes = (field: number, value: Uint8Array) => {
    if (value.length === 0) return
    size++
    fields.int(field)
    fields.bytes(value)
  }
  const list = (field: number, length: number, write: () => void) => {
    if (length === 0) return
    size++
    fields.int(field)
    write()
  }
  integer(key.from, from)
  integer(key.span, to - from)
  list(key.sources, 1, () => writeSources(fields, dictionary.sources))
  list(key.channels, 1, () => writeChannels(fields, dictionary.channels))
  bytes(key.series, seriesColumn(dictionary))
  bytes(key.order, orderColumn(seriesOf, indexes.size))
  integer(key.tick, times.tick, 1)
  integer(key.step, times.step)
  integer(key.pace, times.pace)
  bytes(key.sharing, times.sharing)
  bytes(key.steps, times.steps)
  integer(key.nanoTick, times.nanoTick)
  bytes(key.nanos, times.nanos)
  bytes(key.forms, columns.forms)
  bytes(key.numbers, columns.numbers)
  bytes(key.nudges, columns.nudges)
  bytes(key.doubles, columns.doubles)
  bytes(key.singles, columns.singles)
  list(key.texts, columns.texts.length, () => writeTexts(fields, columns.texts))
  list(key.others, columns.others.length, () => writeOthers(fields, columns.others))
  bytes(key.qualities, qualityColumn(qualities))
  integer(key.perMs, arrived.perMs, 1)
  bytes(key.arrivals, arrived.runs)
  writer.map(size)
  writer.embed(fields)
}

function isWithin(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max
}

/** Position of each series' first value, and behind the last series the number of values. */
function startsOf(seriesOf: Uint16Array, seriesCount: number): Uint32Array {
  const starts = new Uint32Array(seriesCount + 1)
  for (let i = 0; i < seriesOf.length; i++) starts[seriesOf[i]! + 1]!++
  for (let series = 0; series < seriesCount; series++) starts[series + 1]! += starts[series]!
  return starts
}

const none: Uint8Array = new Uint8Array(0)

/** A body as it lies in the bytes: columns not yet decoded. */
interface Body {
  count: number
  from: number
  span: number
  dictionary: Dictionary
  order: Uint8Array
  times: TimeColumns
  values: ValueColumns
  qualities: Uint8Array
  perMs: number
  arrivals: Uint8Array
}

function readBody(reader: CborReader, count: number): Body {
  let sources: Dictionary['sources'] = []
  let channels: Dictionary['channels'] = []
  let series = none
  let texts: string[] = []
  let others: Other[] = []
  const integers = { from: 0, span: 0, tick: 1, step: 0, pace: 0, nanoTick: 0, perMs: 1 }
  const columns = {
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
  reader.fields('readings', lastKey, (field) => {
    switch (field) {
      case key.from:
        integers.from = reader.int('from', -maxTimeMs, maxTimeMs)
        break
      case key.span:
        integers.span = reader.int('span', 0, 2 * maxTimeMs)
        break
      case key.sources:
        sources = readSources(reader, count)
        break
      case key.channels:
        channels = readChannels(reader, count)
        break
      case key.series:
        series = reader.bytes('series')
        break
      case key.tick:
        integers.tick = reader.int('tick', 1, 2 * maxTimeMs)
        break
      case key.step:
        integers.step = reader.int('step', -2 * maxTimeMs, 2 * maxTimeMs)
        break
      case key.pace:
        integers.pace = reader.int('pace', 0, 2)
        break
      case key.nanoTick:
        integers.nanoTick = reader.int('nanoTick', 1, 999_999)
        break
      case key.perMs:
        integers.perMs = reader.int('perMs', 1, 1000)
        break
      case key.texts:
        texts = readTexts(reader, count)
        break
      case key.others:
        others = readOthers(reader, count)
        break
      default: {
        const name = columnNames.get(field)
        if (!name) throw invalid(`readings: unknown key ${field}`)
        columns[name] = reader.bytes(name)
      }
    }
  })
  if (integers.perMs !== 1 && integers.perMs !== 1000) throw invalid('perMs: neither 1 nor 1000')
  const { from, span, tick, step, nanoTick, perMs } = integers
  const { order, sharing, steps, nanos, forms, numbers, nudges, doubles, singles } = columns
  return {
    count,
    from,
    span,
    dictionary: readPairs(series, sources, channels, count),
    order,
    times: { tick, nanoTick, step, pace: integers.pace, sharing, steps, nanos },
    values: { forms, numbers, nudges, doubles, singles, texts, others },
    qualities: columns.qualities,
    perMs,
    arrivals: columns.arrivals,
  }
}

const columnNames = new Map(
  (
    [
      'order',
      'sharing',
      'steps',
      'nanos',
      'forms',
      'numbers',
      'nudges',
      'doubles',
      'singles',
      'qualities',
      'arrivals',
    ] as const
  ).map((name) => [key[name], name] as const),
) as Map<
  number,
  | 'order'
  | 'sharing'
  | 'steps'
  | 'nanos'
  | 'forms'
  | 'numbers'
  | 'nudges'
  | 'doubles'
  | 'singles'
  | 'qualities'
  | 'arrivals'
>

/** Every column decoded, in sequence order; values only with `into`. */
function readColumns(body: Body, build: boolean) {
  const { count, from, span, dictionary } = body
  const { sourceOf } = dictionary
  const seriesOf = readOrder(body.order, count, sourceOf.length)
  const times = readTimes(body.times, seriesOf, sourceOf, from)
  let earliest = Infinity
  let latest = -Infinity
  for (const ms of times.ms) {
    if (ms < earliest) earliest = ms
    if (ms > latest) latest = ms
  }
  if (earliest !== from || latest !== from + span)
    throw invalid('from and span: not those of the times')
  const starts = startsOf(seriesOf, sourceOf.length)
  const values: Value[] | undefined = build ? new Array(count) : undefined
  readValues(body.values, starts, dictionary.channelOf, values)
  const qualities = readQualities(body.qualities, count)
  const arrived = readArrivals({ perMs: body.perMs, runs: body.arrivals }, count, from)
  return { seriesOf, times, starts, values, qualities, arrived }
}

export function readReadings(
  reader: CborReader,
  count: number,
  table: SeriesTable,
): AdmittedReading[] {
  const body = readBody(reader, count)
  const { seriesOf, times, starts, values, qualities, arrived } = readColumns(body, true)
  const series = internSeries(body.dictionary, table)
  const readings: AdmittedReading[] = []
  let i = 0
  arrived.arrivals.forEach((arrival, run) => {
    for (const end = i + arrived.counts[run]!; i < end; i++) {
      const index = seriesOf[i]!
      readings.push({
        series: series[index]!,
        timeMs: times.ms[i]!,
        timeNanos: times.nanos ? times.nanos[i]! : 0,
        value: values![starts[index]!++]!,
        quality: qualities[i]!,
        arrival,
      })
    }
  })
  return readings
}

/** Checks all of a body without building readings. */
export function checkReadings(reader: CborReader, count: number): { fromMs: number; toMs: number } {
  const body = readBody(reader, count)
  readColumns(body, false)
  return { fromMs: body.from, toMs: body.from + body.span }
}

/** Reads only a body's time range, and steps over the rest. */
export function readingsRange(reader: CborReader): { fromMs: number; toMs: number } {
  let from = 0
  let span = 0
  reader.fields('readings', lastKey, (field) => {
    if (field === key.from) from = reader.int('from', -maxTimeMs, maxTimeMs)
    else if (field === key.span) span = reader.int('span', 0, 2 * maxTimeMs)
    else reader.skip()
  })
  return { fromMs: from, toMs: from + span }
}
