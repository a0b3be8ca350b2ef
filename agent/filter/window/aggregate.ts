import type { StateReader, StateWriter } from '../state-bytes.ts'
import { Sketch } from './sketch.ts'

/** What can be told of a window, quantiles apart. */
const plain = ['count', 'sum', 'mean', 'min', 'max', 'range', 'first', 'last'] as const
type Plain = (typeof plain)[number]

/** `p95` to 0.95, `p99.9` to 0.999; undefined when it is none. */
function shareOf(name: string): number | undefined {
  const match = /^p(\d{1,2}(?:\.\d{1,3})?)$/.exec(name)
  const percent = match ? Number(match[1]) : 0
  return percent > 0 ? percent / 100 : undefined
}

export const aggregateNames = `${plain.join(', ')}, p50, p95, p99.9 and the like`

export function isAggregate(name: string): boolean {
  return (plain as readonly string[]).includes(name) || shareOf(name) !== undefined
}

/** Whether a list of aggregates needs a sketch of the distribution. */
export function needsSketch(names: readonly string[]): boolean {
  return names.some((name) => shareOf(name) !== undefined)
}

/** What is remembered of the readings of one stretch of time. */
export class Aggregate {
  #count = 0
  #sum = 0
  #least = Infinity
  #most = -Infinity
  #first = 0
  #firstMs = Infinity
  #last = 0
  #lastMs = -Infinity
  /** Quality bits of any of them. */
  #quality = 0
  readonly #sketch: Sketch | undefined

  constructor(sketch: Sketch | undefined) {
    this.#sketch = sketch
  }

  get quality(): number {
    return this.#quality
  }

  /** @param value finite */
  add(value: number, timeMs: number, quality: number): void {
    this.#count++
    this.#sum += value
    if (value < this.#least) this.#least = value
    if (value > this.#most) this.#most = value
    if (timeMs < this.#firstMs) {
      this.#first = value
      this.#firstMs = timeMs
    }
    if (timeMs >= this.#lastMs) {
      this.#last = value
      this.#lastMs = timeMs
    }
    this.#quality |= quality
    this.#sketch?.add(value)
  }

  /** Takes in what follows in time. */
  merge(next: Aggregate): void {
    this.#count += next.#count
    this.#sum += next.#sum
    this.#least = Math.min(this.#least, next.#least)
    this.#most = Math.max(this.#most, next.#most)
    if (next.#firstMs < this.#firstMs) {
      this.#first = next.#first
      this.#firstMs = next.#firstMs
    }
    if (next.#lastMs >= this.#lastMs) {
      this.#last = next.#last
      this.#lastMs = next.#lastMs
    }
    this.#quality |= next.#quality
    if (next.#sketch) this.#sketch?.merge(next.#sketch)
  }

  /** @param name one that `isAggregate` knows */
  value(name: string): number {
    const share = shareOf(name)
    if (share !== undefined) {
      const quantile = this.#sketch?.quantile(share) ?? Number.NaN
      return Math.min(this.#most, Math.max(this.#least, quantile))
    }
    switch (name as Plain) {
      case 'count':
        return this.#count
      case 'sum':
        return this.#sum
      case 'mean':
        return this.#sum / this.#count
      case 'min':
        return this.#least
      case 'max':
        return this.#most
      case 'range':
        return this.#most - this.#least
      case 'first':
        return this.#first
      case 'last':
        return this.#last
    }
  }

  save(writer: StateWriter): void {
    writer.varint(this.#count)
    writer.float(this.#sum)
    writer.float(this.#least)
    writer.float(this.#most)
    writer.float(this.#first)
    writer.float(this.#firstMs)
    writer.float(this.#last)
    writer.float(this.#lastMs)
    writer.varint(this.#quality)
    writer.byte(this.#sketch ? 1 : 0)
    this.#sketch?.save(writer)
  }

  /** @throws StateProblem */
  static load(reader: StateReader): Aggregate {
    const count = reader.varint()
    const numbers = Array.from({ length: 7 }, () => reader.float())
    const quality = reader.varint()
    const aggregate = new Aggregate(reader.byte() === 1 ? Sketch.load(reader) : undefined)
    aggregate.#count = count
    ;[
      aggregate.#sum,
      aggregate.#least,
      aggregate.#most,
      aggregate.#first,
      aggregate.#firstMs,
      aggregate.#last,
      aggregate.#lastMs,
    ] = numbers as [number, number, number, number, number, number, number]
    aggregate.#quality = quality
    return aggregate
  }
}
