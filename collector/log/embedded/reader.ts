import type { Disk, DiskFile } from '../../../shared/ports.ts'
import type { LogItem, ReadRequest } from '../engine.ts'
import type { PartitionTier } from '../tier/tier.ts'
import { isGone, readIndex, type Segment, scanIndex, segmentPath } from './folder.ts'
import type { Frame } from './frame.ts'
import type { Block, StreamSummary } from './index.ts'
import { decodeSegmentHeader, scanFrames, segmentHeaderLength } from './segment.ts'

/** A partition as its readers see it, whether this process writes it or another. */
export interface PartitionView {
  readonly disk: Disk
  readonly directory: string
  readonly partition: number
  /** Has what the disk has no longer. */
  readonly tier?: PartitionTier | undefined
  /** Oldest first, as of now. What a summary counts is whole on disk. */
  readonly segments: readonly Segment[]
  /** Goes up with every change of `segments` and of what they hold. */
  readonly version: number
  /**
   * Resolves to true once the version is another than `seen`, to false when it will not change any more
   * or the signal aborts.
   */
  changed(seen: number, signal: AbortSignal | undefined): Promise<boolean>
}

/** Reads one stream of one partition by way of the index, a frame at a time as the caller asks. */
export async function* readPartition(
  view: PartitionView,
  request: ReadRequest,
): AsyncGenerator<LogItem> {
  const reading = new Reading(view, request)
  let seen: number
  do {
    seen = view.version
    for (const segment of view.segments) {
      if (request.signal?.aborted || reading.isComplete) return
      yield* reading.segment(segment)
    }
  } while (request.follow && !reading.isComplete && (await view.changed(seen, request.signal)))
}

/** What a block of a segment holds of the stream, and from where to where it stands in the file. */
interface Stretch extends Pick<StreamSummary, 'first' | 'next' | 'fromMs' | 'toMs'> {
  position: number
  end: number
}

class Reading {
  readonly #view: PartitionView
  readonly #stream: ReadRequest['stream']
  readonly #wanted: { fromOffset: number; toOffset: number; fromMs: number; toMs: number }
  readonly #signal: AbortSignal | undefined
  /** Offset that must come next, since nothing was left out: where it does not, the disk has lost some. */
  #expected: number | undefined
  /** How far the segments have been read. */
  #done = { segment: 0, position: 0 }
  /** Retention has taken frames from the segment that is being read. */
  #isSifted = false

  constructor(view: PartitionView, request: ReadRequest) {
    this.#view = view
    this.#stream = request.stream
    this.#signal = request.signal
    this.#wanted = {
      fromOffset: request.fromOffset ?? 0,
      toOffset: request.toOffset ?? Number.POSITIVE_INFINITY,
      fromMs: request.fromMs ?? Number.NEGATIVE_INFINITY,
      toMs: request.toMs ?? Number.POSITIVE_INFINITY,
    }
  }

  get isComplete(): boolean {
    return this.#expected !== undefined && this.#expected >= this.#wanted.toOffset
  }

  async *segment(segment: Segment): AsyncGenerator<LogItem> {
    if (segment.number < this.#done.segment) return
    // Taken before anything is awaited: the active segment grows meanwhile.
    const { end } = segment.summary
    const held = { ...segment.summary.streams[this.#stream] }
    const from = segment.number === this.#done.segment ? this.#done.position : segmentHeaderLength
    this.#done = { segment: segment.number, position: end }
    this.#isSifted = segment.isSifted
    if (from === segmentHeaderLength) yield* this.#reach(held.first)
    else if (from >= end) return
    if (held.first === held.next || this.isComplete) {
      if (this.#isSifted) this.#expected = undefined
      return
    }
    if (!this.#mayHold(held)) {
      this.#expected = undefined
      return
    }
    const stretches = await stretchesOf(this.#view, segment, end, held, this.#stream)
    const file = stretches && (await openSegment(this.#view, segment.number))
    if (!file) {
      // Retention has taken it since.
      this.#expected = undefined
      return
    }
    try {
      // It may have been sifted since it was listed.
      const header = decodeSegmentHeader(await file.read(0, segmentHeaderLength))
      this.#isSifted ||= header?.isSifted ?? false
      for (const stretch of stretches) {
        if (stretch.end <= from || stretch.first === stretch.next) continue
        if (this.#signal?.aborted || this.isComplete) return
        if (!this.#mayHold(stretch)) {
          this.#expected = undefined
          continue
        }
        if (stretch.position >= from) this.#expected ??= stretch.first
        yield* this.#frames(file, segment, Math.max(stretch.position, from), stretch.end)
      }
    } finally {
      await file.close()
    }
    yield* this.#reach(held.next)
    // Offsets behind its last frame may be gone as well.
    if (this.#isSifted) this.#expected = undefined
  }

  async *#frames(
    file: DiskFile,
    segment: Segment,
    from: number,
    to: number,
  ): AsyncGenerator<LogItem> {
    const stream = this.#stream
    const bodies = (frame: Frame) =>
      frame.feeds[stream].count > 0 &&
      this.#mayHold({
        ...frame.feeds[stream],
        next: frame.feeds[stream].first + frame.feeds[stream].count,
      })
    const scan = scanFrames(file, { from, to, mark: segment.mark, bodies })
    for await (const found of scan) {
      if (found.kind === 'bad') continue
      const { frame, body } = found
      const { first, count } = frame.feeds[stream]
      if (count === 0) continue
      yield* this.#reach(first)
      this.#expected = first + count
      if (!body) continue
      const { headLength: _, bodyLength: __, bodyCrc: ___, group: ____, ...batch } = frame
      yield { type: 'batch', partition: this.#view.partition, ...batch, body }
    }
  }

  /** Says what is missing before `next`, unless it was meant to go. */
  *#reach(next: number): Iterable<LogItem> {
    if (this.#isSifted) {
      this.#expected = next
      return
    }
    const { fromOffset, toOffset } = this.#wanted
    const first = Math.max(this.#expected ?? next, fromOffset)
    const last = Math.min(next, toOffset) - 1
    const { partition } = this.#view
    if (first <= last) yield { type: 'damage', stream: this.#stream, partition, first, last }
    this.#expected = Math.max(next, this.#expected ?? next)
  }

  #mayHold(range: Pick<StreamSummary, 'first' | 'next' | 'fromMs' | 'toMs'>): boolean {
    const { fromOffset, toOffset, fromMs, toMs } = this.#wanted
    return (
      range.next > fromOffset &&
      range.first < toOffset &&
      range.toMs >= fromMs &&
      range.fromMs < toMs
    )
  }
}

async function openSegment(view: PartitionView, number: number): Promise<DiskFile | undefined> {
  const path = segmentPath(view.directory, number)
  try {
    return await view.disk.open(path, 'read')
  } catch (error) {
    if (await isGone(view.disk, path)) return view.tier?.openSegment(number)
    throw error
  }
}

/** @returns undefined when the segment is gone */
async function stretchesOf(
  view: PartitionView,
  segment: Segment,
  end: number,
  held: StreamSummary,
  stream: ReadRequest['stream'],
): Promise<Stretch[] | undefined> {
  const blocks = segment.blocks ?? (await loadBlocks(view, segment))
  return blocks
    ?.filter((block) => block.position < end)
    .map((block, i, all) => {
      const following = all[i + 1]
      return {
        ...block.streams[stream],
        position: block.position,
        end: following?.position ?? end,
        next: following?.streams[stream].first ?? held.next,
      }
    })
}

async function loadBlocks(view: PartitionView, segment: Segment): Promise<Block[] | undefined> {
  const { disk, directory } = view
  const index =
    (await readIndex(disk, directory, segment.number)) ?? (await view.tier?.index(segment.number))
  if (index?.summary.end === segment.summary.end) return index.blocks
  const file = await openSegment(view, segment.number)
  if (!file) return undefined
  try {
    return (await scanIndex(file, segment.mark, segment.summary.end)).blocks
  } finally {
    await file.close()
  }
}
