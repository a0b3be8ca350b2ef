import { z } from 'zod'
import type { Kept } from '../sink.ts'

const cutsSchema = z.record(z.string().regex(/^\d+$/), z.array(z.int().min(0)).min(2))

/**
 * Where requests that may have been received were cut, by partition: ascending offsets, each request from
 * one to the next. A repeat is cut there too, so that it is known for one.
 */
export class Cuts {
  readonly #kept: Kept
  readonly #known: Map<number, number[]>

  /** What cannot be understood is as if it were not there: repeats go unrecognised, nothing is lost. */
  constructor(kept: Kept) {
    this.#kept = kept
    const { data = {} } = cutsSchema.safeParse(kept.value)
    this.#known = new Map(Object.entries(data).map(([key, cut]) => [Number(key), cut]))
  }

  /** @returns undefined unless a request began at `from` */
  at(partition: number, from: number): readonly number[] | undefined {
    const cut = this.#known.get(partition)
    const first = cut?.indexOf(from) ?? -1
    return first >= 0 && first < cut!.length - 1 ? cut!.slice(first) : undefined
  }

  /** Resolves once it is durable. */
  async keep(partition: number, cut: readonly number[]): Promise<void> {
    this.#known.set(partition, [...cut])
    await this.#kept.write(Object.fromEntries(this.#known))
  }
}
