import {
  chainItem,
  decodeItem,
  encodeItem,
  type Gap,
  type GapReason,
  type Item,
  itemCount,
  readingsOf,
} from '../../shared/batch.ts'
import type { Chain } from '../../shared/chain.ts'
import type { AdmittedReading, Lane } from '../../shared/reading.ts'
import type { Admission } from '../filter/filter.ts'
import type { Entry } from './entry.ts'

/** Readings in one entry; an entry is never larger than a batch may be. */
const maxEntryReadings = 5_000
const maxEntryBytes = 256 * 1024
const maxGapSeries = 1_000

/** Consecutive readings of one lane that count alike in the ledger. */
export interface Run {
  lane: Admission['lane']
  derived: boolean
  readings: AdmittedReading[]
}

/** The runs of all lanes; those of one lane in their order. */
export function runsOf(admitted: readonly Admission[]): Run[] {
  const runs: Run[] = []
  const last: Partial<Record<Lane, Run>> = {}
  let run: Run | undefined
  for (const { lane, reading, derived = false } of admitted) {
    if (run?.lane !== lane) run = last[lane]
    if (run?.derived !== derived) {
      run = { lane, derived, readings: [] }
      last[lane] = run
      runs.push(run)
    }
    run.readings.push(reading)
  }
  return runs
}

/** Encodes an item in as many pieces as keep each within what a batch may be. */
export function* encodeBounded(item: Item): Iterable<{ item: Item; bytes: Uint8Array }> {
  const count = itemCount(item)
  if (item.kind === 'gap') yield { item, bytes: encodeItem(item) }
  else if (count > maxEntryReadings) yield* halves(item)
  else {
    const bytes = count === 1 ? encodeItem(item) : encodeWhole(item)
    if (!bytes || (bytes.length > maxEntryBytes && count > 1)) yield* halves(item)
    else yield { item, bytes }
  }
}

/** Undefined for more than one item may hold. */
function encodeWhole(item: Item): Uint8Array | undefined {
  try {
    return encodeItem(item)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function* halves(
  item: Exclude<Item, { kind: 'gap' }>,
): Iterable<{ item: Item; bytes: Uint8Array }> {
  const middle = Math.ceil(itemCount(item) / 2)
  yield* encodeBounded(slice(item, 0, middle))
  yield* encodeBounded(slice(item, middle))
}

function slice(item: Exclude<Item, { kind: 'gap' }>, from: number, to?: number): Item {
  return item.kind === 'readings'
    ? { kind: 'readings', readings: item.readings.slice(from, to) }
    : { kind: 'records', records: item.records.slice(from, to) }
}

/** The first `count` sequences of an entry, and the rest. */
export function split(entry: Entry, count: number): { taken: Entry; rest: Entry } {
  const item = decodeItem(entry.item)
  const received = (part: number) => (entry.received > 0 ? part : 0)
  const remaining = entry.count - count
  if (item.kind === 'gap') {
    // Where in the gap the series' readings stood is not known: the first part keeps the list.
    const { kept, ...gap } = item
    const first = keptBetween(kept, 0, count)
    const second = keptBetween(kept, count, entry.count)
    return {
      taken: {
        ...entry,
        count,
        received: first.kept?.readings.length ?? 0,
        item: encodeItem({ ...gap, ...first, count }),
      },
      rest: {
        ...entry,
        count: remaining,
        received: second.kept?.readings.length ?? 0,
        before: entry.after,
        item: encodeItem({ ...gap, ...second, count: remaining, series: [] }),
      },
    }
  }
  const head = slice(item, 0, count)
  const middle = chainItem(head, entry.before)
  return {
    taken: { ...entry, count, received: received(count), after: middle, item: encodeItem(head) },
    rest: {
      ...entry,
      count: remaining,
      received: received(remaining),
      before: middle,
      item: encodeItem(slice(item, count)),
    },
  }
}

/** The readings of a thinned gap from one place to before another. */
function keptBetween(kept: Gap['kept'], from: number, to: number): Pick<Gap, 'kept'> {
  if (!kept) return {}
  const isIn = (place: number) => place >= from && place < to
  const readings = kept.readings.filter((_, i) => isIn(kept.places[i]!))
  const places = kept.places.filter(isIn).map((place) => place - from)
  return places.length > 0 ? { kept: { places, readings } } : {}
}

/** A gap in place of items: which series, how many readings of each, and the time they span. */
export function describeGap(
  reason: GapReason,
  count: number,
  after: Chain,
  items: readonly Item[],
): Gap {
  const series = new Map<string, { device: string; metric: string; count: number }>()
  let fromMs: number | undefined
  let toMs: number | undefined
  let atLeast = false
  const see = (from: number, to: number) => {
    fromMs = Math.min(fromMs ?? from, from)
    toMs = Math.max(toMs ?? to, to)
  }
  const add = (device: string, metric: string, number: number) => {
    const key = JSON.stringify([device, metric])
    const row = series.get(key)
    if (row) row.count += number
    else if (series.size < maxGapSeries) series.set(key, { device, metric, count: number })
  }
  for (const item of items) {
    for (const { series, timeMs } of readingsOf(item)) {
      add(series.device, series.metric, 1)
      see(timeMs, timeMs)
    }
    if (item.kind === 'gap') {
      for (const row of item.series) add(row.device, row.metric, row.count)
      if (item.fromMs !== undefined && item.toMs !== undefined) see(item.fromMs, item.toMs)
      atLeast ||= item.atLeast
    } else if (item.kind === 'records')
      for (const record of item.records)
        if (record.type === 'quarantine') see(record.arrival.wallMs, record.arrival.wallMs)
  }
  return { count, reason, after, series: [...series.values()], fromMs, toMs, atLeast }
}

/** Nothing but a gap: no reading was kept in it. */
export function isBare(entry: Entry): boolean {
  return entry.kind === 'gap' && entry.received === 0
}

export function isGap(entry: Entry, reason: GapReason): boolean {
  if (entry.kind !== 'gap') return false
  const item = decodeItem(entry.item)
  return item.kind === 'gap' && item.reason === reason
}
