import { chainItem, decodeBatch, inflate, readingsOf } from '../../shared/batch.ts'
import { type Chain, sameChain } from '../../shared/chain.ts'
import { SeriesTable, type Stream, streams } from '../../shared/reading.ts'
import { maxInflatedBytes, perStream, type StoredBatch, streamOfRecord } from './engine.ts'

/** What was found by reading a whole log. */
export interface VerifyReport {
  /** Files of the embedded log; partitions of others. */
  segments: number
  /** Batches. */
  frames: number
  bytes: number
  records: Record<Stream, number>
  /** Lanes of all incarnations of all agents. */
  lanes: number
  /** What is wrong, one line each; at most 1,000. */
  problems: string[]
}

const maxProblems = 1000

/** What a log says of a batch. */
type StoredBatchFacts = Omit<StoredBatch, 'body' | 'partition'>

/** Gathers what is wrong with a log while its batches pass by, each lane's in their order. */
export class Audit {
  readonly report: VerifyReport = {
    segments: 0,
    frames: 0,
    bytes: 0,
    records: perStream(() => 0),
    lanes: 0,
    problems: [],
  }
  readonly #lanes = new Map<string, { held: number; chain: Chain }>()

  /**
   * @param about where it stands, what it takes there, and whether the log is whole from its beginning
   *   on, so that no lane begins in the middle, or sifted, so that some batches and feeds are gone
   */
  batch(
    stored: StoredBatchFacts,
    body: Uint8Array,
    about: { place: string; bytes: number; isWhole: boolean; isSifted?: boolean },
  ): void {
    this.report.frames += 1
    this.report.bytes += about.bytes
    for (const stream of streams) this.report.records[stream] += stored.feeds[stream].count
    const { isWhole, isSifted = false } = about
    if (!isSifted) this.#lane(stored, isWhole)
    const wrong = contradiction(stored, body, isSifted)
    if (wrong) this.problem(`${about.place}: ${wrong}`)
  }

  problem(text: string): void {
    if (this.report.problems.length < maxProblems) this.report.problems.push(text)
  }

  #lane(stored: StoredBatchFacts, isWhole: boolean): void {
    const { agent, lane, first, last, before, after } = stored
    const name = `${agent} ${Buffer.from(stored.incarnation).toString('hex')} ${lane}`
    const known = this.#lanes.get(name)
    if (!known) this.report.lanes += 1
    const held = known?.held ?? (isWhole ? 0 : first - 1)
    if (first > held + 1)
      this.problem(`${name}: sequences ${held + 1} to ${first - 1} are neither there nor declared`)
    else if (first <= held) this.problem(`${name}: sequences from ${first} on are there twice`)
    else if (known && !sameChain(known.chain, before))
      this.problem(`${name}: the running hash breaks before sequence ${first}`)
    this.#lanes.set(name, { held: last, chain: after })
  }
}

/** What the frame says of the batch in it, held against the batch. */
function contradiction(
  stored: StoredBatchFacts,
  body: Uint8Array,
  isSifted: boolean,
): string | undefined {
  try {
    const { header, items } = decodeBatch(
      inflate(body, stored.encoding, maxInflatedBytes),
      new SeriesTable(),
    )
    const counts = perStream(() => 0)
    let chain = header.before
    for (const item of items) {
      counts.readings += readingsOf(item).length
      if (item.kind === 'gap') counts.gaps += 1
      else if (item.kind === 'records')
        for (const { type } of item.records) counts[streamOfRecord[type]] += 1
      chain = chainItem(item, chain)
    }
    if (header.ledger) counts.ledger += 1
    if (header.agent !== stored.agent || header.lane !== stored.lane)
      return 'the batch is not of the agent and lane that the log says'
    if (header.first !== stored.first || header.last !== stored.last)
      return 'the batch has other sequences than the log says'
    for (const stream of streams)
      if (
        counts[stream] !== stored.feeds[stream].count &&
        !(isSifted && stored.feeds[stream].count === 0)
      )
        return `the batch has ${counts[stream]} ${stream}, the log says ${stored.feeds[stream].count}`
    if (!sameChain(chain, header.after)) return 'the running hash is not that of the readings'
    return undefined
  } catch (error) {
    return `the batch cannot be decoded: ${error instanceof Error ? error.message : String(error)}`
  }
}
