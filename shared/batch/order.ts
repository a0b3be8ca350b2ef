import { ByteWriter } from './bytes.ts'
import { invalid } from './failure.ts'
import { Scratch } from './scratch.ts'
import { VarintReader } from './varint.ts'

const column = new ByteWriter()

/**
 * Which series each reading belongs to, in sequence order. Devices report in rounds, so a series is
 * expected to be followed by what followed it last time; where nothing has yet, by the first series not
 * seen so far, or by series 0 when all have been. The column is: a run of readings that came as
 * expected, the series that came instead, a run, a series …; a last run to the end is left out.
 *
 * @returns valid until the next call
 */
export function orderColumn(seriesOf: Uint16Array, seriesCount: number): Uint8Array {
  column.clear()
  const order = new Expectation(seriesCount)
  let run = 0
  for (let i = 0; i < seriesOf.length; i++) {
    const series = seriesOf[i]!
    if (order.expected === series) run++
    else {
      column.varint(run)
      column.varint(series)
      run = 0
    }
    order.came(series)
  }
  return column.peek()
}

const seriesScratch = new Scratch((length) => new Uint16Array(length))

/**
 * @returns which series each reading belongs to, valid until the next call; and how many each series has, at its
 *   number plus one
 * @throws WireFailure unless there are `count` readings and every series has one
 */
export function readOrder(
  bytes: Uint8Array,
  count: number,
  seriesCount: number,
): { seriesOf: Uint16Array; counts: Uint32Array } {
  const column = new VarintReader(bytes, 'order')
  const order = new Expectation(seriesCount)
  const seriesOf = seriesScratch.take(count)
  const counts = new Uint32Array(seriesCount + 1)
  let at = 0
  while (at < count) {
    const run = column.done ? count - at : column.next()
    if (run > count - at) throw invalid('order: more than readings')
    order.run(seriesOf, counts, at, at + run)
    at += run
    if (at === count) break
    const series = column.next()
    if (series >= seriesCount) throw invalid('order: no such series')
    if (series > order.seen) throw invalid('order: series out of order of appearance')
    seriesOf[at++] = series
    counts[series + 1]!++
    order.came(series)
  }
  column.end()
  if (order.seen !== seriesCount) throw invalid('order: a series without readings')
  return { seriesOf, counts }
}

class Expectation {
  /** Series that the next reading is expected to belong to. */
  expected = 0
  /** Series that have appeared: 0 to `seen` − 1. */
  seen = 0
  readonly #seriesCount: number
  /** Per series what followed it last, plus one; 0 where nothing has. */
  readonly #next: Uint16Array
  #last = 0

  constructor(seriesCount: number) {
    this.#seriesCount = seriesCount
    this.#next = new Uint16Array(seriesCount)
  }

  /** Readings [from, to) of `seriesOf` come as expected, and are filled in and counted. */
  run(seriesOf: Uint16Array, counts: Uint32Array, from: number, to: number): void {
    const next = this.#next
    for (let at = from; at < to; ) {
      seriesOf[at++] = this.expected
      counts[this.expected + 1]!++
      this.came(this.expected)
      // Round after round in which nothing is learned.
      let last = this.#last
      while (at < to && next[last]! > 0) {
        last = next[last]! - 1
        seriesOf[at++] = last
        counts[last + 1]!++
      }
      this.#expectAfter(last)
    }
  }

  came(series: number): void {
    if (this.seen > 0) this.#next[this.#last] = series + 1
    if (series === this.seen) this.seen++
    this.#expectAfter(series)
  }

  #expectAfter(series: number): void {
    this.#last = series
    const next = this.#next[series]!
    this.expected = next > 0 ? next - 1 : this.seen < this.#seriesCount ? this.seen : 0
  }
}
