import { ByteWriter } from './bytes.ts'
import { invalid } from './failure.ts'
import { Scratch } from './scratch.ts'
import { VarintReader } from './varint.ts'

/**
 * Times of an item's readings, exact to the nanosecond, in sequence order.
 *
 * A time is `from` + n · `tick` ms, tick being the largest that is exact for all. A reading often shares
 * its time with the one before it (several metrics of a message). It is expected to if its series' last
 * one did; a series' first is if it has the source of the reading before it. `sharing` holds lengths of
 * runs as expected, a reading against expectation behind each; a last run to the end is left out.
 *
 * For each reading that does not share, `steps` holds n less the expected n, signed. Expected is, for a
 * series' first, the n of the reading before (0 for the first of all); otherwise the series' level plus
 * its step, which is `step` to begin with. What the level and the step are next is up to `pace`:
 *
 *   0 steady     the level is n
 *   1 smooth     n missed what was expected by m: the level is what was expected plus m / 4, rounded
 *                down, if −64 < m < 64, and otherwise n. For clocks that jitter around a steady beat.
 *   2 adaptive   the level is n, the step is n less the level before. For each series at its own beat.
 *
 * A series' first reading and one that shares set the level to n and leave the step. `nanos` holds, for
 * readings that do not share, what lies behind the milliseconds in units of `nanoTick` ns; it is empty
 * where that is always 0.
 */
export interface TimeColumns {
  tick: number
  nanoTick: number
  step: number
  pace: number
  sharing: Uint8Array
  steps: Uint8Array
  nanos: Uint8Array
}

export const paces = { steady: 0, smooth: 1, adaptive: 2 } as const
/** Misses below take one byte; a larger one is a jump rather than jitter. */
const jump = 64

/** Years −6950 to 10,889, so that no difference leaves the exact integers. */
export const maxTimeMs = 2 ** 48

const sharing = new ByteWriter()
const steps = new ByteWriter()
const behind = new ByteWriter()

/** @returns columns that are valid until the next call */
export function timeColumns(
  ms: Float64Array,
  nanos: Float64Array,
  seriesOf: Uint16Array,
  sourceOf: Uint16Array,
  from: number,
): TimeColumns {
  const { length } = ms
  let tick = 0
  let nanoTick = 0
  for (let i = 0; i < length; i++) {
    if (tick !== 1) tick = gcd(ms[i]! - from, tick)
    if (nanoTick !== 1) nanoTick = gcd(nanos[i]!, nanoTick)
  }
  tick = Math.max(1, tick)

  sharing.clear()
  behind.clear()
  const clocks = new SeriesClocks(sourceOf, 0, paces.steady)
  const ticks = tickScratch.take(length)
  const own = ownScratch.take(length)
  let run = 0
  for (let i = 0; i < length; i++) {
    const series = seriesOf[i]!
    ticks[i] = (ms[i]! - from) / tick
    const shares = i > 0 && ms[i] === ms[i - 1] && nanos[i] === nanos[i - 1]
    if (clocks.shares(series) === shares) run++
    else {
      sharing.varint(run)
      run = 0
    }
    clocks.came(series, ticks[i]!, shares)
    own[i] = shares ? 0 : 1
    if (shares) continue
    if (nanoTick > 0) behind.varint(nanos[i]! / nanoTick)
  }

  const step = usualStep(ticks, seriesOf, sourceOf.length)
  let [best, other] = missScratch.map((scratch) => scratch.take(length)) as [Misses, Misses]
  let count = 0
  let pace = 0
  let fewest = Infinity
  // Where no series comes twice, all paces expect the same.
  const candidates = sourceOf.length === length ? [paces.steady] : Object.values(paces)
  for (const candidate of candidates) {
    const clocks = new SeriesClocks(sourceOf, step, candidate)
    let bits = 0
    count = 0
    for (let i = 0; i < length; i++) {
      const series = seriesOf[i]!
      if (own[i] === 1) {
        const missed = ticks[i]! - clocks.expected(series)
        other[count++] = missed
        bits += bitLength(missed)
      }
      clocks.came(series, ticks[i]!, own[i] === 0)
    }
    if (bits >= fewest) continue
    pace = candidate
    fewest = bits
    ;[best, other] = [other, best]
  }
  steps.clear()
  for (let i = 0; i < count; i++) steps.signed(best[i]!)
  return {
    tick,
    nanoTick,
    step,
    pace,
    sharing: sharing.peek(),
    steps: steps.peek(),
    nanos: behind.peek(),
  }
}

type Misses = Float64Array
const tickScratch = new Scratch((length) => new Float64Array(length))
const ownScratch = new Scratch((length) => new Uint8Array(length))
const missScratch = [0, 1].map(() => new Scratch((length) => new Float64Array(length)))

function bitLength(value: number): number {
  const magnitude = Math.abs(value)
  return magnitude < 2 ** 32
    ? 32 - Math.clz32(magnitude)
    : 64 - Math.clz32(Math.floor(magnitude / 2 ** 32))
}

/** So many distances are enough to tell their median by. */
const maxDistances = 512

/** Median distance between neighbours of a series, of all or of some all over the item. */
function usualStep(ticks: Float64Array, seriesOf: Uint16Array, seriesCount: number): number {
  const last = new Float64Array(seriesCount).fill(Number.NaN)
  const differences = new Float64Array(Math.min(ticks.length, maxDistances))
  // Odd, so that rounds of even length do not show the same few series each time.
  const every = Math.ceil(ticks.length / maxDistances) | 1
  let seen = 0
  let count = 0
  for (let i = 0; i < ticks.length; i++) {
    const series = seriesOf[i]!
    const difference = ticks[i]! - last[series]!
    if (!Number.isNaN(difference) && seen++ % every === 0) differences[count++] = difference
    last[series] = ticks[i]!
  }
  return count === 0 ? 0 : differences.subarray(0, count).sort()[count >> 1]!
}

const unknown = 0
const alone = 1
const shared = 2

const levelScratch = new Scratch((length) => new Float64Array(length))
const stepScratch = new Scratch((length) => new Float64Array(length))
const stateScratch = new Scratch((length) => new Uint8Array(length))

/** When a reading is expected, in ticks, and whether at the time of the one before it. One at a time. */
class SeriesClocks {
  readonly #sourceOf: Uint16Array
  readonly #pace: number
  readonly #level: Float64Array
  readonly #step: Float64Array
  /** Per series: `unknown` while new, then whether its last reading had a time `alone` or `shared` one. */
  readonly #state: Uint8Array
  #sourceBefore = -1
  /** n of the reading before, whichever series it has. */
  before = 0

  constructor(sourceOf: Uint16Array, step: number, pace: number) {
    this.#sourceOf = sourceOf
    this.#pace = pace
    this.#level = levelScratch.take(sourceOf.length)
    this.#step = stepScratch.take(sourceOf.length).fill(step)
    this.#state = stateScratch.take(sourceOf.length).fill(unknown)
  }

  shares(series: number): boolean {
    const state = this.#state[series]
    return state === unknown ? this.#sourceOf[series] === this.#sourceBefore : state === shared
  }

  expected(series: number): number {
    return this.#state[series] === unknown
      ? this.before
      : this.#level[series]! + this.#step[series]!
  }

  came(series: number, n: number, sharing: boolean): void {
    let level = n
    if (this.#pace !== paces.steady && !sharing && this.#state[series] !== unknown) {
      const expected = this.#level[series]! + this.#step[series]!
      const missed = n - expected
      if (this.#pace === paces.adaptive) this.#step[series] = n - this.#level[series]!
      else if (missed > -jump && missed < jump) level = expected + (missed >> 2)
    }
    this.#state[series] = sharing ? shared : alone
    this.#level[series] = level
    this.#sourceBefore = this.#sourceOf[series]!
    this.before = n
  }
}

export interface Times {
  ms: Float64Array
  nanos: Float64Array
}

/**
 * @param into takes the times; without it they are checked only
 * @returns the earliest and the latest of them
 * @throws WireFailure unless the columns hold one time for each reading, within ±2^48 ms
 */
export function readTimes(
  columns: TimeColumns,
  seriesOf: Uint16Array,
  sourceOf: Uint16Array,
  from: number,
  into?: Times,
): { earliestMs: number; latestMs: number } {
  const { tick, nanoTick, step, pace } = columns
  const sharing = new VarintReader(columns.sharing, 'sharing')
  const steps = new VarintReader(columns.steps, 'steps')
  const behind = new VarintReader(columns.nanos, 'nanos')
  const count = seriesOf.length
  // `SeriesClocks` spelled out: this loop is a collector's hottest.
  const levels = levelScratch.take(sourceOf.length)
  const stepsOf = stepScratch.take(sourceOf.length).fill(step)
  const states = stateScratch.take(sourceOf.length).fill(unknown)
  let n = 0
  let lowest = Infinity
  let highest = -Infinity
  let behindNs = 0
  const unsteady = pace !== paces.steady
  const adaptive = pace === paces.adaptive
  let last = -1
  let flipAt = sharing.done ? count : sharing.next()
  for (let i = 0; i < count; i++) {
    const series = seriesOf[i]!
    const state = states[series]!
    // The most of them, where a device sends several metrics: nothing is read for it.
    if (state === shared && i !== flipAt && !into) {
      levels[series] = n
      last = series
      continue
    }
    let shares = state === shared
    if (state === unknown) shares = last >= 0 && sourceOf[series] === sourceOf[last]
    last = series
    if (i === flipAt) {
      shares = !shares
      flipAt = sharing.done ? count : i + 1 + sharing.next()
    }
    let level = n
    if (shares) {
      states[series] = shared
      // Its time is within the bounds already, unless it is the first of all.
      if (i === 0) lowest = highest = n
    } else {
      states[series] = alone
      const missed = steps.nextSigned()
      if (state === unknown) {
        level = n += missed
      } else {
        const before = levels[series]!
        const expected = before + stepsOf[series]!
        level = n = expected + missed
        if (unsteady) {
          if (adaptive) stepsOf[series] = n - before
          else if (missed > -jump && missed < jump) level = expected + (missed >> 2)
        }
      }
      if (n < lowest) lowest = n
      if (n > highest) highest = n
      if (nanoTick > 0) {
        behindNs = behind.next() * nanoTick
        if (behindNs > 999_999) throw invalid('nanos: a millisecond or more')
      }
    }
    levels[series] = level
    if (!into) continue
    into.ms[i] = from + n * tick
    into.nanos[i] = behindNs
  }
  const earliestMs = from + lowest * tick
  const latestMs = from + highest * tick
  // An n beyond the exact integers, where sums are rounded, is a time out of range too: a tick is 1 at least.
  if (!(earliestMs >= -maxTimeMs && latestMs <= maxTimeMs)) throw invalid('steps: out of range')
  // A last run is left out, so nothing may be behind the one that the last reading fell into.
  sharing.end()
  steps.end()
  behind.end()
  return { earliestMs, latestMs }
}

function gcd(a: number, b: number): number {
  a = Math.abs(a)
  while (b > 0) [a, b] = [b, a % b]
  return a
}
