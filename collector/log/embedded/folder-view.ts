import { sleep } from '../../../shared/clock.ts'
import type { Clock, Disk, DiskFile } from '../../../shared/ports.ts'
import type { LogItem, ReadRequest, Statistics } from '../engine.ts'
import { countPartitions, partitionDirectory } from './embedded.ts'
import {
  type FoundSegment,
  findSegments,
  readIndex,
  type Segment,
  scanIndex,
  sealedLength,
  segmentPath,
  withFile,
} from './folder.ts'
import { type Frame, isBatch } from './frame.ts'
import { SegmentIndex } from './index.ts'
import { type PartitionView, readPartition } from './reader.ts'
import { readTail } from './recovery.ts'
import { scanFrames } from './segment.ts'
import { statisticsOf } from './statistics.ts'

/** How often a folder is looked at for more. */
const pollEveryMs = 200

/** Reads a log's folder without a lock and without writing, also while a collector writes it. */
export class FolderView {
  readonly #partitions: readonly PartitionFolder[]

  /** @returns undefined when there is no log in the folder */
  static async open(disk: Disk, clock: Clock): Promise<FolderView | undefined> {
    const partitions: PartitionFolder[] = []
    const count = await countPartitions(disk)
    while (partitions.length < count)
      partitions.push(await PartitionFolder.open(disk, clock, partitions.length))
    const hasLog = partitions.some(({ segments }) => segments.length > 0)
    return hasLog ? new FolderView(partitions) : undefined
  }

  private constructor(partitions: readonly PartitionFolder[]) {
    this.#partitions = partitions
  }

  get partitions(): number {
    return this.#partitions.length
  }

  read(request: ReadRequest): AsyncIterable<LogItem> {
    const partition = this.#partitions[request.partition ?? 0]
    if (!partition) throw new RangeError(`there is no partition ${request.partition}`)
    return readPartition(partition, request)
  }

  async statistics(partition?: number): Promise<Statistics> {
    const wanted = this.#partitions.filter(
      (each) => (partition ?? each.partition) === each.partition,
    )
    return statisticsOf(wanted.map(({ segments }) => segments))
  }
}

class PartitionFolder implements PartitionView {
  readonly disk: Disk
  readonly directory: string
  readonly partition: number
  readonly #clock: Clock
  #segments: readonly Segment[] = []
  #found: readonly FoundSegment[] = []
  #version = 0

  static async open(disk: Disk, clock: Clock, partition: number): Promise<PartitionFolder> {
    const folder = new PartitionFolder(disk, clock, partition)
    await folder.#look()
    return folder
  }

  private constructor(disk: Disk, clock: Clock, partition: number) {
    this.disk = disk
    this.directory = partitionDirectory(partition)
    this.partition = partition
    this.#clock = clock
  }

  get segments(): readonly Segment[] {
    return this.#segments
  }

  get version(): number {
    return this.#version
  }

  async changed(seen: number, signal: AbortSignal | undefined): Promise<boolean> {
    for (;;) {
      if (seen !== this.#version) return true
      await sleep(this.#clock, pollEveryMs, signal).catch(() => {})
      if (signal?.aborted) return false
      await this.#look()
    }
  }

  async #look(): Promise<void> {
    const found = await findSegments(this.disk, this.directory, this.#found)
    const last = found.at(-1)
    const lastBefore = this.#found.at(-1)
    const isSame =
      found.length === this.#found.length &&
      last?.number === lastBefore?.number &&
      last?.size === lastBefore?.size
    this.#found = found
    // What was not taken in at its end may have become something else of the same length.
    const endBefore = this.#segments.at(-1)?.summary.end
    if (isSame && (last === undefined || last.size === endBefore)) return
    const known = new Map(this.#segments.map((segment) => [segment.number, segment]))
    const segments: Segment[] = []
    for (const [i, segment] of found.entries()) {
      const now = await this.#segment(segment, found[i + 1], known.get(segment.number))
      if (now) segments.push(now)
    }
    this.#segments = segments
    if (!isSame || segments.at(-1)?.summary.end !== endBefore) this.#version += 1
  }

  /** @returns undefined when it is gone meanwhile */
  async #segment(
    found: FoundSegment,
    following: FoundSegment | undefined,
    before: Segment | undefined,
  ): Promise<Segment | undefined> {
    const { number, mark } = found
    const isSifted = found.header?.isSifted ?? false
    const isSealed = before !== undefined && before.blocks === undefined
    if (isSealed) return before
    const path = segmentPath(this.directory, number)
    if (following) {
      const length = sealedLength(found, following)
      const kept = await readIndex(this.disk, this.directory, number)
      const index =
        kept && kept.summary.end <= length
          ? kept
          : await withFile(this.disk, path, (file) =>
              scanIndex(file, mark, length, { first: found.header?.first }),
            )
      return index && { number, mark, isSifted, summary: index.summary, blocks: undefined }
    }
    const index = await withFile(this.disk, path, async (file) =>
      before?.blocks && before.summary.end <= found.size
        ? extend(new SegmentIndex(before.summary, before.blocks), file, found)
        : (await readTail(file, found)).index,
    )
    return index && { number, mark, isSifted, ...index }
  }
}

/** Takes in what another process has appended, as far as it is whole; the last may not have been looked through. */
async function extend(
  index: SegmentIndex,
  file: DiskFile,
  { mark, size }: FoundSegment,
): Promise<SegmentIndex> {
  const more = { from: index.summary.end, to: size, mark, bodies: () => true, untilBad: true }
  let last: { position: number; frame: Frame; body: Uint8Array | undefined } | undefined
  for await (const found of scanFrames(file, more)) {
    if (found.kind === 'bad') continue
    if (last) index.add(last.position, last.frame)
    last = found
  }
  if (last && isBatch(last.frame, last.body!)) index.add(last.position, last.frame)
  return index
}
