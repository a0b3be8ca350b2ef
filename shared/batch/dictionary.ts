import type { Series, SeriesTable } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import type { CborReader } from './cbor-reader.ts'
import type { CborWriter } from './cbor-writer.ts'
import { invalid } from './failure.ts'
import { Scratch } from './scratch.ts'
import { VarintReader } from './varint.ts'

/**
 * The series of an item, in order of first appearance. A series is a source (device and labels) and a
 * channel (metric, unit, how to read between points); both are listed once, and the pairs are a column:
 * per series the source's number less the one before it (signed), and the channel's number.
 */
export interface Dictionary {
  sources: Source[]
  channels: Channel[]
  /** Per series, indexes into the above. */
  sourceOf: Uint16Array
  channelOf: Uint16Array
}
interface Source {
  device: string
  labels: Readonly<Record<string, string>>
}
type Channel = Pick<Series, 'metric' | 'unit' | 'between' | 'epsilon'>

const betweens = ['raw', 'hold', 'linear'] as const
const maxLabels = 64
const column = new ByteWriter()
/** One for all sources that have none: a batch may have as many sources as readings. */
const noLabels: Source['labels'] = Object.freeze({})

export function dictionaryOf(series: readonly Series[]): Dictionary {
  const sources = new Interner<Source>()
  const channels = new Interner<Channel>()
  const sourceOf = new Uint16Array(series.length)
  const channelOf = new Uint16Array(series.length)
  series.forEach((one, i) => {
    sourceOf[i] = sources.index(sourceKey(one), one)
    channelOf[i] = channels.index(channelKey(one), one)
  })
  return { sources: sources.list, channels: channels.list, sourceOf, channelOf }
}

class Interner<Value> {
  readonly list: Value[] = []
  readonly #known = new Map<string, number>()

  index(key: string, value: Value): number {
    let index = this.#known.get(key)
    if (index === undefined) {
      index = this.list.push(value) - 1
      this.#known.set(key, index)
    }
    return index
  }
}

function sourceKey({ device, labels }: Source): string {
  let key = device
  for (const name in labels) key += `\u0000${name}\u0000${labels[name]}`
  return key
}

function channelKey({ metric, unit, between, epsilon }: Channel): string {
  if (unit === undefined && between === 'raw' && epsilon === 0) return metric
  return `${metric}\u0000${unit === undefined ? '-' : `+${unit}`}\u0000${between}\u0000${epsilon}`
}

export function writeSources(writer: CborWriter, sources: readonly Source[]): void {
  writer.array(sources.length)
  for (const { device, labels } of sources) {
    const { length } = Object.keys(labels)
    if (length > maxLabels) throw new RangeError(`${length} labels`)
    if (length === 0) writer.text(device)
    else {
      writer.array(2)
      writer.text(device)
      writer.textMap(labels)
    }
  }
}

export function writeChannels(writer: CborWriter, channels: readonly Channel[]): void {
  writer.array(channels.length)
  for (const { metric, unit, between, epsilon } of channels) {
    const members = between !== 'raw' || epsilon !== 0 ? 4 : unit !== undefined ? 2 : 1
    if (members > 1) writer.array(members)
    writer.text(metric)
    if (members === 1) continue
    if (unit === undefined) writer.null()
    else writer.text(unit)
    if (members === 2) continue
    writer.int(betweens.indexOf(between))
    writer.number(epsilon)
  }
}

/** @returns valid until the next call */
export function seriesColumn({ sourceOf, channelOf }: Dictionary): Uint8Array {
  column.clear()
  let previous = 0
  for (let i = 0; i < sourceOf.length; i++) {
    column.signed(sourceOf[i]! - previous)
    column.varint(channelOf[i]!)
    previous = sourceOf[i]!
  }
  return column.peek()
}

export function readSources(reader: CborReader, max: number): Source[] {
  const length = reader.array('sources', 1, max)
  const sources: Source[] = []
  for (let i = 0; i < length; i++) {
    if (!reader.next('array')) {
      sources.push({ device: reader.text('device'), labels: noLabels })
      continue
    }
    reader.array('source', 2, 2)
    const device = reader.text('device')
    const size = reader.map('labels', maxLabels)
    const labels = new Map<string, string>()
    for (let k = 0; k < size; k++) {
      const name = reader.text('label')
      if (labels.has(name)) throw invalid(`label "${name}" twice`)
      labels.set(name, reader.text('label'))
    }
    sources.push({ device, labels: Object.fromEntries(labels) })
  }
  return sources
}

export function readChannels(reader: CborReader, max: number): Channel[] {
  const length = reader.array('channels', 1, max)
  const channels: Channel[] = []
  for (let i = 0; i < length; i++) {
    if (!reader.next('array')) {
      channels.push({ metric: reader.text('metric'), unit: undefined, between: 'raw', epsilon: 0 })
      continue
    }
    const members = reader.array('channel', 2, 4)
    const metric = reader.text('metric')
    const unit = reader.null() ? undefined : reader.text('unit')
    if (members === 2) {
      channels.push({ metric, unit, between: 'raw', epsilon: 0 })
      continue
    }
    if (members === 3) throw invalid('channel: an array of 3')
    const between = betweens[reader.int('between', 0, 2)]!
    const epsilon = reader.number('epsilon')
    if (epsilon < 0) throw invalid('epsilon: negative')
    channels.push({ metric, unit, between, epsilon })
  }
  return channels
}

const sourceScratch = new Scratch((length) => new Uint16Array(length))
const channelScratch = new Scratch((length) => new Uint16Array(length))

/**
 * @param count readings in the item: there are no more series than that
 * @returns valid until the next call
 */
export function readPairs(
  bytes: Uint8Array,
  sources: Source[],
  channels: Channel[],
  count: number,
): Dictionary {
  const column = new VarintReader(bytes, 'series')
  const sourceOf = sourceScratch.take(count)
  const channelOf = channelScratch.take(count)
  let length = 0
  let source = 0
  while (!column.done) {
    source += column.nextSigned()
    const channel = column.next()
    if (!(source >= 0 && source < sources.length)) throw invalid('series: no such source')
    if (channel >= channels.length) throw invalid('series: no such channel')
    if (length === count) throw invalid('series: more than readings')
    sourceOf[length] = source
    channelOf[length] = channel
    length += 1
  }
  return {
    sources,
    channels,
    sourceOf: length === count ? sourceOf : sourceOf.subarray(0, length),
    channelOf: length === count ? channelOf : channelOf.subarray(0, length),
  }
}

export function internSeries(dictionary: Dictionary, table: SeriesTable): Series[] {
  const series: Series[] = []
  for (let i = 0; i < dictionary.sourceOf.length; i++) {
    const { device, labels } = dictionary.sources[dictionary.sourceOf[i]!]!
    const { metric, unit, between, epsilon } = dictionary.channels[dictionary.channelOf[i]!]!
    series.push(table.intern(device, metric, { unit, labels, between, epsilon }))
  }
  return series
}
