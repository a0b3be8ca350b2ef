import { ByteWriter } from './bytes.ts'
import { invalid } from './failure.ts'
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
  const expected = new SharingExpectation(sourceOf)
  const ticks = new Float64Array(length)
  const own = new Uint8Array(length)
  let run = 0
  for (let i = 0; i < length; i++) {
    const series = seriesOf[i]!
    ticks[i] = (ms[i]! - from) / tick
    const shares = i > 0 && ms[i] === ms[i - 1] && nanos[i] === nanos[i - 1]
    if (expected.shares(series) === shares) run++
    else {
      sharing.varint(run)
      run = 0
    }
    expected.came(series, shares)
    if (shares) continue
    own[i] = 1
    if (nanoTick > 0) behind.varint(nanos[i]! / nanoTick)
  }

  const step = usualStep(ticks, seriesOf, sourceOf.length)
  let pace = 0
  let fewest = Infinity
  for (const candidate of Object.values(paces)) {
    let bits = 0
    eachMiss(candidate, (missed) => {
      bits += Math.log2(1 + Math.abs(missed))
    })
    if (bits < fewest) {
      pace = candidate
      fewest = bits
    }
  }
  steps.clear()
  eachMiss(pace, (missed) => steps.signed(missed))
  return {
    tick,
    nanoTick,
    step,
    pace,
    sharing: sharing.peek(),
    steps: steps.peek(),
    nanos: behind.peek(),
  }

  function eachMiss(pace: number, take: (missed: number) => void): void {
    const clock = new SeriesClocks(sourceOf.length, step, pace)
    for (let i = 0; i < length; i++) {
      if (own[i] === 1) take(ticks[i]! - clock.expected(seriesOf[i]!))
      clock.came(seriesOf[i]!, ticks[i]!, own[i] === 0)
    }
  }
}

/** Median distance between neighbours of a series. */
function usualStep(ticks: Float64Array, seriesOf: Uint16Array, seriesCount: number): number {
  const last = new Float64Array(seriesCount).fill(Number.NaN)
  const differences = new Float64Array(ticks.length)
  let count = 0
  for (let i = 0; i < ticks.length; i++) {
    const series = seriesOf[i]!
    const difference = ticks[i]! - last[series]!
    if (!Number.isNaN(difference)) differences[count++] = difference
    last[series] = ticks[i]!
  }
  return count === 0 ? 0 : differences.subarray(0, count).sort()[count >> 1]!
}

/** Whether a reading is expected to share the time of the one before it. */
class SharingExpectation {
  readonly #sourceOf: Uint16Array
  /** Per series: 0 new, 1 last one had a time of its own, 2 it shared. */
  readonly #state: Uint8Array
  #sourceBefore = -1

  constructor(sourceOf: Uint16Array) {
    this.#sourceOf = sourceOf
    this.#state = new Uint8Array(sourceOf.length)
  }

  shares(series: number): boolean {
    const state = this.#state[series]
    return state === 0 ? this.#sourceOf[series] === this.#sourceBefore : state === 2
  }

  came(series: number, shared: boolean): void {
    this.#state[series] = shared ? 2 : 1
    this.#sourceBefore = this.#sourceOf[series]!
  }
}

/** When a reading is expected, in ticks. */
class SeriesClocks {
  readonly #pace: number
  readonly #level: Float64Array
  readonly #step: Float64Array
  readonly #known: Uint8Array
  /** n of the reading before, whichever series it has. */
  before = 0

  constructor(seriesCount: number, step: number, pace: number) {
    this.#pace = pace
    this.#level = new Float64Array(seriesCount)
    this.#step = new Float64Array(seriesCount).fill(step)
    this.#known = new Uint8Array(seriesCount)
  }

  expected(series: number): number {
    return this.#known[series] === 0 ? this.before : this.#level[series]! + this.#step[series]!
  }

  came(series: number, n: number, shared: boolean): void {
    let level = n
    if (this.#known[series] === 0) this.#known[series] = 1
    else if (!shared && this.#pace === paces.adaptive) this.#step[series] = n - this.#level[series]!
    else if (!shared && this.#pace === paces.smooth) {
      const expected = this.#level[series]! + this.#step[series]!
      const missed = n - expected
      if (missed > -jump && missed < jump) level = expected + (missed >> 2)
    }
    this.#level[series] = level
    this.before = n
  }
}

export interface Times {
  ms: Float64Array
  nanos: Float64Array | undefined
}

/** @throws WireFailure unless the columns hold one time for each reading, within ±2^48 ms */
export function readTimes(
  columns: TimeColumns,
  seriesOf: Uint16Array,
  sourceOf: Uint16Array,
  from: number,
): Times {
  const { tick, nanoTick, step, pace } = columns
  const sharing = new VarintReader(columns.sharing, 'sharing')
  const steps = new VarintReader(columns.steps, 'steps')
  const behind = new VarintReader(columns.nanos, 'nanos')
  const expected = new SharingExpectation(sourceOf)
  const clock = new SeriesClocks(sourceOf.length, step, pace)
  const count = seriesOf.length
  const ms = new Float64Array(count)
  const nanos = nanoTick > 0 ? new Float64Array(count) : undefined
  let run = sharing.done ? count : sharing.next()
  for (let i = 0; i < count; i++) {
    const series = seriesOf[i]!
    let shares = expected.shares(series)
    if (run > 0) run--
    else {
      shares = !shares
      run = sharing.done ? count : sharing.next()
    }
    const n = shares ? clock.before : clock.expected(series) + steps.nextSigned()
    if (!(Math.abs(n) <= 2 * maxTimeMs)) throw invalid('steps: out of range')
    ms[i] = from + n * tick
    if (!(Math.abs(ms[i]!) <= maxTimeMs)) throw invalid('steps: out of range')
    if (nanos) {
      nanos[i] = shares ? (nanos[i - 1] ?? 0) : behind.next() * nanoTick
      if (nanos[i]! > 999_999) throw invalid('nanos: a millisecond or more')
    }
    expected.came(series, shares)
    clock.came(series, n, shares)
  }
  // A last run is left out, so nothing may be behind the one that the last reading fell into.
  sharing.end()
  steps.end()
  behind.end()
  return { ms, nanos }
}

function gcd(a: number, b: number): number {
  a = Math.abs(a)
  while (b > 0) [a, b] = [b, a % b]
  return a
}
