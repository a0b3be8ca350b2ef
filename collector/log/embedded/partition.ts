import { sleep } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock, Disk, DiskFile, Random } from '../../../shared/ports.ts'
import { type Lane, type Stream, streams } from '../../../shared/reading.ts'
import { type AppendAnswer, type Entry, type Held, LogFailure, perStream } from '../engine.ts'
import type { HeldMemory } from '../held.ts'
import type { TierStore } from '../tier/store.ts'
import { PartitionTier } from '../tier/tier.ts'
import { Bell } from './bell.ts'
import { makeFolder, type Segment, segmentPath } from './folder.ts'
import { decodeHead, encodeHead, type Frame, makeMark, maxHeadLength } from './frame.ts'
import { Headroom } from './headroom.ts'
import { SegmentIndex } from './index.ts'
import type { PartitionView } from './reader.ts'
import { noteLedger, type Recovered, recover } from './recovery.ts'
import {
  encodeSegmentHeader,
  type SegmentHeader,
  segmentHeaderLength,
  segmentName,
} from './segment.ts'
import { type Kept, Upkeep } from './upkeep.ts'

export interface PartitionOptions {
  disk: Disk
  clock: Clock
  random: Random
  logger: Logger
  /** Folder below the disk's root. */
  directory: string
  partition: number
  /** A segment is sealed before it grows over this. */
  segmentBytes: number
  /** Most bytes that one synced write takes, unless a single batch is larger. */
  groupBytes: number
  /** Room that is made ahead for small groups, at a time; default 1 MiB. */
  headroomBytes?: number
  /** What is too much, or has arrived too long ago; undefined keeps everything. */
  retention: {
    bytes: number | undefined
    ageMs: number | undefined
    /** In place of `ageMs` for a stream; not with a tier. */
    agesMs?: Partial<Record<Stream, number>>
  }
  /** Where sealed segments are copied to, before retention takes them from the disk. */
  tier?: { store: TierStore; ageMs: number | undefined } | undefined
}

interface Waiting {
  entry: Entry
  resolve: (answer: AppendAnswer) => void
  reject: (failure: unknown) => void
}

interface Active {
  file: DiskFile
  segment: Segment
  index: SegmentIndex
  header: SegmentHeader
  headroom: Headroom
}

/** How long a disk in trouble is left alone before it is tried again. */
const healEveryMs = 1000
const upkeepEveryMs = 60_000

/**
 * One folder of segments with one writer. What waits while a group of batches is being synced makes the
 * next group: one write, one sync, then all its answers.
 *
 * Invariant: `index.summary.end` of the active segment is the length that has been synced; nothing behind
 * it is read, answered or remembered.
 */
export class Partition implements PartitionView {
  readonly disk: Disk
  readonly directory: string
  readonly partition: number
  readonly #options: PartitionOptions
  readonly #memory: HeldMemory
  readonly #bell = new Bell()
  readonly #closed = new AbortController()
  readonly #kept: Kept
  readonly #upkeep: Upkeep
  readonly tier: PartitionTier | undefined
  #active: Active
  #state: 'open' | 'healing' | 'closed' = 'open'
  #queue: Waiting[] = []
  #writing: Promise<void> | undefined
  #sealWanted = false
  #cancelUpkeep: () => void = () => {}
  #closing: Promise<void> | undefined

  /** Returns a recovered partition or throws. @throws LogFailure LOG_NEWER */
  static async open(options: PartitionOptions): Promise<Partition> {
    const { disk, directory, clock, logger } = options
    await makeFolder(disk, directory)
    const recovered = await recover(disk, directory)
    if (recovered.cutBytes > 0)
      logger.info({ bytes: recovered.cutBytes }, 'cut what a crash had left at the end of the log')
    for (const file of recovered.setAside) logger.error({ file }, 'set a damaged file aside')
    const active = recovered.active
      ? await reopen(options, recovered.active)
      : await begin(options, {
          number: recovered.nextSegment,
          previousLength: recovered.segments.at(-1)?.summary.end ?? 0,
          first: recovered.next,
        })
    const own = { disk, directory }
    const tier =
      options.tier && new PartitionTier(options.tier.store, clock, options.partition, own)
    await tier?.load().catch((error) => logger.warn({ err: String(error) }, 'cannot read the tier'))
    return new Partition(options, recovered, active, tier)
  }

  private constructor(
    options: PartitionOptions,
    recovered: Recovered,
    active: Active,
    tier: PartitionTier | undefined,
  ) {
    this.tier = tier
    this.disk = options.disk
    this.directory = options.directory
    this.partition = options.partition
    this.#options = options
    this.#memory = recovered.memory
    const { segments, memory, snapshots } = recovered
    this.#kept = { segments: recovered.active ? segments : [...segments, active.segment] }
    this.#upkeep = new Upkeep(options, memory, snapshots, this.#kept, tier)
    this.#active = active
    this.#upkeep.catchUp()
    this.#scheduleUpkeep()
  }

  get state(): 'open' | 'healing' | 'closed' {
    return this.#state
  }

  /** Those on the disk, behind those that only the tier still has. */
  get segments(): readonly Segment[] {
    const { segments } = this.#kept
    if (!this.tier) return segments
    const oldest = segments[0]?.number ?? Number.POSITIVE_INFINITY
    return [...this.tier.segments.filter(({ number }) => number < oldest), ...segments]
  }

  get #isClosed(): boolean {
    return this.#state === 'closed'
  }

  get version(): number {
    return this.#bell.rung
  }

  async changed(seen: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (seen === this.version && !this.#isClosed) await this.#bell.next(signal)
    return !this.#isClosed && !signal?.aborted
  }

  held(agent: string, incarnation: Uint8Array, lane: Lane): Held {
    return this.#memory.of(agent, incarnation, lane)
  }

  /** Whom it has batches of, or had. */
  agents(): Iterable<string> {
    return this.#memory.agents()
  }

  append(entry: Entry): Promise<AppendAnswer> {
    if (this.#closing) return Promise.reject(new LogFailure('LOG_CLOSED', 'it is shutting down'))
    if (this.#state === 'healing')
      return Promise.reject(new LogFailure('LOG_DISK', 'waiting for the disk to take writes again'))
    return new Promise((resolve, reject) => {
      // While the disk is busy there is time for it. One that finds the disk idle is looked through while it syncs.
      if (this.#writing) entry.check?.()
      this.#queue.push({ entry, resolve, reject })
      this.#writing ??= this.#writeAll()
    })
  }

  async retain(): Promise<void> {
    this.#upkeep.retain()
    await this.#upkeep.done()
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  async #shutDown(): Promise<void> {
    this.#cancelUpkeep()
    this.#closed.abort()
    await this.#writing
    await this.#upkeep.done()
    this.#state = 'closed'
    this.#bell.ring()
    await finish(this.#active)
  }

  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0 || this.#sealWanted) {
      const group = this.#takeGroup()
      try {
        if (this.#sealWanted) await this.#roll()
        this.#sealWanted = false
        const answers = await this.#commit(group.map(({ entry }) => entry))
        for (const [i, { resolve }] of group.entries()) resolve(answers[i]!)
      } catch (cause) {
        if (cause instanceof CheckFailure) for (const { reject } of group) reject(cause.cause)
        else await this.#heal(group, cause)
      }
    }
    this.#writing = undefined
  }

  #takeGroup(): Waiting[] {
    let bytes = 0
    let count = 0
    for (const { entry } of this.#queue) {
      bytes += entry.body.length + maxHeadLength
      if (count > 0 && bytes > this.#options.groupBytes) break
      count += 1
    }
    return this.#queue.splice(0, count)
  }

  /** Answers a group. When it throws, nothing of the group has been taken. */
  async #commit(entries: readonly Entry[]): Promise<AppendAnswer[]> {
    const draft = this.#memory.draft()
    const answers = entries.map(({ header }) => draft.judge(header))
    const accepted = entries.filter((_, i) => answers[i]!.code === 'accepted')
    const frames = accepted.length > 0 ? await this.#write(accepted) : []
    check(entries)
    draft.commit()
    for (const frame of frames) noteLedger(this.#memory, frame)
    return answers
  }

  async #write(entries: readonly Entry[]): Promise<Frame[]> {
    const bytes = entries.reduce((sum, { body }) => sum + body.length + maxHeadLength, 0)
    const { summary } = this.#active.index
    const isFull = summary.end + bytes > this.#options.segmentBytes
    await this.#active.headroom.free(summary.end + bytes)
    if (summary.frames > 0 && (isFull || this.#active.headroom.failed)) await this.#roll()

    const { file, index, header, headroom } = this.#active
    const { mark } = header
    const group = index.summary.end
    const next = perStream((stream) => index.summary.streams[stream].next)
    const heads = entries.map((entry) => {
      const head = encodeHead(entry, { mark, group, next })
      for (const stream of streams) next[stream] += entry.feeds[stream].count
      return head
    })
    const chunks = entries.flatMap(({ body }, i) => [heads[i]!, body])
    const written = file.writeSynced(chunks, group)
    const frames = heads.map((head) => decodeHead(head, 0)!)
    await this.#checkMeanwhile(entries, written, group)
    for (const frame of frames) index.add(index.summary.end, frame)
    headroom.written(index.summary.end, index.summary.end - group)
    this.#bell.ring()
    return frames
  }

  /**
   * Only a group of one entry may have something left to check, and where that fails it is taken back. A crash before
   * leaves it at the end of the log, where recovery looks through the last group.
   */
  async #checkMeanwhile(
    entries: readonly Entry[],
    written: Promise<void>,
    group: number,
  ): Promise<void> {
    try {
      check(entries)
    } catch (failure) {
      await written
      const { file, headroom } = this.#active
      await headroom.cut(group)
      await file.sync()
      throw failure
    }
    await written
  }

  /** Seals the active segment and goes on in a new one. */
  async #roll(): Promise<void> {
    const sealed = this.#active
    const { summary } = sealed.index
    await finish(sealed) // First, since a full disk may have no space for the next but in its room.
    this.#active = await begin(this.#options, {
      number: sealed.segment.number + 1,
      previousLength: summary.end,
      first: perStream((stream) => summary.streams[stream].next),
    })
    this.#kept.segments = [...this.#kept.segments, this.#active.segment]
    this.#upkeep.afterSealing(sealed.segment, sealed.index)
  }

  /**
   * Answers nobody with success, and goes on in a fresh segment as soon as the disk lets us. The old one
   * ends where it was last synced: after a failed write or sync nobody knows what stands behind that.
   */
  async #heal(group: readonly Waiting[], cause: unknown): Promise<void> {
    const { logger } = this.#options
    const message = cause instanceof Error ? cause.message : String(cause)
    const failure = new LogFailure('LOG_DISK', message, { cause })
    this.#state = 'healing'
    this.#sealWanted = false
    logger.error({ err: message }, 'the log cannot write: batches are turned away until it can')
    for (const { reject } of [...group, ...this.#queue.splice(0)]) reject(failure)
    for (;;) {
      try {
        await this.#replaceActive()
        break
      } catch (error) {
        logger.debug({ err: String(error) }, 'the log still cannot write')
      }
      if (this.#closed.signal.aborted) return
      await sleep(this.#options.clock, healEveryMs, this.#closed.signal).catch(() => {})
    }
    this.#state = 'open'
    logger.info('the log can write again')
  }

  async #replaceActive(): Promise<void> {
    const { file, segment, index, header, headroom } = this.#active
    const { summary } = index
    // May fail, and does no harm either way; it frees space when the disk is full.
    await headroom.cut(summary.end).catch(() => {})
    const isEmpty = summary.frames === 0
    const next = await begin(this.#options, {
      number: isEmpty ? segment.number : segment.number + 1,
      previousLength: isEmpty ? header.previousLength : summary.end,
      first: perStream((stream) => summary.streams[stream].next),
    })
    await file.close().catch(() => {})
    this.#active = next
    const { segments } = this.#kept
    this.#kept.segments = [...segments.slice(0, isEmpty ? -1 : undefined), next.segment]
    if (!isEmpty) this.#upkeep.afterSealing(segment, index)
  }

  #scheduleUpkeep(): void {
    const { clock, retention } = this.#options
    this.#cancelUpkeep = clock.timer(upkeepEveryMs, () => {
      const { index, header } = this.#active
      const age = clock.wallMs() - header.createdMs
      // Only sealed segments go by age, so one that hardly grows has to be sealed in time.
      const shortest = Math.min(
        retention.ageMs ?? Number.POSITIVE_INFINITY,
        ...Object.values(retention.agesMs ?? {}),
      )
      if (index.summary.frames > 0 && age > shortest / 4) {
        this.#sealWanted = true
        this.#writing ??= this.#writeAll()
      }
      this.#upkeep.retain()
      this.#scheduleUpkeep()
    })
  }
}

/** Says what its `cause` does: that the disk is not at fault. */
class CheckFailure extends Error {}

/** @throws CheckFailure */
function check(entries: readonly Entry[]): void {
  try {
    for (const entry of entries) entry.check?.()
  } catch (cause) {
    throw new CheckFailure('not what it said', { cause })
  }
}

async function reopen(
  options: PartitionOptions,
  active: NonNullable<Recovered['active']>,
): Promise<Active> {
  const { disk, directory } = options
  const file = await disk.open(segmentPath(directory, active.segment.number), 'write')
  return { ...active, file, headroom: headroomOf(file, active.index, options) }
}

function headroomOf(
  file: DiskFile,
  { summary }: SegmentIndex,
  { headroomBytes: bytes = 2 ** 20, segmentBytes: limit }: PartitionOptions,
): Headroom {
  return new Headroom(file, { end: summary.end, bytes, limit })
}

/** Nothing more is written to it. Room that cannot be cut off stays, and readers go by what the next segment says. */
async function finish({ file, headroom, index }: Active): Promise<void> {
  try {
    await headroom.cut(index.summary.end)
    await file.sync()
  } catch {
    // What counts in it has been synced before.
  }
  await file.close().catch(() => {})
}

/** Makes a segment; it is durable, name and all, before anything is written into it. */
async function begin(
  options: PartitionOptions,
  place: Pick<SegmentHeader, 'number' | 'previousLength' | 'first'>,
): Promise<Active> {
  const { disk, directory, clock, random } = options
  const { number, first } = place
  const path = segmentPath(directory, number)
  // An attempt that failed may have left one.
  if ((await disk.list(directory)).includes(segmentName(number))) await disk.remove(path)
  const mark = makeMark(random.bytes(4))
  const header = { ...place, createdMs: clock.wallMs(), mark, isSifted: false }
  const file = await disk.open(path, 'create')
  try {
    await file.write([encodeSegmentHeader(header)], 0)
    await file.sync()
    await disk.syncDirectory(directory)
  } catch (error) {
    await file.close().catch(() => {})
    throw error
  }
  const index = SegmentIndex.empty(first, segmentHeaderLength)
  const { summary, blocks } = index
  const segment = { number, mark, isSifted: false, summary, blocks }
  return { file, segment, index, header, headroom: headroomOf(file, index, options) }
}
