import type { Arrival } from '../reading.ts'
import { ByteWriter } from './bytes.ts'
import { invalid } from './failure.ts'
import { maxTimeMs } from './times.ts'
import { VarintReader } from './varint.ts'

const qualityBytes = new ByteWriter()
const arrivalBytes = new ByteWriter()
/** Qualities are bit sets of 31 bits. */
export const maxQuality = 2 ** 31 - 1

/** 34 years, so that no microsecond count leaves the exact integers. */
const maxMonotonicMs = 2 ** 40

/** Pairs of a quality and how many readings in a row have it; a last run of good ones is left out. */
export function qualityColumn(qualities: Int32Array): Uint8Array {
  const column = qualityBytes
  column.clear()
  for (let i = 0; i < qualities.length; ) {
    const start = i
    const quality = qualities[start]!
    while (i < qualities.length && qualities[i] === quality) i++
    if (i === qualities.length && quality === 0) break
    column.varint(quality)
    column.varint(i - start)
  }
  return column.peek()
}

/**
 * @param into takes the qualities, as many as `count`; without it they are checked only
 * @throws WireFailure
 */
export function readQualities(bytes: Uint8Array, count: number, into?: Int32Array): void {
  const column = new VarintReader(bytes, 'qualities')
  into?.fill(0)
  let at = 0
  while (!column.done) {
    const quality = column.next()
    const run = column.next()
    if (quality > maxQuality) throw invalid('qualities: over 31 bits')
    if (run === 0 || run > count - at) throw invalid('qualities: a run that does not fit')
    into?.fill(quality, at, at + run)
    at += run
  }
}

/**
 * Triples, for readings in a row that arrived together: how many; monotonic time less that of the run
 * before (0 for the first), signed, in units of 1/`perMs` ms; wall time less that of the run before
 * (`from` for the first), less the difference of monotonic times in whole ms rounded down, signed.
 */
export interface ArrivalColumn {
  /** 1, or 1000 where monotonic times have fractions of a millisecond; they are kept to 1 µs. */
  perMs: number
  runs: Uint8Array
}

export function arrivalColumn(arrivals: readonly Arrival[], from: number): ArrivalColumn {
  let perMs = 1
  let last: Arrival | undefined
  for (const arrival of arrivals) {
    if (arrival === last) continue
    last = arrival
    if (!isArrival(arrival.wallMs, arrival.monotonicMs))
      throw new RangeError(`an arrival at ${arrival.wallMs} ms`)
    if (!Number.isInteger(arrival.monotonicMs)) perMs = 1000
  }
  const column = arrivalBytes
  column.clear()
  let wall = from
  let monotonic = 0
  for (let i = 0; i < arrivals.length; ) {
    const start = i
    const arrival = arrivals[start]!
    while (i < arrivals.length && sameArrival(arrivals[i]!, arrival)) i++
    const units = Math.round(arrival.monotonicMs * perMs)
    const difference = units - monotonic
    column.varint(i - start)
    column.signed(difference)
    column.signed(arrival.wallMs - wall - Math.floor(difference / perMs))
    wall = arrival.wallMs
    monotonic = units
  }
  return { perMs, runs: column.peek() }
}

function isArrival(wallMs: number, monotonicMs: number): boolean {
  return (
    Number.isInteger(wallMs) &&
    Math.abs(wallMs) <= maxTimeMs &&
    Math.abs(monotonicMs) <= maxMonotonicMs
  )
}

function sameArrival(a: Arrival, b: Arrival): boolean {
  return a === b || (a.wallMs === b.wallMs && a.monotonicMs === b.monotonicMs)
}

/** Readings that arrived together. */
export interface ArrivalRun {
  count: number
  arrival: Arrival
}

/**
 * @param into takes the runs; without it they are checked only
 * @throws WireFailure unless the runs cover `count` readings
 */
export function readArrivals(
  { perMs, runs }: ArrivalColumn,
  count: number,
  from: number,
  into?: ArrivalRun[],
): void {
  if (perMs !== 1 && perMs !== 1000) throw invalid('perMs: neither 1 nor 1000')
  const column = new VarintReader(runs, 'arrivals')
  let at = 0
  let wallMs = from
  let monotonic = 0
  while (at < count) {
    const run = column.next()
    const difference = column.nextSigned()
    monotonic += difference
    wallMs += column.nextSigned() + Math.floor(difference / perMs)
    if (run === 0 || run > count - at) throw invalid('arrivals: a run that does not fit')
    const monotonicMs = monotonic / perMs
    if (!isArrival(wallMs, monotonicMs)) throw invalid('arrivals: out of range')
    at += run
    into?.push({ count: run, arrival: { wallMs, monotonicMs } })
  }
  column.end()
}

/** Arrivals of joined items are rounded down to this. */
const foldMs = 100

/**
 * Coarsens arrivals of joined items, whose runs would otherwise cost more than the values: wall time is
 * rounded down to 100 ms, monotonic time is moved along and rounded to 1 ms. Times of readings are never
 * touched.
 */
export function foldArrivals<Reading extends { arrival: Arrival }>(
  readings: readonly Reading[],
): Reading[] {
  let before: Arrival | undefined
  let folded: Arrival = { wallMs: 0, monotonicMs: 0 }
  return readings.map((reading) => {
    if (reading.arrival !== before) {
      before = reading.arrival
      folded = fold(before, folded)
    }
    return { ...reading, arrival: folded }
  })
}

/** The two clocks differ by a constant plus the rounding, which is kept from showing. */
function fold(arrival: Arrival, before: Arrival): Arrival {
  const wallMs = Math.floor(arrival.wallMs / foldMs) * foldMs
  const monotonicMs = Math.round(arrival.monotonicMs - (arrival.wallMs - wallMs))
  const expected = before.monotonicMs + (wallMs - before.wallMs)
  const monotonic = Math.abs(monotonicMs - expected) <= 1 ? expected : monotonicMs
  return wallMs === before.wallMs && monotonic === before.monotonicMs
    ? before
    : { wallMs, monotonicMs: monotonic }
}
