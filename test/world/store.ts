import type { Reserve } from '../../agent/agent.ts'
import { OutboxFailure } from '../../agent/outbox/failure.ts'
import { UserError } from '../../shared/failure.ts'
import type { Store, StoreChange, StoreEntry, StoreRange } from '../../shared/ports.ts'
import type { Seeded } from '../support/seeded.ts'
import type { Coverage } from './coverage.ts'
import { failure } from './disk.ts'
import type { Process } from './machine.ts'

/** One write in LevelDB's log. */
interface LogRecord {
  changes: readonly Change[]
  /** Number of the log file that it stands in. */
  file: number
  /** It survives a loss of power. */
  durable: boolean
  /** It follows a failed write: acknowledged, shown by this handle, and perhaps not there at reopen. */
  behindFailure: boolean
  /** One of its bytes is flipped on disk. */
  flipped: boolean
  /** Tells that it is there. */
  written: () => void
}

/** A key, in Latin-1, which orders as bytes do, and its value. */
type Change = readonly [string, Uint8Array | undefined]

export interface StoreTrouble {
  full: boolean
  /** Probabilities per write. */
  eioWrite: number
  eioSync: number
  /** A sync takes up to this much longer, ms. */
  slowMs: number
}

/** So many writes fit into the reserve. */
const spareWrites = 30
const noTrouble: StoreTrouble = { full: false, eioWrite: 0, eioSync: 0, slowMs: 0 }

/** What a store held, as a backup of its folder would. */
export type StoreImage = ReadonlyMap<string, Uint8Array>

export interface StoreOptions {
  seeded: Seeded
  coverage: Coverage
  /** Log file and memtable are changed for new ones at this size; the old one is turned into a table. */
  writeBufferBytes: number
  /** Sees every write that is asked for, whatever becomes of it; called back once it is there. */
  written(changes: readonly StoreChange[]): () => void
  opened(): void
}

/**
 * The folder of a LevelDB, as it was measured (`level.test.ts` holds the real one to the same):
 * - behind a failed write, later ones are acknowledged, shown, and lost at reopen, in a row;
 * - a flipped byte in the log silently drops records at open: the rest of a log block, or all that follow;
 * - a synced write makes what stands before it in the same log file durable, and not what stands in the
 *   file before, whose memtable is still being written to a table;
 * - at a loss of power, of each log file's asynchronous writes the last ones are lost.
 */
export class SimulatedStore {
  trouble: StoreTrouble = { ...noTrouble }
  readonly #options: StoreOptions
  #tables = new Map<string, Uint8Array>()
  /** What stands in log files and is in memory, not in a table. */
  #log: LogRecord[] = []
  /** What an open handle shows. */
  #shown = new Map<string, Uint8Array>()
  #file = 0
  #fileBytes = 0
  /** A write has failed on this handle. */
  #failed = false
  #lockedBy: Process | undefined
  /** Writes for which the disk has room although it is full; undefined while the reserve is held. */
  #spareWrites: number | undefined

  constructor(options: StoreOptions) {
    this.#options = options
  }

  /** Called as the next write begins. */
  nextWrite: (() => void) | undefined

  heal(): void {
    this.trouble = { ...noTrouble }
  }

  /** @throws UserError while a live process holds it; OutboxFailure on a full disk */
  async open(process: Process): Promise<Store> {
    await process.wait(1)
    if (this.#lockedBy?.alive) throw new UserError('another running agent holds it')
    if (this.#isFull() && this.#options.seeded.chance(0.5)) {
      this.#options.coverage.hit('store ENOSPC')
      throw new OutboxFailure('OUTBOX_OPEN_FAILED', 'ENOSPC: open')
    }
    this.#lockedBy = process
    this.#options.opened()
    this.#recover()
    return new Handle(this, process)
  }

  /** Disk space kept aside, beside the folder. */
  reserve(process: Process): Reserve {
    return {
      release: async () => {
        await process.wait(1)
        this.#spareWrites ??= spareWrites
      },
      restore: async () => {
        await process.wait(1)
        if (this.#spareWrites !== undefined && this.trouble.full) return false
        this.#spareWrites = undefined
        return true
      },
    }
  }

  #isFull(): boolean {
    return this.trouble.full && (this.#spareWrites ?? 0) <= 0
  }

  unlock(process: Process): void {
    if (this.#lockedBy === process) this.#lockedBy = undefined
  }

  /** Power is lost: of what is not durable, each file keeps its first part. */
  crash(): void {
    const kept: LogRecord[] = []
    for (const file of new Set(this.#log.map((record) => record.file))) {
      const records = this.#log.filter((record) => record.file === file)
      const durable = records.findLastIndex((record) => record.durable) + 1
      const survivors = durable + this.#options.seeded.below(records.length - durable + 1)
      if (survivors < records.length) this.#options.coverage.hit('store async writes lost')
      kept.push(...records.slice(0, survivors))
    }
    this.#log = kept
  }

  /** The folder as it is now, copied. */
  image(): StoreImage {
    const image = new Map(this.#tables)
    for (const record of this.#log) {
      if (record.behindFailure) continue
      apply(image, record.changes)
      record.written()
    }
    return image
  }

  /** Everything is as it was in the image. */
  restore(image: StoreImage): void {
    this.#tables = new Map(image)
    this.#log = []
  }

  /**
   * Flips a byte of a record in the log that others follow which survive; false when there is none. Damage at
   * the very end is for who looks at the raw log, before LevelDB opens it.
   */
  flipLog(): boolean {
    const { length } = this.#surviving()
    if (length < 3) return false
    this.#log[this.#options.seeded.below(length - 2)]!.flipped = true
    return true
  }

  /** The log up to a failed write, if there was one. */
  #surviving(): LogRecord[] {
    const failure = this.#log.findIndex((record) => record.behindFailure)
    return failure < 0 ? this.#log : this.#log.slice(0, failure)
  }

  /** Flips a byte of a value in a table; false when there is none. */
  flipValue(): boolean {
    const { seeded, coverage } = this.#options
    const filled = [...this.#tables].filter(([, value]) => value.length > 0)
    if (filled.length === 0) return false
    // Entries of the outbox are few among what else there is.
    const entries = filled.filter(([key]) => key[0] === 'e')
    const [key, value] = seeded.pick(entries.length > 0 && seeded.chance(0.5) ? entries : filled)
    const damaged = value.slice()
    damaged[seeded.below(value.length)]! ^= 1 << seeded.below(8)
    this.#tables.set(key, damaged)
    coverage.hit('store flipped value')
    return true
  }

  /** What an open handle shows. */
  get shown(): ReadonlyMap<string, Uint8Array> {
    return this.#shown
  }

  show(record: LogRecord): void {
    apply(this.#shown, record.changes)
    record.written()
  }

  /** @throws what the disk does to a write */
  append(changes: readonly StoreChange[], written: () => void): LogRecord {
    this.nextWrite?.()
    this.nextWrite = undefined
    const { seeded, coverage, writeBufferBytes } = this.#options
    const { eioWrite } = this.trouble
    const full = this.#isFull()
    if (this.#spareWrites !== undefined) this.#spareWrites -= 1
    if (full || seeded.chance(eioWrite)) {
      coverage.hit(full ? 'store ENOSPC' : 'store EIO on write')
      this.#failed = true
      throw failure(full ? 'ENOSPC' : 'EIO', 'write')
    }
    if (this.#fileBytes > writeBufferBytes) {
      this.#file += 1
      this.#fileBytes = 0
    }
    for (const { key, value } of changes) this.#fileBytes += 16 + key.length + (value?.length ?? 0)
    const record = {
      changes: changes.map(({ key, value }) => [latin1(key), value?.slice()] as const),
      file: this.#file,
      durable: false,
      behindFailure: this.#failed,
      flipped: false,
      written,
    }
    this.#log.push(record)
    return record
  }

  sync(record: LogRecord): void {
    const { seeded, coverage } = this.#options
    if (seeded.chance(this.trouble.eioSync)) {
      coverage.hit('store EIO on sync')
      this.#failed = true
      record.behindFailure = true
      throw failure('EIO', 'sync')
    }
    for (const other of this.#log) if (other.file === record.file) other.durable = true
  }

  /** A memtable is waiting to become a table. */
  get isCompactionDue(): boolean {
    return !this.#failed && this.#log.length > 0 && this.#log[0]!.file !== this.#file
  }

  /** The memtables before the current one become tables; their logs, damaged or not, are of no more use. */
  compact(): void {
    if (!this.isCompactionDue) return
    const current = this.#log.findIndex(({ file }) => file === this.#file)
    for (const { changes } of this.#log.splice(0, current)) apply(this.#tables, changes)
  }

  /** What LevelDB does at open: replays its log, as far as it can read it, into a table. */
  #recover(): void {
    const { seeded, coverage } = this.#options
    const lost = new Set<LogRecord>()
    const surviving = this.#surviving()
    for (const [index, { flipped }] of surviving.entries()) {
      if (!flipped) continue
      const following = surviving.length - 1 - index
      const end = index + 1 + seeded.below(Math.max(1, Math.min(8, following)))
      for (const record of surviving.slice(index, end)) lost.add(record)
      coverage.hit('store flipped log byte')
    }
    const behind = this.#log.filter((record) => record.behindFailure)
    // Measured: 171 to 400 of 400, in a row from the failure on.
    const gone = Math.ceil(behind.length * (0.4 + 0.6 * seeded.uniform()))
    for (const record of behind.slice(0, gone)) lost.add(record)
    if (gone > 0) coverage.hit('store lost after an error')
    for (const record of this.#log) {
      if (lost.has(record)) continue
      apply(this.#tables, record.changes)
      record.written()
    }
    this.#log = []
    this.#shown = new Map(this.#tables)
    this.#file += 1
    this.#fileBytes = 0
    this.#failed = false
  }

  written(changes: readonly StoreChange[]): () => void {
    return this.#options.written(changes)
  }

  /** Virtual time of an operation, ms. */
  delayMs(kind: 'append' | 'sync' | 'read'): number {
    const { seeded } = this.#options
    if (kind !== 'sync') return 0.02 + 0.2 * seeded.uniform()
    const { slowMs } = this.trouble
    if (slowMs > 0) this.#options.coverage.hit('store slow')
    return 1 + (5 + slowMs) * seeded.uniform()
  }
}

class Handle implements Store {
  readonly #folder: SimulatedStore
  readonly #process: Process
  #writing: Promise<unknown> = Promise.resolve()
  #compacting = false
  #closing: Promise<void> | undefined

  constructor(folder: SimulatedStore, process: Process) {
    this.#folder = folder
    this.#process = process
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    this.#check()
    return this.#folder.shown.get(latin1(key))?.slice()
  }

  write(changes: readonly StoreChange[], { sync }: { sync: boolean }): Promise<void> {
    this.#check()
    const written = this.#folder.written(changes)
    const done = this.#writing.then(() => this.#write(changes, sync, written))
    this.#writing = done.catch(() => {})
    return done
  }

  async #write(changes: readonly StoreChange[], sync: boolean, written: () => void): Promise<void> {
    const folder = this.#folder
    await this.#process.wait(folder.delayMs('append'))
    const record = folder.append(changes, written)
    if (folder.isCompactionDue && !this.#compacting) {
      this.#compacting = true
      this.#process.after(10 * folder.delayMs('sync'), () => {
        this.#compacting = false
        folder.compact()
      })
    }
    if (sync) {
      await this.#process.wait(folder.delayMs('sync'))
      folder.sync(record)
      // Between a write that is durable and news of it, a process may die.
      await this.#process.wait(folder.delayMs('append'))
    }
    folder.show(record)
  }

  async *read({ gte, lt, reverse = false, limit = -1 }: StoreRange): AsyncIterable<StoreEntry> {
    this.#check()
    const [from, to] = [latin1(gte), latin1(lt)]
    const found: [string, Uint8Array][] = []
    for (const entry of this.#folder.shown) if (entry[0] >= from && entry[0] < to) found.push(entry)
    found.sort(([a], [b]) => (a < b ? -1 : 1))
    if (reverse) found.reverse()
    await this.#process.wait(this.#folder.delayMs('read'))
    for (const [key, value] of limit < 0 ? found : found.slice(0, limit))
      yield { key: bytesOf(key), value: value.slice() }
  }

  close(): Promise<void> {
    this.#closing ??= this.#writing.then(() => this.#folder.unlock(this.#process))
    return this.#closing
  }

  #check(): void {
    if (this.#closing) throw failure('LEVEL_DATABASE_NOT_OPEN', 'the store is closed')
  }
}

function apply(contents: Map<string, Uint8Array>, changes: readonly Change[]): void {
  for (const [key, value] of changes)
    if (value) contents.set(key, value)
    else contents.delete(key)
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}

function bytesOf(key: string): Uint8Array {
  return Uint8Array.from(Buffer.from(key, 'latin1'))
}
