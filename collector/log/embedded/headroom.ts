import type { DiskFile } from '../../../shared/ports.ts'

/** Larger groups gain little: what they bring takes longer than what the file system notes of them. */
const smallGroupBytes = 32 * 1024

/**
 * Room at the end of a segment, made ahead: zeros that are on the disk. A group that is written over them changes
 * nothing of the file system's own, so a small one is synced in about half the time. Where a segment is sealed,
 * closed, recovered or given up, the file is cut behind its last frame; whoever reads it before passes over zeros.
 */
export class Headroom {
  readonly #file: DiskFile
  readonly #bytes: number
  readonly #limit: number
  /** Up to here the file is made: while zeros are on their way they come behind it. */
  #to: number
  /** There is no room before the segment reaches this far: one that hardly grows is not filled with zeros. */
  #wantedFrom: number
  #making: Promise<void> | undefined
  #failed = false

  /**
   * @param place.end where the segment ends
   * @param place.bytes made at a time
   * @param place.limit the file is not made longer than this
   */
  constructor(
    file: DiskFile,
    { end, bytes, limit }: { end: number; bytes: number; limit: number },
  ) {
    this.#file = file
    this.#to = end
    this.#wantedFrom = end + bytes
    this.#bytes = bytes
    this.#limit = limit
  }

  /** Whether making room failed: as after any failed write or sync, nobody knows what stands in the file from there on. */
  get failed(): boolean {
    return this.#failed
  }

  /** Resolves when all before `end` may be written: no zeros are on their way that would come to lie over it. */
  async free(end: number): Promise<void> {
    if (end > this.#to) await this.#making
  }

  /** A group of `length` bytes has been synced, up to `end`: makes room for more like it, by and by. */
  written(end: number, length: number): void {
    if (this.#making || this.#failed) return
    this.#to = Math.max(this.#to, end)
    const isWanted = length <= smallGroupBytes && end >= this.#wantedFrom
    if (!isWanted || this.#to - end >= this.#bytes / 2) return
    if (this.#to + this.#bytes > this.#limit) return
    this.#making = this.#make().finally(() => {
      this.#making = undefined
    })
  }

  /** Cuts the file at `end`, where the segment ends. @throws what the disk does */
  async cut(end: number): Promise<void> {
    await this.#making
    await this.#file.truncate(end)
    this.#to = end
    this.#wantedFrom = end + this.#bytes
  }

  async #make(): Promise<void> {
    const from = this.#to
    try {
      await this.#file.write([new Uint8Array(this.#bytes)], from)
      await this.#file.sync()
      this.#to = from + this.#bytes
    } catch {
      this.#failed = true
      // A full disk has use for the space.
      await this.#file.truncate(from).catch(() => {})
    }
  }
}
