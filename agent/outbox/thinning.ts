import type { Gap } from '../../shared/batch.ts'
import type { AdmittedReading, Series, SeriesTable } from '../../shared/reading.ts'
import { type Decisions, Reduction } from '../filter/filter.ts'
import type { Entry } from './entry.ts'

/** Readings that are thinned together: enough to leave some out, no more than an entry may hold. */
export const minThinned = 16
export const maxThinned = { readings: 5_000, bytes: 256 * 1024 }
/** What is left must be smaller by a third, at least. */
export const worthThinning = 2 / 3

/** Errors that are tried, the smallest first, as shares of the span of a series' values. */
const shares = [0.01, 0.04, 0.16]
/** More than this share of the readings is not worth the name. */
const mostKept = 0.5
/** A constant leaves room for rounding only. */
const leastError = 1e-12

/**
 * Leaves out of consecutive readings those that lie on the straight line between two others of their series
 * (of a series that is read by steps: that differ little from the one before), within a bound that what is
 * kept says from then on. The first and the last reading of each series are kept, and every change of
 * quality, text or truth value: so nothing outside of these readings, and no reduction that goes on from the
 * last of them, rests on what is gone.
 *
 * @returns undefined where too little could be left out
 */
export function thin(
  readings: readonly AdmittedReading[],
  table: SeriesTable,
): (Pick<Gap, 'series' | 'fromMs' | 'toMs'> & { kept: NonNullable<Gap['kept']> }) | undefined {
  const places = Map.groupBy(readings.keys(), (place) => readings[place]!.series)
  for (const share of shares) {
    const kept = new Map<number, AdmittedReading>()
    for (const [series, own] of places)
      thinSeries(
        series,
        own.map((place) => [place, readings[place]!]),
        share,
        table,
        kept,
      )
    if (kept.size <= readings.length * mostKept) return describe(readings, kept)
  }
  return undefined
}

function thinSeries(
  series: Series,
  own: readonly [place: number, reading: AdmittedReading][],
  share: number,
  table: SeriesTable,
  kept: Map<number, AdmittedReading>,
): void {
  const { device, metric, unit, labels, between } = series
  const method = between === 'hold' ? 'deadband' : 'linear'
  const error = errorOf(
    own.map(([, { value }]) => value),
    share,
  )
  // What a reduction has left out before lies as far again from what it had kept.
  const dress = (how: 'hold' | 'linear', epsilon: number) => {
    const bound = epsilon === 0 ? series.epsilon : roundedUp(epsilon + series.epsilon)
    return table.intern(device, metric, { unit, labels, between: how, epsilon: bound })
  }
  const config = {
    method,
    error: { absolute: error },
    heartbeatMs: Infinity,
    maxDelayMs: Infinity,
  } as const
  const reduction = new Reduction(config, dress, true)
  const copies = new Map<AdmittedReading, number>()
  const left: [number, AdmittedReading][] = []
  const out: Decisions = {
    keep: (reading) => void left.push([copies.get(reading)!, reading]),
    drop: () => {},
  }
  for (const [i, [place, reading]] of own.entries()) {
    // Bare, for the reduction to dress it.
    const copy = { ...reading, series: { ...series, between: 'raw' as const } }
    copies.set(copy, place)
    reduction.take(copy, i === own.length - 1, out)
  }
  reduction.release(out)
  if (left.length === own.length) for (const [place, reading] of own) kept.set(place, reading)
  else
    for (const [place, reading] of left) {
      reduction.dress(reading)
      kept.set(place, reading)
    }
}

function errorOf(values: readonly unknown[], share: number): number {
  let least = Infinity
  let most = -Infinity
  for (const value of values) {
    if (typeof value !== 'number' || !Number.isFinite(value)) continue
    least = Math.min(least, value)
    most = Math.max(most, value)
  }
  if (least > most) return 0
  const smallest = Math.max(leastError, Math.max(Math.abs(least), Math.abs(most)) * 2 ** -40)
  return roundedUp(Math.max(share * (most - least), smallest))
}

/** To two digits, or a little more. */
function roundedUp(error: number): number {
  const rounded = Number(error.toPrecision(2))
  return rounded >= error ? rounded : Number((error * 1.05).toPrecision(2))
}

function describe(
  readings: readonly AdmittedReading[],
  kept: ReadonlyMap<number, AdmittedReading>,
) {
  const gone = new Map<string, { device: string; metric: string; count: number }>()
  let fromMs = Infinity
  let toMs = -Infinity
  for (const [place, { series, timeMs }] of readings.entries()) {
    if (kept.has(place)) continue
    fromMs = Math.min(fromMs, timeMs)
    toMs = Math.max(toMs, timeMs)
    const { device, metric } = series
    const key = JSON.stringify([device, metric])
    const row = gone.get(key)
    if (row) row.count += 1
    else gone.set(key, { device, metric, count: 1 })
  }
  const places = [...kept.keys()].sort((a, b) => a - b)
  return {
    series: [...gone.values()].slice(0, 1_000),
    fromMs,
    toMs,
    kept: { places, readings: places.map((place) => kept.get(place)!) },
  }
}

/** Consecutive entries of one lane and incarnation. */
export interface Stretch {
  ordinal: number
  first: number
  victims: { key: Uint8Array; entry: Entry }[]
  /** Readings, and the bytes of their items. */
  count: number
  bytes: number
}

export function later(
  a: { ordinal: number; first: number },
  b: { ordinal: number; first: number } | undefined,
): { ordinal: number; first: number } {
  return b && (b.ordinal - a.ordinal || b.first - a.first) > 0 ? b : a
}
