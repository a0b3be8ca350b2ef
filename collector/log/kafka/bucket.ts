import { WireFailure } from '../../../shared/batch.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock } from '../../../shared/ports.ts'
import { type Lane, streams } from '../../../shared/reading.ts'
import type { AppendAnswer, Entry, Held } from '../engine.ts'
import { batchHeaders, offsetsPerMessage } from '../headers.ts'
import { HeldMemory } from '../held.ts'
import type { Cluster, NewRecord, Place, Writer } from './cluster.ts'
import { cursorRecord, markRecord, replayCursor } from './cursor.ts'
import { elsewhere } from './peers.ts'
import { type ReadingFormat, readingRecords } from './readings.ts'
import { Tenure } from './tenure.ts'
import {
  lastBatch,
  noTotals,
  plus,
  type Totals,
  totalsHeader,
  totalsIn,
  totalsText,
} from './totals.ts'

export interface BucketOptions {
  cluster: Cluster
  clock: Clock
  logger: Logger
  /** The same number in each of the topics. */
  partition: number
  topics: Topics
  /** One record for each reading, too. */
  hasReadings: boolean
  format: ReadingFormat
  /** Whether the group of collectors still says so; asked when a commit has failed. */
  isOurs(): Promise<boolean>
}

export interface Topics {
  batches: string
  held: string
  readings: string
  notes: string
}

/** Largest body that a record may have. */
export const maxBodyBytes = 8 * 1024 * 1024
/** Bodies and readings of one transaction, the last batch on top. */
const groupBytes = 2 * 1024 * 1024
const groupReadings = 50_000

/**
 * The agents of one partition. Its owner has the partition's transactional id: batches that come while one
 * transaction commits make up the next, with what is held behind them. Whoever takes over has the id first,
 * so that the one before can commit nothing more, and then reads what is held to its end (see `Tenure`).
 */
export class Bucket {
  readonly #options: BucketOptions
  readonly #tenure: Tenure<Entry, AppendAnswer>
  #memory = new HeldMemory()
  /** Offset in the topic of what is held up to which the memory has read. */
  #readTo = 0
  #totals: Totals = noTotals()

  constructor(options: BucketOptions) {
    this.#options = options
    const duty = {
      takeOver: () => this.#takeOver(),
      sizeOfNext,
      commit: (writer: Writer, entries: readonly Entry[]) => this.#commit(writer, entries),
      forget: () => {
        this.#memory = new HeldMemory()
        this.#readTo = 0
      },
    }
    this.#tenure = new Tenure({ ...options, duty })
  }

  get isAssigned(): boolean {
    return this.#tenure.isAssigned
  }

  /** It can take batches at once. */
  get isOpen(): boolean {
    return this.#tenure.isOpen
  }

  assign(): void {
    this.#tenure.assign()
  }

  /** Finishes what it has begun, and lets go. */
  release(): Promise<void> {
    return this.#tenure.release()
  }

  /** @returns elsewhere when this collector does not own it, or not yet */
  async append(entry: Entry): Promise<AppendAnswer | typeof elsewhere> {
    checkSize(entry)
    return this.#tenure.do(entry)
  }

  /** @returns elsewhere when this collector does not own it, or not yet */
  async held(agent: string, incarnation: Uint8Array, lane: Lane): Promise<Held | typeof elsewhere> {
    if (!this.#tenure.isOpen) return elsewhere
    return this.#memory.of(agent, incarnation, lane)
  }

  async #takeOver(): Promise<Writer> {
    const { cluster, topics, partition, logger, clock } = this.#options
    const startMs = clock.monotonicMs()
    const writer = await cluster.writer(`${topics.batches}-${partition}`, [topics.readings])
    try {
      const place = { topic: topics.held, partition }
      const { first, next } = await cluster.ends(place)
      const fromOffset = Math.max(first, this.#readTo)
      for await (const { records, next: behind } of cluster.read(place, {
        fromOffset,
        toOffset: next,
      })) {
        for (const record of records) replayCursor(this.#memory, record)
        this.#readTo = behind
      }
      const last = await lastBatch(cluster, { topic: topics.batches, partition })
      this.#totals = last ? totalsIn(last) : noTotals()
    } catch (error) {
      writer.close()
      throw error
    }
    const ms = Math.round(clock.monotonicMs() - startMs)
    logger.info({ partition, ms }, 'owns a partition of the log')
    return writer
  }

  async #commit(writer: Writer, entries: readonly Entry[]): Promise<AppendAnswer[]> {
    const draft = this.#memory.draft()
    const accepted: { entry: Entry; totals: Totals }[] = []
    let totals = this.#totals
    const answers = entries.map((entry) => {
      const answer = draft.judge(entry.header)
      if (answer.code === 'accepted') {
        totals = plus(totals, entry.feeds, entry.body.length)
        accepted.push({ entry, totals })
      }
      return answer
    })
    const nowMs = this.#options.clock.wallMs()
    const held = this.#place('held')
    const cursors = [...draft.changes()].map((change) => cursorRecord(held, change, nowMs))
    if (accepted.length > 0) {
      const places = [this.#place('batches'), held]
      if (accepted.some(({ entry }) => this.#givesReadings(entry)))
        places.push(this.#place('readings'))
      await writer.commit(places, this.#recordsOf(accepted, cursors))
    } else if (answers.some(({ code }) => code !== 'duplicate')) {
      // The agent acts on a refusal, so it must be true now: had another collector taken over, and more
      // been appended since, this could not be committed.
      await writer.commit([held], [markRecord(held, nowMs)])
    }
    draft.commit()
    this.#totals = totals
    return answers
  }

  *#recordsOf(
    accepted: readonly { entry: Entry; totals: Totals }[],
    cursors: readonly NewRecord[],
  ): Generator<NewRecord> {
    for (const { entry, totals } of accepted) {
      yield {
        ...this.#place('batches'),
        key: entry.header.agent,
        value: entry.body,
        headers: { ...batchHeaders(entry), [totalsHeader]: totalsText(totals) },
        timeMs: entry.arrivedMs,
      }
      if (this.#givesReadings(entry)) yield* this.#readingsOf(entry)
    }
    yield* cursors
  }

  #readingsOf(entry: Entry): Generator<NewRecord> {
    return readingRecords(entry, this.#place('readings'), this.#options.format)
  }

  #givesReadings({ feeds }: Entry): boolean {
    return this.#options.hasReadings && feeds.readings.count > 0
  }

  #place(topic: keyof Topics): Place {
    return { topic: this.#options.topics[topic], partition: this.#options.partition }
  }
}

function sizeOfNext(waiting: readonly Entry[]): number {
  let bytes = 0
  let readings = 0
  let count = 0
  for (const { body, feeds } of waiting) {
    count += 1
    bytes += body.length
    readings += feeds.readings.count
    if (bytes > groupBytes || readings > groupReadings) break
  }
  return count
}

function checkSize({ feeds, body }: Entry): void {
  const most = Math.max(...streams.map((stream) => feeds[stream].count))
  if (most > offsetsPerMessage || body.length > maxBodyBytes)
    throw new WireFailure('WIRE_TOO_LARGE', 'more than one record of the log takes')
}
