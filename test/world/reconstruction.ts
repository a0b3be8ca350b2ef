import { type Item, readingsOf } from '../../shared/batch.ts'
import type { Series } from '../../shared/reading.ts'
import type { Point } from './broker.ts'

interface Kept extends Point {
  between: Series['between']
  epsilon: number
}

/** Two kept points of which nothing in between was admitted, or is known to be lost. */
interface Stretch {
  from: Kept
  to: Kept
  /** In between, messages numbered below this may be lost with what they leaned on; 0 without a gap. */
  lostBelow: number
}

/** Where nothing was kept. */
const nothing: Kept = { timeMs: Number.NaN, value: Number.NaN, between: 'raw', epsilon: 0 }
const { NEGATIVE_INFINITY: ever, POSITIVE_INFINITY: forever } = Number

/** For a consumer's arithmetic. */
const rounding = 1e-9

export interface ReconstructionOptions {
  metric: string
  /** How far a reading may be from what stands in for it. */
  error: number
  /** Whether a series may name a bound of its own, which is then what counts. */
  mayBeThinned: boolean
  /** Number of the first message that was published when a gap was there already: nothing of it may lean on that. */
  lostBelow(gap: Item): number
}

/** What a consumer makes of one series: readings from the log, and how to read between them. */
export class Reconstruction {
  readonly #stretches: Stretch[] = []
  readonly #last: Kept[] = []
  readonly #options: ReconstructionOptions

  /** @param lines of items in the log's order: all of them, or those of each incarnation */
  constructor(lines: Iterable<readonly Item[]>, options: ReconstructionOptions) {
    this.#options = options
    for (const items of lines) this.#follow(items)
  }

  #follow(items: readonly Item[]): void {
    const { metric, lostBelow: lostBelowOf } = this.#options
    let last: Kept | undefined
    /** A repeat behind `last`: what was left out next may lean on it, or on `last`. */
    let again: Kept | undefined
    let lostBelow = 0
    const seen = new Set<number>()
    for (const item of items) {
      // What was thinned is bounded by what its series says.
      if (item.kind === 'gap' && !item.kept) lostBelow = Math.max(lostBelow, lostBelowOf(item))
      for (const { series, timeMs, value } of readingsOf(item)) {
        if (series.metric !== metric || typeof value !== 'number') continue
        const point = { timeMs, value, between: series.between, epsilon: series.epsilon }
        if (seen.has(timeMs)) {
          again = point
          continue
        }
        seen.add(timeMs)
        // What came before the first one is lost with it.
        if (last || lostBelow > 0)
          this.#between(last ?? { ...nothing, timeMs: ever }, point, lostBelow)
        if (again) this.#between(again, point, lostBelow)
        last = point
        again = undefined
        lostBelow = 0
      }
    }
    if (lostBelow > 0) {
      const from = last ?? { ...nothing, timeMs: ever }
      this.#stretches.push({ from, to: { ...nothing, timeMs: forever }, lostBelow })
    }
    if (last) this.#last.push(last)
    if (again) this.#last.push(again)
  }

  #between(from: Kept, point: Kept, lostBelow: number): void {
    // Where time goes back, a broker delivers out of order: what was left out until then lies ahead.
    const goesBack = point.timeMs < from.timeMs
    this.#stretches.push({ from, to: goesBack ? { ...point, timeMs: forever } : point, lostBelow })
  }

  /** A reading that is not there is within the bound of what stands in for it, or lost in a declared gap. */
  explains({ timeMs, value }: Point, number: number): boolean {
    const { mayBeThinned, error } = this.#options
    const isNear = (other: number, { epsilon }: Kept) =>
      Math.abs(other - value) <= (mayBeThinned ? epsilon : error) + rounding
    for (const { from, to, lostBelow } of this.#stretches) {
      if (timeMs < from.timeMs || timeMs > to.timeMs) continue
      if (number < lostBelow) return true
      if (from.between === 'hold' && isNear(from.value, from)) return true
      if (from.between !== 'linear') continue
      if (to.timeMs === forever) continue
      const share = (timeMs - from.timeMs) / (to.timeMs - from.timeMs)
      if (isNear(from.value + share * (to.value - from.value), from)) return true
    }
    return this.#last.some(
      (last) => last.between === 'hold' && last.timeMs <= timeMs && isNear(last.value, last),
    )
  }
}
