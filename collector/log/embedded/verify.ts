import { chainItem, decodeBatch, inflate } from '../../../shared/batch.ts'
import { type Chain, sameChain } from '../../../shared/chain.ts'
import type { Disk } from '../../../shared/ports.ts'
import { SeriesTable, type Stream, streams } from '../../../shared/reading.ts'
import { perStream, streamOfRecord } from '../engine.ts'
import { countPartitions, partitionDirectory } from './embedded.ts'
import { type FoundSegment, findSegments, sealedLength, segmentPath, withFile } from './folder.ts'
import type { Frame } from './frame.ts'
import { readTail } from './recovery.ts'
import { type SegmentHeader, scanFrames, segmentHeaderLength } from './segment.ts'
import { readSnapshot, snapshotSegment } from './snapshot.ts'

export interface VerifyReport {
  segments: number
  frames: number
  bytes: number
  records: Record<Stream, number>
  /** Lanes of all incarnations of all agents. */
  lanes: number
  /** What is wrong, one line each; at most 1,000. */
  problems: string[]
}

const maxProblems = 1000
const maxInflatedBytes = 256 * 1024 * 1024

/**
 * Reads everything: every frame against its checksums, every batch against what the frame says of it,
 * offsets without a gap, and of each lane the sequences and the running hash. Changes nothing.
 *
 * @param breathe called between frames, so that a process with other work gets to it
 */
export async function verifyLog(
  disk: Disk,
  breathe: () => Promise<void> = async () => {},
): Promise<VerifyReport> {
  const check = new Check()
  const partitions = await countPartitions(disk)
  for (let partition = 0; partition < partitions; partition++)
    await verifyPartition(disk, partitionDirectory(partition), check, breathe)
  return check.report
}

async function verifyPartition(
  disk: Disk,
  directory: string,
  check: Check,
  breathe: () => Promise<void>,
): Promise<void> {
  check.partition()
  const found = await findSegments(disk, directory)
  for (const [i, segment] of found.entries()) {
    const following = found[i + 1]
    await withFile(disk, segmentPath(directory, segment.number), async (file) => {
      const { index } = following
        ? { index: { summary: { end: sealedLength(segment, following) } } }
        : await readTail(file, segment)
      const to = index.summary.end
      check.segment(segment, found[i - 1])
      const all = { from: segmentHeaderLength, to, mark: segment.mark, bodies: () => true }
      for await (const each of scanFrames(file, all)) {
        if (each.kind === 'bad') check.bad(each.position, each.end)
        else check.frame(each.position, each.frame, each.body!)
        await breathe()
      }
    })
  }
  for (const name of await disk.list(directory)) {
    const number = snapshotSegment(name)
    if (number !== undefined && !(await readSnapshot(disk, directory, number)))
      check.problem(`${name}: damaged; the one before it and the log stand in`)
  }
}

class Check {
  readonly report: VerifyReport = {
    segments: 0,
    frames: 0,
    bytes: 0,
    records: perStream(() => 0),
    lanes: 0,
    problems: [],
  }
  readonly #lanes = new Map<string, { held: number; chain: Chain }>()
  #next: Record<Stream, number> | undefined
  #isWhole = true
  #number = 0

  /** What follows is of another partition, with offsets and segments of its own. */
  partition(): void {
    this.#next = undefined
    this.#isWhole = true
  }

  segment({ number, header }: FoundSegment, before: FoundSegment | undefined): void {
    this.report.segments += 1
    this.#number = number
    // Without the first segment, lanes may begin in the middle: retention has removed the rest.
    if (!before) this.#isWhole = number === 1
    else if (before.number + 1 !== number)
      this.problem(`segment ${before.number + 1} is missing before segment ${number}`)
    if (header) this.#reach(header.first)
    else this.problem(`segment ${number}: its header is damaged`)
  }

  bad(position: number, end: number): void {
    this.problem(`segment ${this.#number}: bytes ${position} to ${end} are damaged`)
  }

  frame(position: number, frame: Frame, body: Uint8Array): void {
    this.report.frames += 1
    this.report.bytes += frame.headLength + frame.bodyLength
    this.#reach(perStream((stream) => frame.feeds[stream].first))
    const next = this.#next!
    for (const stream of streams) {
      next[stream] += frame.feeds[stream].count
      this.report.records[stream] += frame.feeds[stream].count
    }
    this.#lane(frame)
    const wrong = contradiction(frame, body)
    if (wrong) this.problem(`segment ${this.#number}, byte ${position}: ${wrong}`)
  }

  problem(text: string): void {
    if (this.report.problems.length < maxProblems) this.report.problems.push(text)
  }

  #reach(first: SegmentHeader['first']): void {
    this.#next ??= { ...first }
    for (const stream of streams) {
      const next = this.#next[stream]
      if (first[stream] > next)
        this.problem(`${stream}: offsets ${next} to ${first[stream] - 1} are lost`)
      else if (first[stream] < next)
        this.problem(`${stream}: offsets from ${first[stream]} on are there twice`)
      this.#next[stream] = first[stream]
    }
  }

  #lane(frame: Frame): void {
    const { agent, lane, first, last, before, after } = frame
    const name = `${agent} ${Buffer.from(frame.incarnation).toString('hex')} ${lane}`
    const known = this.#lanes.get(name)
    if (!known) this.report.lanes += 1
    const held = known?.held ?? (this.#isWhole ? 0 : first - 1)
    if (first > held + 1)
      this.problem(`${name}: sequences ${held + 1} to ${first - 1} are neither there nor declared`)
    else if (first <= held) this.problem(`${name}: sequences from ${first} on are there twice`)
    else if (known && !sameChain(known.chain, before))
      this.problem(`${name}: the running hash breaks before sequence ${first}`)
    this.#lanes.set(name, { held: last, chain: after })
  }
}

/** What the frame says of the batch in it, held against the batch. */
function contradiction(frame: Frame, body: Uint8Array): string | undefined {
  try {
    const { header, items } = decodeBatch(
      inflate(body, frame.encoding, maxInflatedBytes),
      new SeriesTable(),
    )
    const counts = perStream(() => 0)
    let chain = header.before
    for (const item of items) {
      if (item.kind === 'readings') counts.readings += item.readings.length
      else if (item.kind === 'gap') counts.gaps += 1
      else for (const { type } of item.records) counts[streamOfRecord[type]] += 1
      chain = chainItem(item, chain)
    }
    if (header.ledger) counts.ledger += 1
    if (header.agent !== frame.agent || header.lane !== frame.lane)
      return 'the batch is not of the agent and lane that its frame says'
    if (header.first !== frame.first || header.last !== frame.last)
      return 'the batch has other sequences than its frame says'
    for (const stream of streams)
      if (counts[stream] !== frame.feeds[stream].count)
        return `the batch has ${counts[stream]} ${stream}, its frame says ${frame.feeds[stream].count}`
    if (!sameChain(chain, header.after)) return 'the running hash is not that of the readings'
    return undefined
  } catch (error) {
    return `the batch cannot be decoded: ${error instanceof Error ? error.message : String(error)}`
  }
}
