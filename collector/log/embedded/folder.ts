import type { Disk, DiskFile } from '../../../shared/ports.ts'
import type { Stream } from '../../../shared/reading.ts'
import { perStream } from '../engine.ts'
import { decodeHead, type Frame, type Mark, maxHeadLength } from './frame.ts'
import { type Block, decodeIndex, indexName, SegmentIndex, type SegmentSummary } from './index.ts'
import {
  decodeSegmentHeader,
  type SegmentHeader,
  scanFrames,
  segmentHeaderLength,
  segmentName,
  segmentNumber,
} from './segment.ts'
import { readWhole } from './snapshot.ts'

/** A segment as readers need it. */
export interface Segment {
  number: number
  /** Undefined where neither its header nor its first frame could be read. */
  mark: Mark | undefined
  /** Retention has taken some of its frames. */
  isSifted: boolean
  /** Grows while it is the active one. */
  summary: SegmentSummary
  /** Of the active segment alone; a sealed one's are in the file beside it. */
  blocks: Block[] | undefined
}

/** A segment as found on disk, before its frames have been looked at. */
export interface FoundSegment {
  number: number
  size: number
  /** Undefined when damaged. */
  header: SegmentHeader | undefined
  mark: Mark | undefined
}

/**
 * The segments of a partition's folder, oldest first.
 *
 * @param known what was found before, of which only the last may have changed
 */
export async function findSegments(
  disk: Disk,
  directory: string,
  known: readonly FoundSegment[] = [],
): Promise<FoundSegment[]> {
  const settled = new Map(known.slice(0, -1).map((segment) => [segment.number, segment]))
  const found: FoundSegment[] = []
  for (const name of await disk.list(directory)) {
    const number = segmentNumber(name)
    if (number === undefined) continue
    const before = settled.get(number)
    if (before) {
      found.push(before)
      continue
    }
    const segment = await withFile(disk, `${directory}/${name}`, async (file) => {
      const size = await file.size()
      const bytes = await file.read(0, segmentHeaderLength + maxHeadLength)
      const header = decodeSegmentHeader(bytes)
      // A damaged header leaves the frames readable: the first one says how they are marked.
      const mark =
        header?.mark ??
        (decodeHead(bytes, segmentHeaderLength) &&
          bytes.slice(segmentHeaderLength, segmentHeaderLength + 8))
      return { number, size, header, mark }
    })
    if (segment) found.push(segment)
  }
  return found
}

/**
 * Where the frames of `segment` end, as its successor says; behind it may stand what was written and
 * never acknowledged.
 */
export function sealedLength(segment: FoundSegment, next: FoundSegment | undefined): number {
  const said = next?.number === segment.number + 1 ? next.header?.previousLength : undefined
  return Math.min(said ?? segment.size, segment.size)
}

/**
 * Builds a segment's index from its frames' heads, up to `to`.
 *
 * @param first offsets with which the segment begins; where its header is damaged, its first frame's
 */
export async function scanIndex(
  file: DiskFile,
  mark: Mark | undefined,
  to: number,
  options: {
    first?: Record<Stream, number> | undefined
    seen?: (position: number, frame: Frame) => void
  } = {},
): Promise<SegmentIndex> {
  let index = options.first && SegmentIndex.empty(options.first, segmentHeaderLength)
  for await (const found of scanFrames(file, {
    from: segmentHeaderLength,
    to,
    mark,
    bodies: () => false,
  })) {
    if (found.kind === 'bad') continue
    const { frame, position } = found
    index ??= SegmentIndex.empty(
      perStream((stream) => frame.feeds[stream].first),
      position,
    )
    index.add(position, frame)
    options.seen?.(position, frame)
  }
  const zero = perStream(() => 0)
  return index ?? SegmentIndex.empty(zero, segmentHeaderLength)
}

/** The index beside a sealed segment; undefined when it is missing, damaged or of another length. */
export async function readIndex(
  disk: Disk,
  directory: string,
  number: number,
): Promise<SegmentIndex | undefined> {
  try {
    return decodeIndex(await readWhole(disk, `${directory}/${indexName(number)}`))
  } catch {
    return undefined
  }
}

/** @returns undefined when the file is gone, as retention may have it */
export async function withFile<T>(
  disk: Disk,
  path: string,
  use: (file: DiskFile) => Promise<T>,
): Promise<T | undefined> {
  let file: DiskFile
  try {
    file = await disk.open(path, 'read')
  } catch (error) {
    if (await isGone(disk, path)) return undefined
    throw error
  }
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

export async function isGone(disk: Disk, path: string): Promise<boolean> {
  const slash = path.lastIndexOf('/')
  return !(await disk.list(path.slice(0, slash))).includes(path.slice(slash + 1))
}

export function segmentPath(directory: string, number: number): string {
  return `${directory}/${segmentName(number)}`
}

/** Makes the folder and what is above it durable: what is in it is lost with the name of a folder on its path. */
export async function makeFolder(disk: Disk, directory: string): Promise<void> {
  await disk.makeDirectory(directory)
  for (let end = directory.length; end > 0; ) {
    end = Math.max(0, directory.lastIndexOf('/', end - 1))
    await disk.syncDirectory(directory.slice(0, end))
  }
}
