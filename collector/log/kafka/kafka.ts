import crc32c from 'crc-32/crc32c.js'
import { type Encoding, encodings } from '../../../shared/batch.ts'
import { sleep } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock, Random } from '../../../shared/ports.ts'
import { type Lane, lanes } from '../../../shared/reading.ts'
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
import { shareOut } from './assignment.ts'
import { Bucket, maxBodyBytes, type Topics } from './bucket.ts'
import type { Cluster, Membership, Place, TopicWish } from './cluster.ts'
import { KafkaNotes, Notebook, parseRequest } from './notes.ts'
import { elsewhere, type OpenPeers, type PeerAbout, type Peers } from './peers.ts'
import { readPartition } from './reader.ts'
import { plainJson, type ReadingFormat } from './readings.ts'
import { type Retention, retain } from './retention.ts'
import { statisticsOf } from './totals.ts'
import { verifyPartitions } from './verify.ts'

export interface KafkaOptions {
  clock: Clock
  random: Random
  logger: Logger
  /** What topics, transactional ids and the group begin with: one cluster may have several logs. */
  name: string
  partitions: number
  replicas: number
  /** `readings`: one record for each, in a topic of its own, beside the batches. */
  records: 'readings' | 'batches'
  /** Of those records; JSON when left out. */
  format?: ReadingFormat
  retention: Retention
  openPeers: OpenPeers
  /** Makes a body that another collector passes on ready. @throws WireFailure */
  readEntry(body: Uint8Array, encoding: Encoding, arrivedMs: number): Entry
}

const upkeepEveryMs = 60_000
/** While nobody owns an agent's bucket a batch waits for so long. */
const patienceMs = 20_000
const firstPauseMs = 20
const maxPauseMs = 500
const forGood = { 'retention.ms': '-1', 'retention.bytes': '-1' } as const

/**
 * The log on Kafka. Agents are spread over buckets, one a partition, which the collectors share out among
 * them as a consumer group does; a collector passes on what is another's. All that is held stands in the
 * cluster, so any collector may be lost, and another takes its buckets over (see `Bucket`).
 */
export class KafkaLog implements LogEngine {
  readonly partitions: number
  readonly notes: KafkaNotes
  readonly #options: KafkaOptions
  readonly #cluster: Cluster
  readonly #topics: Topics
  readonly #buckets: readonly Bucket[]
  readonly #notebook: Notebook
  readonly #appends = new Set<Promise<unknown>>()
  #peers!: Peers
  #membership: Membership | undefined
  #owners = new Map<number, PeerAbout>()
  #asking: Promise<void> | undefined
  #cancelUpkeep = () => {}
  #isClosed = false
  #closing: Promise<void> | undefined

  /** @throws LogFailure LOG_REFUSED when topics are not fit for it, LOG_DISK; closes the cluster then */
  static async open(cluster: Cluster, options: KafkaOptions): Promise<KafkaLog> {
    const log = new KafkaLog(cluster, options)
    try {
      await log.#ensureTopics()
      log.#peers = await options.openPeers({
        append: (body, encoding, arrivedMs) =>
          log.#own(options.readEntry(body, encodingOf(encoding), arrivedMs)),
        held: async (agent, incarnation, lane) =>
          log.#bucketOf(agent).held(agent, incarnation, laneOf(lane)),
        notes: async (request) => log.#notebook.answer(parseRequest(request)),
      })
      await log.#join()
    } catch (error) {
      await log.close()
      throw error
    }
    log.#scheduleUpkeep()
    return log
  }

  private constructor(cluster: Cluster, options: KafkaOptions) {
    const { name, partitions, clock, logger, random, records, format = plainJson } = options
    this.#cluster = cluster
    this.#options = options
    this.partitions = partitions
    this.#topics = topicsOf(name)
    const hasReadings = records === 'readings'
    const common = { cluster, clock, logger, topics: this.#topics, hasReadings, format }
    this.#buckets = Array.from(
      { length: partitions },
      (_, partition) => new Bucket({ ...common, partition, isOurs: () => this.#isOurs(partition) }),
    )
    // Whose the first partition is, theirs are the notes.
    const isOurs = () => this.#isOurs(0)
    this.#notebook = new Notebook({ cluster, clock, logger, topic: this.#topics.notes, isOurs })
    this.notes = new KafkaNotes(random, (request) =>
      this.#anywhere(0, {
        owner: this.#notebook.tenure,
        here: () => this.#notebook.answer(request),
        there: (peer) => this.#peers.notes(peer, request),
      }),
    )
  }

  get state(): 'open' | 'healing' | 'closed' {
    if (this.#isClosed) return 'closed'
    const owned = [...this.#buckets, this.#notebook.tenure]
    return owned.every(({ isAssigned, isOpen }) => !isAssigned || isOpen) ? 'open' : 'healing'
  }

  async append(entry: Entry): Promise<AppendAnswer> {
    if (this.#closing) throw new LogFailure('LOG_CLOSED', 'it is shutting down')
    entry.check?.()
    const { agent } = entry.header
    const bucket = this.#bucketOf(agent)
    const appending = this.#anywhere(this.#partitionOf(agent), {
      owner: bucket,
      here: () => bucket.append(entry),
      there: (peer) => this.#peers.append(peer, entry),
    })
    this.#appends.add(appending)
    try {
      return await appending
    } finally {
      this.#appends.delete(appending)
    }
  }

  held(agent: string, incarnation: Uint8Array, lane: Lane): Promise<Held> {
    const bucket = this.#bucketOf(agent)
    return this.#anywhere(this.#partitionOf(agent), {
      owner: bucket,
      here: () => bucket.held(agent, incarnation, lane),
      there: (peer) => this.#peers.held(peer, agent, incarnation, lane),
    })
  }

  read(request: ReadRequest): AsyncIterable<LogItem> {
    const { partition = 0 } = request
    if (partition >= this.partitions) throw new RangeError(`there is no partition ${partition}`)
    return readPartition(this.#cluster, this.#place(partition), request)
  }

  async statistics(partition?: number): Promise<Statistics> {
    const wanted = partition === undefined ? this.#places : [this.#place(partition)]
    return sumOf(await Promise.all(wanted.map((place) => statisticsOf(this.#cluster, place))))
  }

  /** @param breathe called between batches, so that a process with other work gets to it */
  verify(breathe: () => Promise<void>): Promise<VerifyReport> {
    return verifyPartitions(this.#cluster, this.#places, breathe)
  }

  async retain(): Promise<void> {
    const { clock, retention } = this.#options
    const bytes = retention.bytes && Math.floor(retention.bytes / this.partitions)
    for (const place of this.#places)
      await retain(this.#cluster, place, { ...retention, bytes }, clock.wallMs())
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
    // First, so that who takes over need not wait for what is under way here.
    const owned = [...this.#buckets, this.#notebook.tenure]
    await Promise.all(owned.map((each) => each.release()))
    this.#isClosed = true
    await this.#membership?.leave()
    await this.#peers?.close()
    await this.#cluster.close()
  }

  async #join(): Promise<void> {
    const { name } = this.#options
    let isShared = () => {}
    const shared = new Promise<void>((resolve) => {
      isShared = resolve
    })
    this.#membership = await this.#cluster.join({
      group: name,
      topic: this.#topics.batches,
      about: () => JSON.stringify({ peer: this.#peers.about, owns: this.#owned }),
      share: (members, partitions) => {
        const owned = [...members].map(([id, text]) => [id, readAbout(text)?.owns ?? []] as const)
        return shareOut(new Map(owned), partitions)
      },
      assigned: (partitions) => {
        if (this.#closing) return
        this.#owners.clear()
        for (const [partition, bucket] of this.#buckets.entries()) {
          if (partitions.includes(partition)) bucket.assign()
          else void bucket.release()
        }
        if (partitions.includes(0)) this.#notebook.tenure.assign()
        else void this.#notebook.tenure.release()
        isShared()
      },
    })
    await shared
  }

  get #owned(): number[] {
    return [...this.#buckets.keys()].filter((partition) => this.#buckets[partition]!.isAssigned)
  }

  /** Asks whoever owns a partition, until it is clear who does. */
  async #anywhere<T>(
    partition: number,
    ask: {
      owner: { readonly isAssigned: boolean }
      here(): Promise<T | typeof elsewhere>
      there(peer: PeerAbout): Promise<T | typeof elsewhere>
    },
  ): Promise<T> {
    const { clock } = this.#options
    const endMs = clock.monotonicMs() + patienceMs
    let why = 'no collector owns it yet'
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(maxPauseMs, pauseMs * 2)) {
      const answer = ask.owner.isAssigned ? await ask.here() : await this.#askOwner(partition, ask)
      if (answer instanceof Unreachable) why = answer.message
      else if (answer !== elsewhere) return answer
      if (clock.monotonicMs() > endMs || this.#isClosed)
        throw new LogFailure('LOG_DISK', `partition ${partition}: ${why}`)
      await sleep(clock, pauseMs)
    }
  }

  async #askOwner<T>(
    partition: number,
    { there }: { there(peer: PeerAbout): Promise<T | typeof elsewhere> },
  ): Promise<T | typeof elsewhere | Unreachable> {
    if (!this.#owners.has(partition)) await this.#learnOwners()
    const owner = this.#owners.get(partition)
    // What the group says of ourselves is from before.
    if (!owner || owner.url === this.#peers.about.url) {
      this.#owners.delete(partition)
      return elsewhere
    }
    try {
      const answer = await there(owner)
      if (answer === elsewhere) this.#owners.delete(partition)
      return answer
    } catch (error) {
      // What the owner itself has said stands.
      if ((error as { code?: string }).code?.match(/^(LOG|WIRE)_/)) throw error
      this.#owners.delete(partition)
      return new Unreachable(`its owner ${owner.url} does not answer: ${String(error)}`)
    }
  }

  /** As far as the group says anything of it. */
  async #isOurs(partition: number): Promise<boolean> {
    await this.#learnOwners()
    const owner = this.#owners.get(partition)
    return !owner || owner.url === this.#peers.about.url
  }

  /** Several that want to know share the question. */
  #learnOwners(): Promise<void> {
    this.#asking ??= (async () => {
      const found = await this.#cluster.owners(this.#options.name, this.#topics.batches)
      for (const [partition, text] of found) {
        const peer = readAbout(text)?.peer
        if (peer) this.#owners.set(partition, peer)
      }
    })().finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  /** What another collector passes on, which it does not pass on once more. */
  async #own(entry: Entry): Promise<AppendAnswer | typeof elsewhere> {
    entry.check?.()
    return this.#closing ? elsewhere : this.#bucketOf(entry.header.agent).append(entry)
  }

  #bucketOf(agent: string): Bucket {
    return this.#buckets[this.#partitionOf(agent)]!
  }

  #partitionOf(agent: string): number {
    return (crc32c.str(agent, 0) >>> 0) % this.partitions
  }

  #place(partition: number): Place {
    return { topic: this.#topics.batches, partition }
  }

  get #places(): Place[] {
    return Array.from({ length: this.partitions }, (_, partition) => this.#place(partition))
  }

  async #ensureTopics(): Promise<void> {
    const { partitions, replicas, records } = this.#options
    const { batches, held, readings, notes } = this.#topics
    const common = {
      // One server may be away without a batch being refused, and none is acknowledged by one alone.
      'min.insync.replicas': String(replicas > 2 ? 2 : 1),
      // Of events that have yet to come a sensor's clock may tell.
      'message.timestamp.after.max.ms': '9223372036854775807',
    }
    const wish = (name: string, settings: Record<string, string>): TopicWish => ({
      name,
      partitions,
      replicas,
      settings: { ...common, ...settings },
    })
    const wishes = [
      wish(batches, { ...forGood, 'max.message.bytes': String(maxBodyBytes + 65_536) }),
      wish(held, { 'cleanup.policy': 'compact' }),
      { ...wish(notes, { 'cleanup.policy': 'compact' }), partitions: 1 },
    ]
    // It goes by the readings' own times: those that waited on a gateway for longer would be gone as they come.
    if (records === 'readings') wishes.push(wish(readings, forGood))
    await this.#cluster.ensureTopics(wishes)
    for (const { name, partitions: wanted } of wishes) {
      const { partitions: count, settings } = await this.#cluster.topic(name)
      // An agent's bucket follows from their number, and what is held of it is there.
      if (count !== wanted && name !== notes)
        refuse(`topic ${name} has ${count} partitions: set log.partitions to that`)
      if ((name === held || name === notes) && settings.get('cleanup.policy') !== 'compact')
        refuse(`topic ${name} is not compacted alone, and so forgets what is held`)
      if (name !== batches) continue
      // Of what it would take, nobody could say whether it was kept.
      if (settings.get('cleanup.policy') !== 'delete')
        refuse(`topic ${name} is compacted: set its cleanup.policy to delete`)
      for (const key of ['retention.ms', 'retention.bytes'])
        if (settings.get(key) !== '-1')
          refuse(`topic ${name} has ${key}: set it to -1, and set log.retention`)
    }
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

/** Of a log with that name. */
export function topicsOf(name: string): Topics {
  return {
    batches: `${name}.batches`,
    held: `${name}.held`,
    readings: `${name}.readings`,
    notes: `${name}.notes`,
  }
}

class Unreachable extends Error {}

function refuse(why: string): never {
  throw new LogFailure('LOG_REFUSED', why)
}

/** @returns undefined where it is none of ours, or of another version */
function readAbout(text: string): { peer: PeerAbout; owns: number[] } | undefined {
  try {
    const { peer, owns } = JSON.parse(text)
    if (typeof peer?.url !== 'string' || !Array.isArray(owns)) return undefined
    return { peer, owns }
  } catch {
    return undefined
  }
}

function encodingOf(text: string): Encoding {
  return encodings.find((encoding) => encoding === text) ?? 'identity'
}

function laneOf(text: string): Lane {
  return lanes.find((lane) => lane === text) ?? 'bulk'
}
