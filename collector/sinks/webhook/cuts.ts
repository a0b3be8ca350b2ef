import { readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

const name = 'cuts.json'

const cutsSchema = z.record(z.string().regex(/^\d+$/), z.array(z.int().min(0)).min(2))

/**
 * Where requests that may have been received were cut, by partition: ascending offsets, each request from
 * one to the next. A repeat is cut there too, so that it is known for one.
 */
export class Cuts {
  readonly #folder: string
  readonly #known: Map<number, number[]>

  /** A file that cannot be understood is one that is not there: repeats go unrecognised, nothing is lost. */
  static open(folder: string): Cuts {
    try {
      const found = cutsSchema.parse(JSON.parse(readFileSync(join(folder, name), 'utf8')))
      return new Cuts(
        folder,
        new Map(Object.entries(found).map(([key, cut]) => [Number(key), cut])),
      )
    } catch {
      return new Cuts(folder, new Map())
    }
  }

  private constructor(folder: string, known: Map<number, number[]>) {
    this.#folder = folder
    this.#known = known
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
    const file = join(this.#folder, name)
    const handle = await open(`${file}.new`, 'w', 0o640)
    try {
      await handle.writeFile(JSON.stringify(Object.fromEntries(this.#known)))
      await handle.datasync()
    } finally {
      await handle.close()
    }
    // Should a power cut take the new name, the cut before is there: as if there were none.
    await rename(`${file}.new`, file)
  }
}
