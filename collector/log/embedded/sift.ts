import type { Disk, DiskFile } from '../../../shared/ports.ts'
import { type Stream, streams } from '../../../shared/reading.ts'
import { perStream } from '../engine.ts'
import { type Segment, segmentPath, withFile } from './folder.ts'
import { decodeHead, type Frame, moveHead } from './frame.ts'
import { SegmentIndex } from './index.ts'
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  scanFrames,
  segmentHeaderLength,
} from './segment.ts'
import { replaceFile } from './snapshot.ts'

/**
 * Takes from a sealed segment what streams keep no longer: frames that feed no stream any more go, and
 * the others feed only those that keep them. The file is replaced whole or not at all.
 *
 * @param keeps whether a stream keeps what it has from a frame
 * @returns the segment as it is then; undefined when nothing is left, and nothing has been changed
 */
export async function siftSegment(
  disk: Disk,
  directory: string,
  segment: Segment,
  keeps: (stream: Stream, frame: Frame) => boolean,
): Promise<{ segment: Segment; index: SegmentIndex } | undefined> {
  const { number, mark } = segment
  const path = segmentPath(directory, number)
  return withFile(disk, path, async (file) => {
    const header = decodeSegmentHeader(await file.read(0, segmentHeaderLength))
    if (!mark || !header) return undefined // Nobody knows what it is: it goes with the others.
    const index = SegmentIndex.empty(header.first, segmentHeaderLength)
    const kept = keptFrames(file, segment, keeps)
    const first = await kept.next()
    if (first.done) return undefined
    await replaceFile(disk, directory, path.slice(directory.length + 1), async (write) => {
      await write([encodeSegmentHeader({ ...header, isSifted: true })])
      for (let next: IteratorResult<Kept, void> = first; !next.done; next = await kept.next()) {
        const { frame, body, streams } = next.value
        const group = index.summary.end
        const head = moveHead(frame, body, { mark, group, kept: streams })
        await write([head, body])
        index.add(group, decodeHead(head, 0)!)
      }
    })
    const { summary } = index
    return { segment: { number, mark, isSifted: true, summary, blocks: undefined }, index }
  })
}

interface Kept {
  frame: Frame
  body: Uint8Array
  streams: ReadonlySet<Stream>
}

async function* keptFrames(
  file: DiskFile,
  segment: Segment,
  keeps: (stream: Stream, frame: Frame) => boolean,
): AsyncGenerator<Kept, void> {
  const keptOf = (frame: Frame) =>
    streams.filter((stream) => frame.feeds[stream].count > 0 && keeps(stream, frame))
  const range = { from: segmentHeaderLength, to: segment.summary.end, mark: segment.mark }
  const bodies = (frame: Frame) => keptOf(frame).length > 0
  for await (const found of scanFrames(file, { ...range, bodies }))
    if (found.kind === 'frame' && found.body)
      yield { frame: found.frame, body: found.body, streams: new Set(keptOf(found.frame)) }
}

/** Which streams keep what arrived up to then no longer. */
export function expiredStreams(
  lastArrivedMs: number,
  nowMs: number,
  retention: { ageMs: number | undefined; agesMs?: Partial<Record<Stream, number>> },
): Record<Stream, boolean> {
  return perStream((stream) => {
    const ageMs = retention.agesMs?.[stream] ?? retention.ageMs ?? Number.POSITIVE_INFINITY
    return lastArrivedMs < nowMs - ageMs
  })
}
