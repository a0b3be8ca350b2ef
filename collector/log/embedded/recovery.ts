import type { Disk, DiskFile } from '../../../shared/ports.ts'
import { type Stream, streams } from '../../../shared/reading.ts'
import { perStream } from '../engine.ts'
import { HeldMemory } from '../held.ts'
import {
  type FoundSegment,
  findSegments,
  readIndex,
  type Segment,
  scanIndex,
  sealedLength,
  segmentPath,
} from './folder.ts'
import { type Frame, isBatch, type Mark } from './frame.ts'
import { encodeIndex, indexName, SegmentIndex } from './index.ts'
import { type Scanned, type SegmentHeader, scanFrames, segmentHeaderLength } from './segment.ts'
import { readSnapshot, replaceFile, type Snapshot, snapshotSegment } from './snapshot.ts'

/** What a partition's folder holds, after what a crash left behind has been cleared. */
export interface Recovered {
  segments: Segment[]
  memory: HeldMemory
  /** Next offsets: never lower than any given out, as far as the folder can tell. */
  next: Record<Stream, number>
  /** The last segment, where it may be appended to. */
  active: { index: SegmentIndex; segment: Segment; header: SegmentHeader } | undefined
  /** Number for the next segment. */
  nextSegment: number
  /** Segments that whole snapshots do not cover, newest snapshot first. */
  snapshots: number[]
  /** Bytes cut from the end: written, never acknowledged. */
  cutBytes: number
  /** Names of files that made no sense and were set aside. */
  setAside: string[]
}

export async function recover(disk: Disk, directory: string): Promise<Recovered> {
  const names = await disk.list(directory)
  for (const name of names) if (name.endsWith('.new')) await disk.remove(`${directory}/${name}`)
  const snapshots = await readSnapshots(disk, directory, names)
  const newest = snapshots[0]
  const memory = newest?.memory ?? new HeldMemory()
  const replay = (_: number, frame: Frame) => {
    memory.replay(frame)
    noteLedger(memory, frame)
  }

  const found = await findSegments(disk, directory)
  const setAside = await dropVoid(disk, directory, found)
  const segments: Segment[] = []
  let cutBytes = 0
  let active: Recovered['active']
  for (const [i, segment] of found.entries()) {
    const { number, mark } = segment
    const seen = number >= (newest?.segment ?? 0) ? replay : undefined
    const following = found[i + 1]
    if (following) {
      const length = sealedLength(segment, following)
      const { summary } = await sealedIndex(disk, directory, segment, length, seen)
      const isSifted = segment.header?.isSifted ?? false
      segments.push({ number, mark, isSifted, summary, blocks: undefined })
      continue
    }
    const tail = await recoverTail(disk, directory, segment, seen)
    cutBytes = tail.cutBytes
    const { summary, blocks } = tail.index
    const last = { number, mark, isSifted: false, summary, blocks }
    segments.push(last)
    if (segment.header) active = { index: tail.index, segment: last, header: segment.header }
  }

  const last = segments.at(-1)
  const next = perStream((stream) =>
    Math.max(last?.summary.streams[stream].next ?? 0, newest?.next[stream] ?? 0),
  )
  // Segments that the snapshot has seen are gone: what follows needs a number that the snapshot does not
  // claim to cover, and a header that says at which offsets it begins.
  const isBehind =
    (last?.number ?? 0) < (newest?.segment ?? 0) ||
    streams.some((stream) => next[stream] !== last?.summary.streams[stream].next)
  if (isBehind) active = undefined
  return {
    segments,
    memory,
    next,
    active,
    nextSegment: Math.max((last?.number ?? 0) + 1, newest?.segment ?? 1),
    snapshots: snapshots.map(({ segment }) => segment),
    cutBytes,
    setAside,
  }
}

/** Remembers which ledger of an agent is its newest: retention keeps that one. */
export function noteLedger(memory: HeldMemory, { agent, feeds }: Frame): void {
  const { first, count } = feeds.ledger
  if (count > 0) memory.noteLedger(agent, first + count - 1)
}

/** Whole snapshots, newest first. */
async function readSnapshots(
  disk: Disk,
  directory: string,
  names: readonly string[],
): Promise<Snapshot[]> {
  const numbers = names.map(snapshotSegment).filter((number) => number !== undefined)
  const snapshots: Snapshot[] = []
  for (const number of numbers.sort((a, b) => b - a)) {
    const snapshot = await readSnapshot(disk, directory, number)
    if (snapshot) snapshots.push(snapshot)
  }
  return snapshots
}

/**
 * Takes away last segments without a header and without a frame: a crash fell into their making. One
 * that holds more than a header's worth of bytes is kept under another name.
 */
async function dropVoid(disk: Disk, directory: string, found: FoundSegment[]): Promise<string[]> {
  const setAside: string[] = []
  for (;;) {
    const last = found.at(-1)
    if (!last || last.header) break
    const path = segmentPath(directory, last.number)
    const file = await disk.open(path, 'read')
    const { summary } = await scanIndex(file, last.mark, last.size)
    await file.close()
    if (summary.frames > 0) break
    if (last.size > segmentHeaderLength) {
      await disk.rename(path, `${path}.damaged`)
      setAside.push(`${path}.damaged`)
    } else await disk.remove(path)
    await disk.syncDirectory(directory)
    found.pop()
  }
  return setAside
}

async function sealedIndex(
  disk: Disk,
  directory: string,
  segment: FoundSegment,
  length: number,
  seen: ((position: number, frame: Frame) => void) | undefined,
): Promise<SegmentIndex> {
  const kept = await readIndex(disk, directory, segment.number)
  if (kept && kept.summary.end <= length && !seen) return kept
  const file = await disk.open(segmentPath(directory, segment.number), 'read')
  try {
    const first = segment.header?.first
    const index = await scanIndex(file, segment.mark, length, { first, ...(seen && { seen }) })
    await writeIndex(disk, directory, segment.number, index)
    return index
  } finally {
    await file.close()
  }
}

export async function writeIndex(
  disk: Disk,
  directory: string,
  number: number,
  index: SegmentIndex,
): Promise<void> {
  await replaceFile(disk, directory, indexName(number), (write) => write([encodeIndex(index)]))
}

/** Cuts the last segment behind the last frame that counts. */
async function recoverTail(
  disk: Disk,
  directory: string,
  segment: FoundSegment,
  seen: ((position: number, frame: Frame) => void) | undefined,
): Promise<{ index: SegmentIndex; cutBytes: number }> {
  const file = await disk.open(segmentPath(directory, segment.number), 'write')
  try {
    const { index, group } = await readTail(file, segment, seen)
    const { end } = index.summary
    const cutBytes = (await writtenEnd(file, end, segment.size)) - end
    await settle(file, group, end, segment.size)
    return { index, cutBytes }
  } finally {
    await file.close()
  }
}

/** Where what was written behind `from` ends. Zeros at the end are room that was made ahead. */
async function writtenEnd(file: DiskFile, from: number, size: number): Promise<number> {
  for (let to = size; to > from; ) {
    const start = Math.max(from, to - pieceBytes)
    const piece = await file.read(start, to - start)
    const last = piece.findLastIndex((byte) => byte !== 0)
    if (last >= 0) return start + last + 1
    to = start
  }
  return from
}

const pieceBytes = 64 * 1024

/**
 * Finds what counts in a segment that nothing follows. Everything before the group that was written last
 * is durable, since a group is written only once the one before it is synced: damage there is damage,
 * and stays. Of the last group itself a crash may have left any part; nothing of it was acknowledged
 * unless all of it is there, so it ends at the first frame that is not whole. One that is a group by itself may not
 * have been looked through.
 */
export async function readTail(
  file: DiskFile,
  segment: FoundSegment,
  seen: (position: number, frame: Frame) => void = () => {},
): Promise<{ index: SegmentIndex; group: number }> {
  const frames: { position: number; frame: Frame }[] = []
  const all = { from: segmentHeaderLength, to: segment.size, mark: segment.mark }
  for await (const found of scanFrames(file, { ...all, bodies: () => false }))
    if (found.kind === 'frame') frames.push(found)
  const group = Math.min(frames.at(-1)?.frame.group ?? segmentHeaderLength, segment.size)
  const counted = frames.filter(({ position }) => position < group)
  counted.push(...(await wholeFrames(file, { ...all, from: group })))
  const first = perStream((stream) => counted[0]?.frame.feeds[stream].first ?? 0)
  const index = SegmentIndex.empty(segment.header?.first ?? first, segmentHeaderLength)
  for (const { position, frame } of counted) {
    index.add(position, frame)
    seen(position, frame)
  }
  return { index, group }
}

type Whole = Extract<Scanned, { kind: 'frame' }>

/** The frames of a group that are whole and have no damage before them. */
async function wholeFrames(
  file: DiskFile,
  range: { from: number; to: number; mark: Mark | undefined },
): Promise<Whole[]> {
  const frames: Whole[] = []
  for await (const found of scanFrames(file, { ...range, bodies: () => true, untilBad: true }))
    if (found.kind === 'frame') frames.push(found)
  const [only] = frames
  return only && frames.length === 1 && !isBatch(only.frame, only.body!) ? [] : frames
}

/**
 * Makes the last group durable and the file end behind it. The group may have come out of memory that
 * the kernel failed to write and forgot about (so it does after a failed fsync): it is written again.
 */
async function settle(file: DiskFile, group: number, end: number, size: number): Promise<void> {
  // Damage before a group of which nothing is left goes with it.
  const from = Math.min(group, end)
  const bytes = await file.read(from, end - from)
  if (bytes.length > 0) await file.write([bytes], from)
  if (size > end) await file.truncate(end)
  if (bytes.length > 0 || size > end) await file.sync()
}
