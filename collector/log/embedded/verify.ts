import type { Disk } from '../../../shared/ports.ts'
import { type Stream, streams } from '../../../shared/reading.ts'
import { Audit, type VerifyReport } from '../audit.ts'
import { perStream } from '../engine.ts'
import { countPartitions, partitionDirectory } from './embedded.ts'
import {
  type FoundSegment,
  findSegments,
  readIndex,
  sealedLength,
  segmentPath,
  withFile,
} from './folder.ts'
import type { Frame } from './frame.ts'
import { hashFile } from './hash.ts'
import { readTail } from './recovery.ts'
import { type SegmentHeader, scanFrames, segmentHeaderLength } from './segment.ts'
import { readSnapshot, snapshotSegment } from './snapshot.ts'

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
    await verifyPartition(disk, partition, check, breathe)
  return check.report
}

async function verifyPartition(
  disk: Disk,
  partition: number,
  check: Check,
  breathe: () => Promise<void>,
): Promise<void> {
  const directory = partitionDirectory(partition)
  check.partition(partition)
  const found = await findSegments(disk, directory)
  for (const [i, segment] of found.entries()) {
    const following = found[i + 1]
    await withFile(disk, segmentPath(directory, segment.number), async (file) => {
      const to = following
        ? sealedLength(segment, following)
        : (await readTail(file, segment)).index.summary.end
      check.segment(segment, found[i - 1])
      const all = { from: segmentHeaderLength, to, mark: segment.mark, bodies: () => true }
      for await (const each of scanFrames(file, all)) {
        if (each.kind === 'bad') check.bad(each.position, each.end)
        else check.frame(each.position, each.frame, each.body!)
        await breathe()
      }
      const index = following && (await readIndex(disk, directory, segment.number))
      const sealed = index?.summary
      // An index of another length is of the segment as it was before it was sifted: it is made again.
      if (sealed?.end === to && sealed.sha256 && !sameHash(sealed.sha256, await hashFile(file, to)))
        check.problem(`segment ${segment.number}: its SHA-256 is not that which it was sealed with`)
    })
  }
  for (const name of await disk.list(directory)) {
    const number = snapshotSegment(name)
    if (number !== undefined && !(await readSnapshot(disk, directory, number)))
      check.problem(`${name}: damaged; the one before it and the log stand in`)
  }
}

class Check {
  readonly #audit = new Audit()
  #next: Record<Stream, number> | undefined
  #isWhole = true
  #isSifted = false
  #partition = 0
  #number = 0

  get report(): VerifyReport {
    return this.#audit.report
  }

  /** What follows is of another partition, with offsets and segments of its own. */
  partition(number: number): void {
    this.#partition = number
    this.#next = undefined
    this.#isWhole = true
  }

  segment({ number, header }: FoundSegment, before: FoundSegment | undefined): void {
    this.report.segments += 1
    this.#number = number
    // Without the first segment, lanes may begin in the middle: retention has removed the rest.
    this.#isSifted = header?.isSifted ?? false
    if (!before) this.#isWhole = number === 1
    if (this.#isSifted) this.#isWhole = false
    if (this.#isSifted || before?.header?.isSifted) this.#next = undefined
    else if (before && before.number + 1 !== number)
      this.problem(`segment ${before.number + 1} is missing before segment ${number}`)
    if (header) this.#reach(header.first)
    else this.problem(`segment ${number}: its header is damaged`)
  }

  bad(position: number, end: number): void {
    this.problem(`segment ${this.#number}: bytes ${position} to ${end} are damaged`)
  }

  frame(position: number, frame: Frame, body: Uint8Array): void {
    if (this.#isSifted) this.#next = undefined
    this.#reach(perStream((stream) => frame.feeds[stream].first))
    const next = this.#next!
    for (const stream of streams) next[stream] += frame.feeds[stream].count
    const place = this.#where(`segment ${this.#number}, byte ${position}`)
    const bytes = frame.headLength + frame.bodyLength
    this.#audit.batch(frame, body, {
      place,
      bytes,
      isWhole: this.#isWhole,
      isSifted: this.#isSifted,
    })
  }

  problem(text: string): void {
    this.#audit.problem(this.#where(text))
  }

  #where(text: string): string {
    return this.#partition > 0 ? `partition ${this.#partition}, ${text}` : text
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
}

function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
