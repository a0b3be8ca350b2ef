import { deserialize, serialize } from 'node:v8'
import type { Disk } from '../../shared/ports.ts'
import { readWhole, replaceFile } from '../log/embedded/snapshot.ts'
import { digestOf } from './documents.ts'
import type { Place } from './journal.ts'
import type { FleetSum } from './state.ts'

/** The sum of all facts up to a place in the journal. */
export interface Checkpoint {
  place: Place
  sum: FleetSum
  /** Of the file. The journal names it: what it does not name was put there by somebody else. */
  digest: string
}

const directory = 'checkpoints'
/** Goes up when the sum has another shape, or facts come to another sum; others count for nothing. */
const format = 1

/**
 * Files with a fleet's state, in Node's own serialization, which is made to be stored. Each is written whole or
 * not at all, and named after the last entry that it stands for.
 */
export class Checkpoints {
  readonly #disk: Disk
  /** Oldest first; those that were found, by name. */
  #names: readonly string[]

  static async open(disk: Disk): Promise<Checkpoints> {
    await disk.makeDirectory(directory)
    const found = await disk.list(directory)
    for (const name of found) if (name.endsWith('.new')) await disk.remove(`${directory}/${name}`)
    return new Checkpoints(disk, found.filter((name) => /^\d{16}\.state$/.test(name)).sort())
  }

  private constructor(disk: Disk, names: readonly string[]) {
    this.#disk = disk
    this.#names = names
  }

  /** Those that can be read; whether one is true is for the journal to say. */
  async *newestFirst(): AsyncGenerator<Checkpoint> {
    for (const name of this.#names.toReversed()) {
      const bytes = await readWhole(this.#disk, `${directory}/${name}`).catch(() => undefined)
      const kept = bytes && read(bytes)
      if (kept) yield { ...kept, digest: digestOf(bytes) }
    }
  }

  /** Takes one as of now; `keep` makes it durable. */
  take(place: Place, sum: FleetSum): { digest: string; keep: () => Promise<void> } {
    const bytes = serialize({ format, place, sum })
    const name = `${String(place.n).padStart(16, '0')}.state`
    const keep = async () => {
      await replaceFile(this.#disk, directory, name, (write) => write([bytes]))
      this.#names = [...this.#names.filter((each) => each !== name), name]
    }
    return { digest: digestOf(bytes), keep }
  }

  /** Removes all but the newest two: one may turn out damaged. */
  async forgetOlder(): Promise<void> {
    for (const name of this.#names.slice(0, -2)) await this.#disk.remove(`${directory}/${name}`)
    this.#names = this.#names.slice(-2)
  }
}

function read(bytes: Uint8Array): Pick<Checkpoint, 'place' | 'sum'> | undefined {
  try {
    const kept = deserialize(bytes)
    return kept.format === format ? kept : undefined
  } catch {
    return undefined
  }
}
