import type { Disk, DiskFile } from '../../shared/ports.ts'

/** What a disk is asked to do, for a test that wants one of them to fail. */
export type DiskCall =
  | 'list'
  | 'open'
  | 'read'
  | 'write'
  | 'sync'
  | 'truncate'
  | 'rename'
  | 'remove'

interface Stored {
  /** As programs see it. */
  bytes: Uint8Array
  /** As it survives power loss. */
  synced: Uint8Array
}

/**
 * A disk in memory that forgets, when the power is cut, what was not synced: contents and names alike.
 * `before` is asked ahead of every call and may throw, as a disk in trouble does.
 */
export class MemoryDisk implements Disk {
  before: (call: DiskCall, path: string) => void = () => {}
  #files = new Map<string, Stored>()
  #syncedNames = new Map<string, Stored>()

  /** The disk after a power cut; `keep` says what is left of a file whose name was synced. */
  powerCut(keep: (path: string, stored: Readonly<Stored>) => Uint8Array): MemoryDisk {
    const after = new MemoryDisk()
    for (const [path, stored] of this.#syncedNames) {
      const bytes = keep(path, stored).slice()
      const survivor = { bytes, synced: bytes }
      after.#files.set(path, survivor)
      after.#syncedNames.set(path, survivor)
    }
    return after
  }

  async list(directory: string): Promise<string[]> {
    this.before('list', directory)
    const lead = `${directory}/`
    return [...this.#files.keys()]
      .filter((path) => path.startsWith(lead) && !path.slice(lead.length).includes('/'))
      .map((path) => path.slice(lead.length))
      .sort()
  }

  async makeDirectory(): Promise<void> {}

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<DiskFile> {
    this.before('open', path)
    let stored = this.#files.get(path)
    if (mode === 'create') {
      if (stored) throw new Error(`EEXIST ${path}`)
      stored = { bytes: new Uint8Array(0), synced: new Uint8Array(0) }
      this.#files.set(path, stored)
    }
    if (!stored) throw new Error(`ENOENT ${path}`)
    return new MemoryFile(this, path, stored)
  }

  async rename(from: string, to: string): Promise<void> {
    this.before('rename', from)
    const stored = this.#files.get(from)
    if (!stored) throw new Error(`ENOENT ${from}`)
    this.#files.delete(from)
    this.#files.set(to, stored)
  }

  async remove(path: string): Promise<void> {
    this.before('remove', path)
    this.#files.delete(path)
  }

  async syncDirectory(directory: string): Promise<void> {
    this.before('sync', directory)
    const lead = `${directory}/`
    for (const path of [...this.#syncedNames.keys()])
      if (path.startsWith(lead)) this.#syncedNames.delete(path)
    for (const [path, stored] of this.#files)
      if (path.startsWith(lead)) this.#syncedNames.set(path, stored)
  }

  /** For a test that damages a file. */
  bytesOf(path: string): Uint8Array {
    return this.#files.get(path)!.bytes
  }

  syncedOf(path: string): Uint8Array {
    return this.#files.get(path)!.synced
  }
}

class MemoryFile implements DiskFile {
  readonly #disk: MemoryDisk
  readonly #path: string
  readonly #stored: Stored

  constructor(disk: MemoryDisk, path: string, stored: Stored) {
    this.#disk = disk
    this.#path = path
    this.#stored = stored
  }

  async size(): Promise<number> {
    return this.#stored.bytes.length
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#disk.before('read', this.#path)
    return this.#stored.bytes.slice(offset, offset + length)
  }

  async write(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    const whole = Buffer.concat(chunks)
    const write = (piece: Uint8Array) => {
      const end = offset + piece.length
      const bytes = new Uint8Array(Math.max(end, this.#stored.bytes.length))
      bytes.set(this.#stored.bytes)
      bytes.set(piece, offset)
      this.#stored.bytes = bytes
    }
    try {
      this.#disk.before('write', this.#path)
    } catch (error) {
      write(whole.subarray(0, whole.length / 2)) // A full disk takes what fits.
      throw error
    }
    write(whole)
  }

  async writeSynced(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    await this.write(chunks, offset)
    await this.sync()
  }

  async sync(): Promise<void> {
    this.#disk.before('sync', this.#path)
    this.#stored.synced = this.#stored.bytes.slice()
  }

  async truncate(size: number): Promise<void> {
    this.#disk.before('truncate', this.#path)
    this.#stored.bytes = this.#stored.bytes.slice(0, size)
  }

  async close(): Promise<void> {}
}
