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
 * series' first, the n of the reading before (0 for the first of all); otherwise the n of the series'
 * last reading plus a step: `step`, or, if `adaptive`, what the last one that did not share differed by.
 * `nanos` holds, for the same readings, what lies behind the milliseconds in units of `nanoTick` ns; it
 * is empty where that is always 0.
 */
export interface TimeColumns {
  tick: number
  nanoTick: number
  step: number
  adaptive: boolean
  sharing: Uint8Array
  steps: Uint8Array
  nanos: Uint8Array
}

/** Years −6950 to 10,889, so that no difference leaves the exact integers. */
export const maxTimeMs = 2 ** 48

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

  const sharing = new ByteWriter()
  const behind = new ByteWriter()
  const histories = new Histories(sourceOf)
  const differences = new Float64Array(length)
  const owners = new Int32Array(length)
  let own = 0
  let run = 0
  for (let i = 0; i < length; i++) {
    const series = seriesOf[i]!
    const n = (ms[i]! - from) / tick
    const shares = i > 0 && ms[i] === ms[i - 1] && nanos[i] === nanos[i - 1]
    if (histories.expectsSharing(series) === shares) run++
    else {
      sharing.varint(run)
      run = 0
    }
    if (!shares) {
      owners[own] = histories.isNew(series) ? -1 : series
      differences[own++] = n - histories.last(series)
      if (nanoTick > 0) behind.varint(nanos[i]! / nanoTick)
    }
    histories.came(series, n, shares)
  }

  const stepping = chooseStep(
    differences.subarray(0, own),
    owners.subarray(0, own),
    sourceOf.length,
  )
  return { tick, nanoTick, ...stepping, sharing: sharing.take(), nanos: behind.take() }
}

/** What the columns of an item say about the series so far. */
class Histories {
  readonly #sourceOf: Uint16Array
  /** Per series: 0 new, 1 last one had a time of its own, 2 it shared. */
  readonly #state: Uint8Array
  readonly #last: Float64Array
  #before = 0
  #sourceBefore = -1

  constructor(sourceOf: Uint16Array) {
    this.#sourceOf = sourceOf
    this.#state = new Uint8Array(sourceOf.length)
    this.#last = new Float64Array(sourceOf.length)
  }

  isNew(series: number): boolean {
    return this.#state[series] === 0
  }

  expectsSharing(series: number): boolean {
    const state = this.#state[series]
    return state === 0 ? this.#sourceOf[series] === this.#sourceBefore : state === 2
  }

  /** n of the reading before, whichever series it has. */
  get before(): number {
    return this.#before
  }

  /** n that a difference counts from. */
  last(series: number): number {
    return this.#state[series] === 0 ? this.#before : this.#last[series]!
  }

  came(series: number, n: number, shared: boolean): void {
    this.#state[series] = shared ? 2 : 1
    this.#last[series] = n
    this.#before = n
    this.#sourceBefore = this.#sourceOf[series]!
  }
}

/**
 * @param owners the series of each difference, −1 where it is the series' first
 */
function chooseStep(
  differences: Float64Array,
  owners: Int32Array,
  seriesCount: number,
): Pick<TimeColumns, 'step' | 'adaptive' | 'steps'> {
  const known = differences.filter((_, i) => owners[i]! >= 0).sort()
  const step = known.length === 0 ? 0 : known[known.length >> 1]!
  const columns = [false, true].map((adaptive) => {
    const column = new ByteWriter()
    const stepOf = new Float64Array(seriesCount).fill(step)
    let cost = 0
    for (let i = 0; i < differences.length; i++) {
      const owner = owners[i]!
      const difference = differences[i]!
      const rest = owner < 0 ? difference : difference - stepOf[owner]!
      if (adaptive && owner >= 0) stepOf[owner] = difference
      column.signed(rest)
      cost += Math.log2(1 + Math.abs(rest))
    }
    return { step, adaptive, steps: column.take(), cost }
  })
  const [steady, adaptive] = columns as [(typeof columns)[0], (typeof columns)[0]]
  const { cost: _, ...chosen } = adaptive.cost < steady.cost ? adaptive : steady
  return chosen
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
  const { tick, nanoTick, step, adaptive } = columns
  const sharing = new VarintReader(columns.sharing, 'sharing')
  const steps = new VarintReader(columns.steps, 'steps')
  const behind = new VarintReader(columns.nanos, 'nanos')
  const histories = new Histories(sourceOf)
  const stepOf = new Float64Array(sourceOf.length).fill(step)
  const count = seriesOf.length
  const ms = new Float64Array(count)
  const nanos = nanoTick > 0 ? new Float64Array(count) : undefined
  let run = sharing.done ? count : sharing.next()
  for (let i = 0; i < count; i++) {
    const series = seriesOf[i]!
    let shares = histories.expectsSharing(series)
    if (run > 0) run--
    else {
      shares = !shares
      run = sharing.done ? count : sharing.next()
    }
    let n: number
    if (shares) {
      n = histories.before
      if (nanos && i > 0) nanos[i] = nanos[i - 1]!
    } else {
      n = histories.last(series) + steps.nextSigned()
      if (!histories.isNew(series)) {
        n += stepOf[series]!
        if (adaptive) stepOf[series] = n - histories.last(series)
      }
      if (nanos) {
        nanos[i] = behind.next() * nanoTick
        if (nanos[i]! > 999_999) throw invalid('nanos: a millisecond or more')
      }
    }
    if (!(n <= maxTimeMs * 2 && n >= -maxTimeMs * 2)) throw invalid('times: out of range')
    ms[i] = from + n * tick
    if (!(ms[i]! <= maxTimeMs && ms[i]! >= -maxTimeMs)) throw invalid('times: out of range')
    histories.came(series, n, shares)
  }
  if (!sharing.done || run < count) {
    // Runs beyond the last reading name nothing.
    if (!sharing.done) throw invalid('sharing: more than it should hold')
  }
  steps.end()
  behind.end()
  return { ms, nanos }
}

function gcd(a: number, b: number): number {
  a = Math.abs(a)
  while (b > 0) [a, b] = [b, a % b]
  return a
}
