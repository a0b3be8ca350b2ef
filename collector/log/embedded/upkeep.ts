import { type Stream, streams } from '../../../shared/reading.ts'
import { perStream } from '../engine.ts'
import type { HeldMemory } from '../held.ts'
import type { PartitionTier } from '../tier/tier.ts'
import { readIndex, type Segment, segmentPath, withFile } from './folder.ts'
import type { Frame } from './frame.ts'
import { hashFile } from './hash.ts'
import { indexName, type SegmentIndex } from './index.ts'
import type { PartitionOptions } from './partition.ts'
import { writeIndex } from './recovery.ts'
import { segmentName } from './segment.ts'
import { expiredStreams, siftSegment } from './sift.ts'
import { snapshotName, snapshotSegment, writeSnapshot } from './snapshot.ts'

/** What upkeep may see and change of the partition. */
export interface Kept {
  /** Oldest first; the last is the active one. */
  segments: readonly Segment[]
}

/**
 * What is done beside the writer, one thing after the other: the index of a sealed segment, snapshots of
 * what is held, retention. No answer rests on it: what fails is logged, and made up for at the next
 * segment or at the next start.
 */
export class Upkeep {
  readonly #options: PartitionOptions
  readonly #memory: HeldMemory
  readonly #kept: Kept
  readonly #tier: PartitionTier | undefined
  /** First segments that the durable snapshots do not cover, newest first. */
  #snapshots: readonly number[]
  /** Of segments that were sifted: the newest ledgers that they were kept for, by agent. */
  readonly #sifted = new Map<number, Map<string, number>>()
  #doing: Promise<void> = Promise.resolve()

  constructor(
    options: PartitionOptions,
    memory: HeldMemory,
    snapshots: readonly number[],
    kept: Kept,
    tier: PartitionTier | undefined,
  ) {
    this.#tier = tier
    this.#options = options
    this.#memory = memory
    this.#snapshots = snapshots
    this.#kept = kept
  }

  afterSealing(segment: Segment, index: SegmentIndex): void {
    const { disk, directory } = this.#options
    this.#do('keep the index of a segment', async () => {
      // First without its hash: readers need the rest of it at once.
      await writeIndex(disk, directory, segment.number, index)
      segment.blocks = undefined
    })
    this.#do('take the hash of a segment', () => this.#hash(segment))
    this.#do('keep a snapshot of what is held', () => this.#snapshot())
    this.retain()
  }

  /** Makes up for what the end of the process before this one has left undone. */
  catchUp(): void {
    for (const segment of this.#kept.segments.slice(0, -1))
      if (!segment.summary.sha256) this.#do('take the hash of a segment', () => this.#hash(segment))
  }

  retain(): void {
    this.#do('remove old segments', () => this.#retain())
  }

  /** Resolves when nothing is being done. */
  async done(): Promise<void> {
    await this.#doing
  }

  #do(what: string, task: () => Promise<void>): void {
    this.#doing = this.#doing.then(task).catch((error) => {
      this.#options.logger.warn({ err: String(error) }, `could not ${what}`)
    })
  }

  async #hash(segment: Segment): Promise<void> {
    const { disk, directory } = this.#options
    const { number, summary } = segment
    const index = await readIndex(disk, directory, number)
    if (index?.summary.end !== summary.end) return
    const hash = await withFile(disk, segmentPath(directory, number), (file) =>
      hashFile(file, summary.end),
    )
    if (!hash) return
    index.summary.sha256 = hash
    await writeIndex(disk, directory, number, index)
    summary.sha256 = hash
  }

  /** As of the beginning of the active segment. Two are kept, since one may turn out damaged. */
  async #snapshot(): Promise<void> {
    const { disk, directory } = this.#options
    const active = this.#kept.segments.at(-1)!
    if (this.#snapshots[0] === active.number) return
    await writeSnapshot(disk, directory, {
      segment: active.number,
      next: perStream((stream) => active.summary.streams[stream].next),
      memory: this.#memory,
    })
    this.#snapshots = [active.number, ...this.#snapshots].slice(0, 2)
    for (const name of await disk.list(directory)) {
      const number = snapshotSegment(name)
      if (number !== undefined && !this.#snapshots.includes(number))
        await disk.remove(`${directory}/${snapshotName(number)}`)
    }
  }

  /**
   * What has grown too old goes from its stream; where the partition is too large, everything but the
   * ledgers, and at last those. An agent's newest ledger does not grow old.
   */
  async #retain(): Promise<void> {
    const { clock, retention } = this.#options
    const nowMs = clock.wallMs()
    // What both snapshots know may go: what is held is remembered without it.
    const covered = this.#snapshots.length < 2 ? 0 : Math.min(...this.#snapshots)
    const mayGo = () => this.#kept.segments.slice(0, -1).filter(({ number }) => number < covered)
    if (this.#tier) return this.#retainWith(this.#tier, mayGo, nowMs)
    for (const segment of mayGo()) {
      const isTooMuch = this.#isTooLarge()
      const expired = expiredStreams(segment.summary.lastArrivedMs, nowMs, retention)
      const goes = (stream: Stream) => isTooMuch || expired[stream]
      if (!streams.some(goes)) break
      await this.#sift(segment, goes)
    }
    for (const segment of mayGo()) {
      if (!this.#isTooLarge()) break
      await this.#remove(segment)
    }
  }

  /** With a tier segments go whole, and only once they are there. */
  async #retainWith(tier: PartitionTier, mayGo: () => Segment[], nowMs: number): Promise<void> {
    const { disk, directory, retention } = this.#options
    await tier.load()
    for (const segment of this.#kept.segments.slice(0, -1))
      await tier.copy(disk, directory, segment)
    for (const segment of mayGo()) {
      const { ageMs = Number.POSITIVE_INFINITY } = retention
      const isOld = segment.summary.lastArrivedMs < nowMs - ageMs
      if (!tier.has(segment.number) || !(isOld || this.#isTooLarge())) break
      await this.#remove(segment)
    }
    const tierAgeMs = this.#options.tier?.ageMs
    if (tierAgeMs !== undefined) await tier.removeBefore(nowMs - tierAgeMs)
  }

  #isTooLarge(): boolean {
    const { retention, segmentBytes } = this.#options
    const room = (retention.bytes ?? Number.POSITIVE_INFINITY) - segmentBytes
    const sealed = this.#kept.segments.slice(0, -1)
    return sealed.reduce((sum, { summary }) => sum + summary.end, 0) > room
  }

  async #sift(segment: Segment, goes: (stream: Stream) => boolean): Promise<void> {
    const { disk, directory, logger } = this.#options
    const { number, summary } = segment
    const gone = streams.filter((stream) => goes(stream) && summary.streams[stream].records > 0)
    const before = this.#sifted.get(number)
    // Looked through before: worth it again once another stream's time is up, or a ledger is superseded.
    const isNewest = (agent: string, offset: number) => this.#memory.newestLedger(agent) === offset
    const isSettled = before && [...before].every(([agent, offset]) => isNewest(agent, offset))
    if (gone.every((stream) => stream === 'ledger' && isSettled)) return
    const kept = new Map<string, number>()
    const keeps = (stream: Stream, { agent, feeds }: Frame) => {
      if (!goes(stream)) return true
      const offset = feeds.ledger.first + feeds.ledger.count - 1
      if (stream !== 'ledger' || !isNewest(agent, offset)) return false
      kept.set(agent, offset)
      return true
    }
    const left = await siftSegment(disk, directory, segment, keeps)
    if (!left) return this.#remove(segment)
    this.#kept.segments = this.#kept.segments.map((each) =>
      each === segment ? left.segment : each,
    )
    this.#sifted.set(number, kept)
    await writeIndex(disk, directory, number, left.index)
    await this.#hash(left.segment)
    logger.debug({ segment: number, streams: gone }, 'took from a segment what is too old')
  }

  async #remove({ number }: Segment): Promise<void> {
    const { disk, directory, logger } = this.#options
    this.#kept.segments = this.#kept.segments.filter((segment) => segment.number !== number)
    this.#sifted.delete(number)
    await disk.remove(`${directory}/${segmentName(number)}`)
    await disk.remove(`${directory}/${indexName(number)}`)
    await disk.syncDirectory(directory)
    logger.debug({ segment: number }, 'removed a segment by retention')
  }
}
