import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'

/** Buckets at most; beyond it each two neighbours become one. */
const maxBuckets = 1024
/** Ratio of a bucket's bounds at first: values are known to ±0.1 %. */
const firstRatio = 1.001 / 0.999
/** Smaller magnitudes count as zero; keeps bucket numbers in order over all magnitudes. */
const smallest = 1e-300
const shift = Math.ceil(Math.log(1 / smallest) / Math.log(firstRatio)) + 1

/**
 * Sketch of a distribution that tells quantiles within a relative error: 0.1 % of the value where the
 * readings fall into no more than 1,024 buckets, as they do within a factor of 7; twice as much, and so on,
 * where they are spread wider. Merging is exact.
 *
 * A bucket holds magnitudes from ratio^(k−1) to ratio^k; its number is k + shift, negative for negative
 * values, 0 for zero, so buckets are ordered as their values are. When there are too many, the ratio is
 * squared, which makes two buckets one.
 *
 * State: at most 1,024 pairs of small integers. Written here because the libraries at hand lose negative
 * values when they merge, or know integers only.
 * Source: Masson, Rim, Lee, DDSketch, PVLDB 12 (2019); Epicoco et al., UDDSketch, IEEE Access 8 (2020).
 */
export class Sketch {
  #buckets = new Map<number, number>()
  /** How often the ratio was squared. */
  #level = 0
  #count = 0

  /** @param value finite */
  add(value: number): void {
    this.#put(this.#bucketOf(value), 1)
  }

  merge(other: Sketch): void {
    while (this.#level < other.#level) this.#coarsen()
    for (const [bucket, count] of other.#buckets) {
      let own = bucket
      for (let level = other.#level; level < this.#level; level++) own = halved(own)
      this.#put(own, count)
      // Putting may coarsen, and then the next bucket has farther to go: the level is read each time.
    }
  }

  /** Value with `share` of the values at or below it; NaN when there are none. */
  quantile(share: number): number {
    if (this.#count === 0) return Number.NaN
    let left = Math.ceil(share * this.#count) || 1
    for (const bucket of [...this.#buckets.keys()].sort((a, b) => a - b)) {
      left -= this.#buckets.get(bucket)!
      if (left <= 0) return this.#valueOf(bucket)
    }
    return Number.NaN
  }

  #put(bucket: number, count: number): void {
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + count)
    this.#count += count
    while (this.#buckets.size > maxBuckets) this.#coarsen()
  }

  #bucketOf(value: number): number {
    const magnitude = Math.abs(value)
    if (magnitude < smallest) return 0
    let bucket = Math.ceil(Math.log(magnitude) / Math.log(firstRatio)) + shift
    for (let level = 0; level < this.#level; level++) bucket = halved(bucket)
    return value < 0 ? -bucket : bucket
  }

  /** Middle of the bucket, as far in relation from one bound as from the other. */
  #valueOf(bucket: number): number {
    if (bucket === 0) return 0
    const ratio = firstRatio ** (2 ** this.#level)
    // Bucket b of a level covers those of the level below that halve to it.
    let top = Math.abs(bucket)
    for (let level = 0; level < this.#level; level++) top *= 2
    const upper = firstRatio ** (top - shift)
    return (Math.sign(bucket) * 2 * upper) / (1 + ratio)
  }

  #coarsen(): void {
    const finer = this.#buckets
    this.#buckets = new Map()
    this.#level++
    for (const [bucket, count] of finer) {
      const half = halved(bucket)
      this.#buckets.set(half, (this.#buckets.get(half) ?? 0) + count)
    }
  }

  save(writer: StateWriter): void {
    writer.byte(this.#level)
    writer.varint(this.#buckets.size)
    for (const [bucket, count] of this.#buckets) {
      writer.byte(bucket < 0 ? 1 : 0)
      writer.varint(Math.abs(bucket))
      writer.varint(count)
    }
  }

  /** @throws StateProblem */
  static load(reader: StateReader): Sketch {
    const sketch = new Sketch()
    sketch.#level = reader.byte()
    if (sketch.#level > 20) throw new StateProblem('a sketch without resolution')
    for (let left = reader.count(maxBuckets); left > 0; left--) {
      const negative = reader.byte() === 1
      const bucket = reader.varint()
      sketch.#put(negative ? -bucket : bucket, reader.varint())
    }
    return sketch
  }
}

/** Number that a bucket has at the next level. */
function halved(bucket: number): number {
  return bucket < 0 ? -Math.ceil(-bucket / 2) : Math.ceil(bucket / 2)
}
