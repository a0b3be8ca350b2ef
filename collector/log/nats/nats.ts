import type { Logger } from '../../../shared/log.ts'
import type { Clock, Random } from '../../../shared/ports.ts'
import type { Lane as LaneName } from '../../../shared/reading.ts'
import type { VerifyReport } from '../audit.ts'
import {
  type AppendAnswer,
  type Entry,
  type Held,
  type LogEngine,
  LogFailure,
  type LogItem,
  type ReadRequest,
  type Statistics,
} from '../engine.ts'
import { sumOf } from '../sums.ts'
import { Lane } from './lane.ts'
import { type NatsOptions as LinkOptions, NatsLink } from './link.ts'
import { NatsNotes } from './notes.ts'
import { readPartition } from './reader.ts'
import { type Retention, retain } from './retention.ts'
import { PartitionStatistics } from './statistics.ts'
import { Subjects } from './subject.ts'
import { verifyStreams } from './verify.ts'

export interface NatsOptions extends LinkOptions {
  clock: Clock
  random: Random
  logger: Logger
  /** What streams and subjects begin with: one cluster may have several logs. */
  name: string
  partitions: number
  replicas: number
  retention: Retention
}

/** Lanes remembered; one that is not is looked up again. */
const maxLanes = 100_000
const upkeepEveryMs = 60_000

/**
 * The log on NATS JetStream. A collector keeps nothing of its own with it: any number of them write side
 * by side (see `Lane`), and each may be lost.
 */
export class NatsLog implements LogEngine {
  readonly partitions: number
  readonly notes: NatsNotes
  readonly #options: NatsOptions
  readonly #link: NatsLink
  readonly #subjects: Subjects
  readonly #statistics: readonly PartitionStatistics[]
  readonly #lanes = new Map<string, Lane>()
  readonly #appends = new Set<Promise<unknown>>()
  #cancelUpkeep = () => {}
  #isClosed = false
  #closing: Promise<void> | undefined

  /** @throws LogFailure LOG_REFUSED when servers or streams are not fit for it, LOG_DISK, LOG_NEWER */
  static async open(options: NatsOptions): Promise<NatsLog> {
    const link = await NatsLink.open(options)
    try {
      const { name, partitions, replicas } = options
      const subjects = new Subjects(name, partitions)
      const wanted = { 'headgate-format': '1', 'headgate-partitions': String(partitions) }
      for (let partition = 0; partition < partitions; partition++) {
        const stream = subjects.stream(partition)
        const found = await link.ensureStream(stream, [subjects.all(partition)], replicas, wanted)
        checkFormat(found, partitions)
      }
      const { stream, all } = subjects.notes
      const found = await link.ensureStream(stream, [all], replicas, { 'headgate-format': '1' }, 1)
      checkFormat({ ...found, 'headgate-partitions': String(partitions) }, partitions)
      return new NatsLog(options, link, subjects)
    } catch (error) {
      await link.close()
      throw error
    }
  }

  private constructor(options: NatsOptions, link: NatsLink, subjects: Subjects) {
    this.#options = options
    this.#link = link
    this.#subjects = subjects
    this.partitions = options.partitions
    this.notes = new NatsNotes(link, subjects)
    this.#statistics = Array.from(
      { length: options.partitions },
      (_, partition) => new PartitionStatistics(link, subjects.stream(partition)),
    )
    this.#scheduleUpkeep()
  }

  get state(): 'open' | 'healing' | 'closed' {
    if (this.#isClosed) return 'closed'
    return this.#link.trouble === undefined ? 'open' : 'healing'
  }

  async append(entry: Entry): Promise<AppendAnswer> {
    if (this.#closing) throw new LogFailure('LOG_CLOSED', 'it is shutting down')
    entry.check?.()
    const { agent, lane } = entry.header
    const appending = this.#lane(agent, lane).append(entry)
    this.#appends.add(appending)
    try {
      return await appending
    } finally {
      this.#appends.delete(appending)
    }
  }

  held(agent: string, incarnation: Uint8Array, lane: LaneName): Promise<Held> {
    return this.#lane(agent, lane).held(incarnation, lane)
  }

  read(request: ReadRequest): AsyncIterable<LogItem> {
    const { partition = 0 } = request
    if (partition >= this.partitions) throw new RangeError(`there is no partition ${partition}`)
    const place = { stream: this.#subjects.stream(partition), partition }
    return readPartition(this.#link, place, request)
  }

  async statistics(partition?: number): Promise<Statistics> {
    const wanted = partition === undefined ? this.#statistics : [this.#statistics[partition]!]
    return sumOf(await Promise.all(wanted.map((each) => each.get())))
  }

  /** @param breathe called between batches, so that a process with other work gets to it */
  verify(breathe: () => Promise<void>): Promise<VerifyReport> {
    const all = Array.from({ length: this.partitions }, (_, at) => this.#subjects.stream(at))
    return verifyStreams(this.#link, all, breathe)
  }

  async retain(): Promise<void> {
    const { clock, retention } = this.#options
    const bytes = retention.bytes && Math.floor(retention.bytes / this.partitions)
    for (let partition = 0; partition < this.partitions; partition++)
      await retain(
        this.#link,
        this.#subjects.stream(partition),
        { ...retention, bytes },
        clock.wallMs(),
      )
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #shutDown(): Promise<void> {
    this.#cancelUpkeep()
    await Promise.allSettled(this.#appends)
    this.#isClosed = true
    await this.#link.close()
  }

  #lane(agent: string, lane: LaneName): Lane {
    const subject = this.#subjects.lane(agent, lane)
    let found = this.#lanes.get(subject)
    if (!found) {
      this.#forgetIdle()
      const stream = this.#subjects.stream(this.#subjects.partitionOf(agent))
      found = new Lane(this.#link, this.#options, { stream, subject, agent })
      this.#lanes.set(subject, found)
    }
    return found
  }

  #forgetIdle(): void {
    if (this.#lanes.size < maxLanes) return
    for (const [subject, { waiting }] of this.#lanes)
      if (waiting === 0 && this.#lanes.size > maxLanes / 2) this.#lanes.delete(subject)
  }

  /** At times of its own, so that several collectors seldom do it at once. */
  #scheduleUpkeep(): void {
    const { clock, random, logger } = this.#options
    this.#cancelUpkeep = clock.timer(upkeepEveryMs * (0.5 + random.uniform()), () => {
      this.retain()
        .catch((error) => logger.warn({ err: String(error) }, 'could not remove what is old'))
        .finally(() => {
          if (!this.#closing) this.#scheduleUpkeep()
        })
    })
  }
}

function checkFormat(found: Record<string, string>, partitions: number): void {
  const { 'headgate-format': format, 'headgate-partitions': count } = found
  if (format === undefined)
    throw new LogFailure('LOG_REFUSED', 'a stream of that name is none of ours: set log.nats.name')
  if (Number(format) > 1)
    throw new LogFailure('LOG_NEWER', `format ${format}, this program knows 1`)
  // An agent's partition follows from their number, and what is held of it is there.
  if (Number(count) !== partitions)
    throw new LogFailure('LOG_REFUSED', `it has ${count} partitions: set log.partitions to that`)
}
