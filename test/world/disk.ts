import type { Disk, DiskFile } from '../../shared/ports.ts'
import type { Seeded } from '../support/seeded.ts'
import type { Coverage } from './coverage.ts'
import type { Process } from './machine.ts'

type Change =
  | { kind: 'write'; offset: number; bytes: Uint8Array }
  | { kind: 'truncate'; size: number }

/** A file's content: as the system shows it, as it would survive, and what lies between, in order. */
class Inode {
  current: Bytes
  synced: Bytes
  unsynced: Change[] = []
  readonly isDirectory: boolean

  constructor(content = new Bytes(), { isDirectory = false } = {}) {
    this.current = content
    this.synced = content.copy()
    this.isDirectory = isDirectory
  }

  change(change: Change): void {
    this.current.apply(change)
    this.unsynced.push(change)
  }

  sync(isMeant: (change: Change) => boolean): void {
    for (const change of this.unsynced) if (isMeant(change)) this.synced.apply(change)
    this.unsynced = this.unsynced.filter((change) => !isMeant(change))
  }
}

/** A name made, moved or removed, and not known to survive. */
interface NameChange {
  directory: string
  set?: { path: string; inode: Inode }
  unset?: string
}

/** What makes a disk fail, as long as it is set; probabilities per operation. */
export interface DiskTrouble {
  full: boolean
  eioWrite: number
  eioSync: number
  shortWrite: number
  /** A sync takes up to this much longer, ms. */
  slowMs: number
}

const noTrouble: DiskTrouble = { full: false, eioWrite: 0, eioSync: 0, shortWrite: 0, slowMs: 0 }

/** A disk as it was: whole files by path. */
export type DiskImage = ReadonlyMap<string, Uint8Array | undefined>

/**
 * A disk whose crashes are as bad as POSIX allows: of what was not synced any subset survives, one write
 * torn, and names of directories that were not synced may be gone. A failed sync forgets, as Linux does,
 * part of what it should have written, and the next one says that all is well.
 */
export class SimulatedDisk {
  trouble: DiskTrouble = { ...noTrouble }
  readonly #seeded: Seeded
  readonly #coverage: Coverage
  #names = new Map<string, Inode>()
  #syncedNames = new Map<string, Inode>()
  #unsyncedNames: NameChange[] = []
  readonly #forgotten = new WeakSet<Change>()

  constructor(seeded: Seeded, coverage: Coverage) {
    this.#seeded = seeded
    this.#coverage = coverage
  }

  /** Called as the next write begins. */
  nextWrite: (() => void) | undefined
  /** Called as the next name is made, moved or removed. */
  nextName: (() => void) | undefined

  heal(): void {
    this.trouble = { ...noTrouble }
  }

  /** The disk as a process uses it. Reading takes no time, changing does. */
  port(process: Process): Disk {
    return new Port(this, process)
  }

  /** What is there now, for an observer: no time passes and nothing fails. */
  view(): Disk {
    return new Port(this, undefined)
  }

  /** Power is lost. */
  crash(): void {
    const seeded = this.#seeded
    for (const change of this.#unsyncedNames) {
      if (seeded.chance(0.5)) applyName(this.#syncedNames, change)
      else this.#coverage.hit('disk name dropped')
    }
    this.#unsyncedNames = []
    this.#names = new Map()
    for (const [path, inode] of this.#syncedNames) {
      if (!this.#isReachable(path)) this.#syncedNames.delete(path)
      else this.#names.set(path, inode)
    }
    for (const inode of new Set(this.#names.values())) this.#tear(inode)
  }

  #isReachable(path: string): boolean {
    for (let parent = directoryOf(path); parent !== ''; parent = directoryOf(parent))
      if (!this.#syncedNames.has(parent)) return false
    return true
  }

  #tear(inode: Inode): void {
    const seeded = this.#seeded
    const torn = seeded.below(Math.max(1, inode.unsynced.length))
    for (const [index, change] of inode.unsynced.entries()) {
      if (index === torn && change.kind === 'write' && change.bytes.length > 1) {
        // Its end is missing, or something in its middle.
        const { bytes, offset } = change
        const from = seeded.below(bytes.length)
        const to = seeded.chance(0.5) ? bytes.length : from + 1 + seeded.below(bytes.length - from)
        inode.synced.apply({ ...change, bytes: bytes.subarray(0, from) })
        if (to < bytes.length)
          inode.synced.apply({ ...change, bytes: bytes.subarray(to), offset: offset + to })
        this.#coverage.hit('disk torn write')
      } else if (seeded.chance(0.5)) inode.synced.apply(change)
      else this.#coverage.hit('disk write dropped')
    }
    inode.unsynced = []
    inode.current = inode.synced.copy()
  }

  image(): DiskImage {
    return new Map(
      [...this.#names].map(([path, inode]) => [
        path,
        inode.isDirectory ? undefined : inode.current.slice(0, inode.current.size),
      ]),
    )
  }

  /** Everything is as it was in the image. */
  restore(image: DiskImage): void {
    this.#names = new Map(
      [...image].map(([path, content]) => [
        path,
        new Inode(new Bytes(content), { isDirectory: content === undefined }),
      ]),
    )
    this.#syncedNames = new Map(this.#names)
    this.#unsyncedNames = []
  }

  /** Flips one bit of one file; says where. */
  flip(): { path: string; offset: number } | undefined {
    const files = [...this.#names].filter(([, { current }]) => current.size > 0)
    if (files.length === 0) return undefined
    const [path, inode] = this.#seeded.pick(files)
    const offset = this.#seeded.below(inode.current.size)
    const bit = 1 << this.#seeded.below(8)
    inode.current.flip(offset, bit)
    inode.synced.flip(offset, bit)
    this.#coverage.hit('disk bit flip')
    return { path, offset }
  }

  get(path: string): Inode {
    const inode = this.#names.get(path)
    if (!inode || inode.isDirectory) throw failure('ENOENT', path)
    return inode
  }

  list(directory: string): string[] {
    const prefix = `${directory}/`
    return [...this.#names.keys()]
      .filter((path) => path.startsWith(prefix) && !path.includes('/', prefix.length))
      .map((path) => path.slice(prefix.length))
      .sort()
  }

  makeDirectory(directory: string): void {
    const parts = directory.split('/')
    for (let i = 1; i <= parts.length; i++) {
      const path = parts.slice(0, i).join('/')
      if (this.#names.has(path)) continue
      this.#setName(path, new Inode(undefined, { isDirectory: true }))
    }
  }

  create(path: string): Inode {
    if (this.#names.has(path)) throw failure('EEXIST', path)
    if (!this.#names.get(directoryOf(path))?.isDirectory) throw failure('ENOENT', path)
    if (this.trouble.full && this.#seeded.chance(0.5)) throw this.#full(path)
    const inode = new Inode()
    this.#setName(path, inode)
    return inode
  }

  rename(from: string, to: string): void {
    const inode = this.get(from)
    this.#change({ directory: directoryOf(to), set: { path: to, inode }, unset: from })
  }

  remove(path: string): void {
    if (!this.#names.has(path)) return
    this.#change({ directory: directoryOf(path), unset: path })
  }

  syncDirectory(directory: string): void {
    if (directory !== '' && !this.#names.has(directory)) throw failure('ENOENT', directory)
    this.#failSync(directory)
    const rest: NameChange[] = []
    for (const change of this.#unsyncedNames)
      if (change.directory === directory) applyName(this.#syncedNames, change)
      else rest.push(change)
    this.#unsyncedNames = rest
  }

  /** @throws ENOSPC or EIO; part of the bytes may then have been written */
  write(inode: Inode, chunks: readonly Uint8Array[], offset: number): Change {
    this.nextWrite?.()
    this.nextWrite = undefined
    const bytes = Buffer.concat(chunks)
    const { full, eioWrite, shortWrite } = this.trouble
    const seeded = this.#seeded
    const isShort = seeded.chance(shortWrite)
    if (full || isShort || seeded.chance(eioWrite)) {
      const part = full || isShort ? seeded.below(bytes.length + 1) : 0
      if (part > 0) {
        inode.change({ kind: 'write', offset, bytes: bytes.subarray(0, part) })
        this.#coverage.hit('disk short write')
      }
      if (full) throw this.#full('write')
      this.#coverage.hit('disk EIO on write')
      throw failure('EIO', 'write')
    }
    const change: Change = { kind: 'write', offset, bytes }
    inode.change(change)
    return change
  }

  /** @param only makes this one durable, and nothing that came before it */
  sync(inode: Inode, only?: Change): void {
    // A descriptor is told what a sync of another has made the system forget.
    if (only && this.#forgotten.has(only)) throw failure('EIO', 'sync')
    const isMeant = (change: Change) => only === undefined || change === only
    try {
      this.#failSync('sync')
    } catch (error) {
      // What could not be written is forgotten: a later sync knows nothing of it.
      inode.unsynced = inode.unsynced.filter((change) => {
        const stays = !isMeant(change) || this.#seeded.chance(0.5)
        if (!stays) this.#forgotten.add(change)
        return stays
      })
      throw error
    }
    inode.sync(isMeant)
  }

  #failSync(what: string): void {
    if (!this.#seeded.chance(this.trouble.eioSync)) return
    this.#coverage.hit('disk EIO on sync')
    throw failure('EIO', what)
  }

  #full(what: string): Error {
    this.#coverage.hit('disk ENOSPC')
    return failure('ENOSPC', what)
  }

  #setName(path: string, inode: Inode): void {
    this.#change({ directory: directoryOf(path), set: { path, inode } })
  }

  #change(change: NameChange): void {
    this.nextName?.()
    this.nextName = undefined
    applyName(this.#names, change)
    this.#unsyncedNames.push(change)
  }

  /** Virtual time of an operation, ms. */
  delayMs(kind: 'change' | 'sync'): number {
    if (kind === 'change') return 0.05 + 0.2 * this.#seeded.uniform()
    const { slowMs } = this.trouble
    if (slowMs > 0) this.#coverage.hit('disk slow')
    return 0.5 + (5 + slowMs) * this.#seeded.uniform()
  }
}

class Port implements Disk {
  readonly #disk: SimulatedDisk
  readonly #process: Process | undefined

  constructor(disk: SimulatedDisk, process: Process | undefined) {
    this.#disk = disk
    this.#process = process
  }

  async list(directory: string): Promise<string[]> {
    return this.#disk.list(directory)
  }

  async makeDirectory(directory: string): Promise<void> {
    await this.#wait('change')
    this.#disk.makeDirectory(directory)
  }

  async open(path: string, mode: 'read' | 'write' | 'create'): Promise<DiskFile> {
    if (mode === 'create') await this.#wait('change')
    const disk = this.#disk
    const inode = mode === 'create' ? disk.create(path) : disk.get(path)
    const writable = () => {
      if (mode === 'read') throw failure('EBADF', path)
    }
    const write = async (chunks: readonly Uint8Array[], offset: number) => {
      writable()
      await this.#wait('change')
      return disk.write(inode, chunks, offset)
    }
    const sync = async (only?: Change) => {
      await this.#wait('sync')
      disk.sync(inode, only)
      // Between a sync that has happened and news of it, a process may die.
      await this.#wait('change')
    }
    return {
      size: async () => inode.current.size,
      read: async (offset, length) => inode.current.slice(offset, offset + length),
      write: async (chunks, offset) => {
        await write(chunks, offset)
      },
      writeSynced: async (chunks, offset) => sync(await write(chunks, offset)),
      sync: () => sync(),
      truncate: async (size) => {
        writable()
        await this.#wait('change')
        inode.change({ kind: 'truncate', size })
      },
      close: async () => {},
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#wait('change')
    this.#disk.rename(from, to)
  }

  async remove(path: string): Promise<void> {
    await this.#wait('change')
    this.#disk.remove(path)
  }

  async syncDirectory(directory: string): Promise<void> {
    await this.#wait('sync')
    this.#disk.syncDirectory(directory)
  }

  #wait(kind: 'change' | 'sync'): Promise<void> {
    if (!this.#process) throw failure('EROFS', 'a view is not written to')
    return this.#process.wait(this.#disk.delayMs(kind))
  }
}

/** A byte array that grows. */
class Bytes {
  size: number
  #bytes: Uint8Array

  constructor(content: Uint8Array = new Uint8Array(0)) {
    this.#bytes = content.slice()
    this.size = content.length
  }

  copy(): Bytes {
    return new Bytes(this.#bytes.subarray(0, this.size))
  }

  slice(start: number, end: number): Uint8Array {
    return this.#bytes.slice(start, Math.max(start, Math.min(end, this.size)))
  }

  flip(offset: number, bit: number): void {
    if (offset < this.size) this.#bytes[offset]! ^= bit
  }

  apply(change: Change): void {
    if (change.kind === 'truncate') {
      this.#grow(change.size)
      this.#bytes.fill(0, Math.min(change.size, this.size), this.size)
      this.size = change.size
      return
    }
    const end = change.offset + change.bytes.length
    this.#grow(end)
    this.#bytes.set(change.bytes, change.offset)
    this.size = Math.max(this.size, end)
  }

  /** New bytes are zero, as where a file has a hole. */
  #grow(size: number): void {
    if (size <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(size, 2 * this.#bytes.length, 1024))
    grown.set(this.#bytes.subarray(0, this.size))
    this.#bytes = grown
  }
}

function applyName(names: Map<string, Inode>, { set, unset }: NameChange): void {
  if (unset !== undefined) names.delete(unset)
  if (set) names.set(set.path, set.inode)
}

function directoryOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

export function failure(code: string, what: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${what}`), { code })
}
