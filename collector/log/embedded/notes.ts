import type { Disk } from '../../../shared/ports.ts'
import { LogFailure } from '../engine.ts'
import { moved, type Note, type Notes } from '../notes.ts'
import { makeFolder } from './folder.ts'
import { readWhole, replaceFile } from './snapshot.ts'

/** Notes as files, `<name>.json`, of a folder that this process alone writes. */
export class DiskNotes implements Notes {
  readonly isShared = false
  readonly #disk: Disk
  readonly #known = new Map<string, Note>()
  readonly #made = new Set<string>()
  /** Until what is under way with a note has ended. */
  readonly #busy = new Map<string, Promise<unknown>>()
  #revisions = 0

  constructor(disk: Disk) {
    this.#disk = disk
  }

  read(name: string): Promise<Note> {
    return this.#inTurn(name, () => this.#read(name))
  }

  write(name: string, text: string | undefined, expected: number): Promise<number | typeof moved> {
    return this.#inTurn(name, () => this.#write(name, text, expected))
  }

  async #read(name: string): Promise<Note> {
    const known = this.#known.get(name)
    if (known) return known
    const { directory, file } = placeOf(name)
    const text = await onDisk(async () => {
      if (!(await this.#disk.list(directory)).includes(file)) return undefined
      const bytes = await readWhole(this.#disk, `${directory}/${file}`)
      return new TextDecoder().decode(bytes)
    })
    this.#revisions += 1
    const note = { text, revision: text === undefined ? 0 : this.#revisions }
    this.#known.set(name, note)
    return note
  }

  async #write(
    name: string,
    text: string | undefined,
    expected: number,
  ): Promise<number | typeof moved> {
    if ((await this.#read(name)).revision !== expected) return moved
    // What a failed write has left is looked at anew.
    this.#known.delete(name)
    await onDisk(() => (text === undefined ? this.#remove(name) : this.#replace(name, text)))
    this.#revisions += 1
    const revision = text === undefined ? 0 : this.#revisions
    this.#known.set(name, { text, revision })
    return revision
  }

  async list(prefix: string): Promise<string[]> {
    const { directory } = placeOf(prefix)
    const names = await onDisk(() => this.#disk.list(directory))
    return names
      .filter((name) => name.endsWith(suffix))
      .map((name) => `${directory}/${name.slice(0, -suffix.length)}`)
      .filter((name) => name.startsWith(prefix))
  }

  async setAside(name: string): Promise<void> {
    const { directory, file } = placeOf(name)
    await this.#disk.rename(`${directory}/${file}`, `${directory}/${file}.damaged`)
    this.#known.delete(name)
  }

  async #inTurn<T>(name: string, task: () => Promise<T>): Promise<T> {
    const result = (this.#busy.get(name) ?? Promise.resolve()).then(task)
    const ended = result.catch(() => {})
    this.#busy.set(name, ended)
    await ended
    if (this.#busy.get(name) === ended) this.#busy.delete(name)
    return result
  }

  async #replace(name: string, text: string): Promise<void> {
    const { directory, file } = placeOf(name)
    if (!this.#made.has(directory)) await makeFolder(this.#disk, directory)
    this.#made.add(directory)
    const bytes = new TextEncoder().encode(`${text}\n`)
    await replaceFile(this.#disk, directory, file, (write) => write([bytes]))
  }

  async #remove(name: string): Promise<void> {
    const { directory, file } = placeOf(name)
    if ((await this.#disk.list(directory)).includes(file))
      await this.#disk.remove(`${directory}/${file}`)
    await this.#disk.syncDirectory(directory)
  }
}

const suffix = '.json'

function placeOf(name: string): { directory: string; file: string } {
  const slash = name.lastIndexOf('/')
  return { directory: name.slice(0, slash), file: `${name.slice(slash + 1)}${suffix}` }
}

async function onDisk<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    throw new LogFailure('LOG_DISK', (cause as Error).message, { cause })
  }
}
