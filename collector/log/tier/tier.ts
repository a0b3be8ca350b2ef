import type { Clock, Disk, DiskFile } from '../../../shared/ports.ts'
import { formatTime } from '../../../shared/time-text.ts'
import { type Segment, segmentPath, withFile } from '../embedded/folder.ts'
import { decodeIndex, indexName, type SegmentIndex } from '../embedded/index.ts'
import { segmentName } from '../embedded/segment.ts'
import { readWhole, replaceFile } from '../embedded/snapshot.ts'
import { LogFailure } from '../engine.ts'
import {
  asSegment,
  type Manifest,
  readManifest,
  type TierSegment,
  writeManifest,
} from './manifest.ts'
import { type TierStore, wholeObject } from './store.ts'

/** Fetched together: an object is read front to back, and each request costs a round trip. */
const aheadBytes = 4 * 1024 * 1024
/** Beside the partition's segments: the manifest as it was last written. */
const ownName = 'tier.json'

/**
 * Copies of a partition's sealed segments, which readers go on in where the disk has them no longer.
 *
 * ```
 * partition=0/date=2026-01-31/000000000001.segment   by the day of its last arrival
 * partition=0/date=2026-01-31/000000000001.index
 * partition=0/manifest.json                          what is there, and what was deleted on purpose
 * ```
 */
export class PartitionTier {
  readonly #store: TierStore
  readonly #clock: Clock
  readonly #root: string
  readonly #disk: Disk
  readonly #directory: string
  #manifest: Manifest = { segments: [], removed: [] }
  #isLoaded = false
  /** Oldest first; none before `load`. */
  segments: readonly Segment[] = []

  /** @param own the partition's own folder, which keeps a copy of the manifest */
  constructor(
    store: TierStore,
    clock: Clock,
    partition: number,
    own: { disk: Disk; directory: string },
  ) {
    this.#store = store
    this.#clock = clock
    this.#root = `partition=${partition}`
    this.#disk = own.disk
    this.#directory = own.directory
  }

  /**
   * Learns what is there, unless it has. The log goes on without while the tier cannot be reached: but readers
   * know by our own copy what they have to wait for, and a folder that is not mounted is not taken for a new one.
   */
  async load(): Promise<void> {
    if (this.#isLoaded) return
    const names = await this.#disk.list(this.#directory)
    const own = names.includes(ownName) ? await readWhole(this.#disk, this.#ownPath) : undefined
    try {
      if (own) this.#take(readManifest(own))
    } catch {
      // Damaged: the tier's own counts anyhow.
    }
    const bytes = await this.#store.get(`${this.#root}/manifest.json`)
    if (bytes) {
      this.#take(readManifest(bytes))
      if (!own || Buffer.compare(own, bytes) !== 0) await this.#saveOwn(bytes)
    } else if (own)
      throw new LogFailure(
        'LOG_REFUSED',
        `the tier has lost its manifest: is it mounted? If it is to begin anew, remove ${this.#ownPath}`,
      )
    this.#isLoaded = true
  }

  get #ownPath(): string {
    return `${this.#directory}/${ownName}`
  }

  has(number: number): boolean {
    return this.#find(number) !== undefined
  }

  /** Copies a segment whose hash is known; it counts once the manifest names it. */
  async copy(disk: Disk, directory: string, segment: Segment): Promise<void> {
    const { number, mark, isSifted, summary } = segment
    if (!summary.sha256 || this.has(number)) return
    const day = formatTime(summary.lastArrivedMs).slice(0, 10)
    const path = `${this.#root}/date=${day}/${segmentName(number)}`
    const { end: length, sha256 } = summary
    const index = await readWhole(disk, `${directory}/${indexName(number)}`)
    const done = await withFile(disk, segmentPath(directory, number), async (file) => {
      const read = (offset: number, count: number) => file.read(offset, count)
      await this.#store.put(path, { length, sha256, read })
      return true
    })
    if (!done) return
    await this.#putBytes(indexPath(path), index)
    const segments = [...this.#manifest.segments, { number, path, mark, isSifted, summary }]
    segments.sort((a, b) => a.number - b.number)
    await this.#save({ ...this.#manifest, segments })
  }

  /** Deletes what arrived before a time; the manifest says so first. */
  async removeBefore(timeMs: number): Promise<void> {
    const { segments, removed } = this.#manifest
    const gone = segments.filter(({ summary }) => summary.lastArrivedMs < timeMs)
    if (gone.length === 0) return
    const at = formatTime(this.#clock.wallMs())
    const [first, last] = [gone[0]!.number, gone.at(-1)!.number]
    await this.#save({
      segments: segments.filter((segment) => !gone.includes(segment)),
      removed: [...removed, { first, last, at, reason: `older than ${formatTime(timeMs)}` }],
    })
    for (const { path } of gone) {
      await this.#store.remove(indexPath(path))
      await this.#store.remove(path)
    }
  }

  /** @returns undefined when it has none of that number */
  openSegment(number: number): DiskFile | undefined {
    const found = this.#find(number)
    return found && new TierFile(this.#store, found.path, found.summary.end)
  }

  async index(number: number): Promise<SegmentIndex | undefined> {
    const found = this.#find(number)
    const bytes = found && (await reached(() => this.#store.get(indexPath(found.path))))
    return bytes && decodeIndex(bytes)
  }

  #find(number: number): TierSegment | undefined {
    return this.#manifest.segments.find((segment) => segment.number === number)
  }

  async #save(manifest: Manifest): Promise<void> {
    const bytes = writeManifest(manifest)
    await this.#putBytes(`${this.#root}/manifest.json`, bytes)
    await this.#saveOwn(bytes)
    this.#take(manifest)
  }

  #saveOwn(bytes: Uint8Array): Promise<void> {
    return replaceFile(this.#disk, this.#directory, ownName, (write) => write([bytes]))
  }

  #take(manifest: Manifest): void {
    this.#manifest = manifest
    this.segments = manifest.segments.map(asSegment)
  }

  #putBytes(path: string, bytes: Uint8Array): Promise<void> {
    return this.#store.put(path, wholeObject(bytes))
  }
}

function indexPath(path: string): string {
  return path.replace(/\.segment$/, '.index')
}

/** Who reads while the tier is away comes back, as with a cluster that is. @throws LogFailure LOG_DISK */
async function reached<T>(ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    throw new LogFailure('LOG_DISK', `the tier cannot be read: ${String(cause)}`, { cause })
  }
}

/** An object, to be read as a file. */
class TierFile implements DiskFile {
  readonly #store: TierStore
  readonly #path: string
  readonly #length: number
  #start = 0
  #bytes: Uint8Array = new Uint8Array(0)

  constructor(store: TierStore, path: string, length: number) {
    this.#store = store
    this.#path = path
    this.#length = length
  }

  async size(): Promise<number> {
    return this.#length
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const wanted = Math.max(0, Math.min(length, this.#length - offset))
    const at = offset - this.#start
    if (at >= 0 && at + wanted <= this.#bytes.length) return this.#bytes.subarray(at, at + wanted)
    const count = Math.min(Math.max(wanted, aheadBytes), this.#length - offset)
    const bytes = await reached(() => this.#store.range(this.#path, offset, count))
    if (!bytes) throw new LogFailure('LOG_DISK', `${this.#path} is gone from the tier`)
    this.#start = offset
    this.#bytes = bytes
    return bytes.subarray(0, wanted)
  }

  write(): Promise<void> {
    return Promise.reject(new TypeError('objects are written once'))
  }

  writeSynced(): Promise<void> {
    return this.write()
  }

  sync(): Promise<void> {
    return this.write()
  }

  truncate(): Promise<void> {
    return this.write()
  }

  async close(): Promise<void> {}
}
