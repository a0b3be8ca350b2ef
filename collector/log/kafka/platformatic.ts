import type {
  Admin,
  BaseOptions,
  Broker,
  Connection,
  Consumer,
  ConsumerOptions,
  RecordsBatch,
} from '@platformatic/kafka'
import { sleep } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock } from '../../../shared/ports.ts'
import { LogFailure } from '../engine.ts'
import type {
  Cluster,
  JoinOptions,
  Membership,
  Piece,
  Place,
  ReadOptions,
  StoredRecord,
  TopicFacts,
  TopicWish,
  Writer,
} from './cluster.ts'
import { type Library, PlatformaticWriter, requestMs, textOf } from './platformatic-writer.ts'

export interface ClusterOptions {
  /** `host:port` of some brokers; the others are learned from them. */
  brokers: readonly string[]
  /** PEM of the authority that the brokers' certificates are from; the link is TLS then. */
  ca?: string | undefined
  sasl?: Credentials | undefined
  /** A call that the cluster has not answered rightly by then fails; default 20 s. */
  patienceMs?: number
  clock: Clock
  logger: Logger
}

export interface Credentials {
  mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
  username: string
  password: string
}

const clientId = 'headgate-collector'
const defaultPatienceMs = 20_000
const firstPauseMs = 10
const maxPauseMs = 500
/** What is open for longer is given up by the cluster. */
const transactionMs = 10_000
/** A reader at the end asks again after so long. */
const waitMs = 4_000
const fetchBytes = 1024 * 1024
/** A member that is silent for so long is given up. */
const sessionMs = 6_000
const heartbeatMs = 1_000
const rejoinMs = 1_000
const isControl = 0x20
const isTransactional = 0x10

/**
 * A cluster through `@platformatic/kafka`: its connections, metadata, group membership and protocol. Its
 * producer and its stream of messages are passed by. The first asks for a producer's id in a way that a
 * broker refuses once the id had another owner, and needs a right over the cluster to add partitions; the
 * second lets records of an aborted transaction through when one producer aborted two in what was fetched.
 */
export class PlatformaticCluster implements Cluster {
  readonly #library: Library
  readonly #options: ClusterOptions
  readonly #patienceMs: number
  readonly #base: BaseOptions
  readonly #admin: Admin
  readonly #writers = new Set<PlatformaticWriter>()
  readonly #closing = new AbortController()

  /** @throws LogFailure LOG_DISK when no broker answers */
  static async open(options: ClusterOptions): Promise<PlatformaticCluster> {
    // Not before an engine wants it: most collectors never do.
    const library = await import('@platformatic/kafka')
    const cluster = new PlatformaticCluster(library, options)
    try {
      await cluster.#patiently('no Kafka broker answers', () => cluster.#admin.metadata({}))
    } catch (error) {
      await cluster.close()
      throw error
    }
    return cluster
  }

  private constructor(library: Library, options: ClusterOptions) {
    const { brokers, ca, sasl } = options
    this.#library = library
    this.#options = options
    this.#patienceMs = options.patienceMs ?? defaultPatienceMs
    this.#base = {
      clientId,
      bootstrapBrokers: [...brokers],
      connectTimeout: 3_000,
      requestTimeout: requestMs,
      timeout: requestMs,
      retries: 3,
      retryDelay: 100,
      metadataMaxAge: 5_000,
      ...(ca !== undefined && { tls: { ca }, tlsServerName: !brokers.some(isAddress) }),
      ...(sasl && { sasl: { ...sasl } }),
    }
    this.#admin = new library.Admin(this.#base)
  }

  async ensureTopics(topics: readonly TopicWish[]): Promise<void> {
    for (const { name, partitions, replicas, settings } of topics)
      await this.#patiently(`topic ${name}`, async () => {
        const configs = Object.entries(settings).map(([key, value]) => ({ name: key, value }))
        await this.#admin
          .createTopics({ topics: [name], partitions, replicas, configs })
          .catch((error) => {
            if (!this.#is(error, 'TOPIC_ALREADY_EXISTS')) throw error
          })
        // Other brokers may not know it yet.
        await this.#leaderOf({ topic: name, partition: partitions - 1 })
      })
  }

  topic(name: string): Promise<TopicFacts> {
    return this.#patiently(`topic ${name}`, async () => {
      const { topics } = await this.#admin.metadata({ topics: [name], forceUpdate: true })
      const { ConfigResourceTypes } = this.#library
      const [described] = await this.#admin.describeConfigs({
        resources: [
          { resourceType: ConfigResourceTypes.TOPIC, resourceName: name, configurationKeys: null },
        ],
      })
      const settings = new Map<string, string>()
      for (const { name: key, value } of described?.configs ?? []) settings.set(key, value ?? '')
      return { partitions: topics.get(name)!.partitionsCount, settings }
    })
  }

  async writer(transactionalId: string, compressed: readonly string[] = []): Promise<Writer> {
    const { initProducerIdV4, FindCoordinatorKeyTypes } = this.#library
    return this.#patiently(`transactional id ${transactionalId}`, async () => {
      const [found] = await this.#admin.findCoordinator({
        keyType: FindCoordinatorKeyTypes.TRANSACTION,
        keys: [transactionalId],
      })
      const writer = new PlatformaticWriter(this.#library, transactionalId, {
        coordinator: found!,
        connect: (broker) => this.#connect(broker),
        leaderOf: (place) => this.#leaderOf(place),
        compressed,
        clock: this.#options.clock,
        is: (error, id) => this.#is(error, id),
        forget: () => this.#admin.clearMetadata(),
        closed: () => this.#writers.delete(writer),
      })
      try {
        const coordinator = await writer.connection(found!)
        const { producerId, producerEpoch } = await initProducerIdV4.api.async(
          coordinator,
          transactionalId,
          transactionMs,
          -1n,
          -1,
        )
        writer.begin(producerId, producerEpoch)
      } catch (error) {
        writer.close()
        throw error
      }
      this.#writers.add(writer)
      return writer
    })
  }

  async *read(place: Place, options: ReadOptions): AsyncGenerator<Piece> {
    const { toOffset = Number.POSITIVE_INFINITY, signal } = options
    const { clock } = this.#options
    const stop = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal
    let at = options.fromOffset
    let connection: Connection | undefined
    let lastMs = clock.monotonicMs()
    let pauseMs = firstPauseMs
    // A call that waits for records keeps others on its connection waiting: a reader has its own.
    const end = () => void connection?.close().catch(() => {})
    stop.addEventListener('abort', end, { once: true })
    try {
      while (at < toOffset && !stop.aborted) {
        try {
          const { broker, topicId } = await this.#leaderOf(place)
          connection ??= await this.#connect(broker)
          if (stop.aborted) return
          const piece = await this.#fetch(connection, topicId, place.partition, at)
          lastMs = clock.monotonicMs()
          pauseMs = firstPauseMs
          at = piece.next
          const records = piece.records.filter(({ offset }) => offset < toOffset)
          if (records.length > 0 || at >= toOffset) yield { records, next: Math.min(at, toOffset) }
        } catch (cause) {
          if (stop.aborted) return
          if (this.#is(cause, 'OFFSET_OUT_OF_RANGE')) {
            // Retention took it; or the end is said to be before what was read, which a broker takes back.
            const { first } = await this.ends(place)
            if (at < first) {
              at = first
              continue
            }
          }
          end()
          connection = undefined
          if (clock.monotonicMs() - lastMs > this.#patienceMs)
            throw new LogFailure('LOG_DISK', `${place.topic}: ${textOf(cause)}`, { cause })
          this.#admin.clearMetadata()
          await sleep(clock, pauseMs, stop).catch(() => {})
          pauseMs = Math.min(maxPauseMs, pauseMs * 2)
        }
      }
    } finally {
      stop.removeEventListener('abort', end)
      end()
    }
  }

  async #fetch(
    connection: Connection,
    topicId: string,
    partition: number,
    at: number,
  ): Promise<Piece> {
    const { fetchV13, FetchIsolationLevels } = this.#library
    const { responses } = await fetchV13.api.async(
      connection,
      waitMs,
      1,
      fetchBytes,
      FetchIsolationLevels.READ_COMMITTED,
      0, // Without a session, which would remember what this reader has asked for.
      -1,
      [
        {
          topicId,
          partitions: [
            {
              partition,
              currentLeaderEpoch: -1,
              fetchOffset: BigInt(at),
              lastFetchedEpoch: -1,
              partitionMaxBytes: fetchBytes,
            },
          ],
        },
      ],
      [],
      '',
    )
    const { records, abortedTransactions } = responses[0]!.partitions[0]!
    const batches = records ?? []
    const last = batches.at(-1)
    return {
      records: [...committed(batches, abortedTransactions ?? [])].filter(
        ({ offset }) => offset >= at,
      ),
      next: last ? Math.max(at, Number(last.firstOffset) + last.lastOffsetDelta + 1) : at,
    }
  }

  ends({ topic, partition }: Place): Promise<{ first: number; next: number }> {
    const { ListOffsetTimestamps } = this.#library
    const at = async (timestamp: bigint) => {
      const partitions = [{ partitionIndex: partition, timestamp }]
      const [listed] = await this.#admin.listOffsets({ topics: [{ name: topic, partitions }] })
      return Number(listed!.partitions[0]!.offset)
    }
    return this.#patiently(`${topic}: its ends`, async () => ({
      first: await at(ListOffsetTimestamps.EARLIEST),
      next: await at(ListOffsetTimestamps.LATEST),
    }))
  }

  offsetSince({ topic, partition }: Place, timeMs: number): Promise<number | undefined> {
    const partitions = [{ partitionIndex: partition, timestamp: BigInt(Math.max(0, timeMs)) }]
    return this.#patiently(`${topic}: an offset by time`, async () => {
      const [listed] = await this.#admin.listOffsets({ topics: [{ name: topic, partitions }] })
      const { offset } = listed!.partitions[0]!
      return offset < 0n ? undefined : Number(offset)
    })
  }

  async deleteBefore({ topic, partition }: Place, offset: number): Promise<void> {
    const partitions = [{ partition, offset: BigInt(offset) }]
    await this.#patiently(`${topic}: its oldest`, () =>
      this.#admin.deleteRecords({ topics: [{ name: topic, partitions }] }),
    )
  }

  async join(options: JoinOptions): Promise<Membership> {
    const { group, topic, about, share, assigned } = options
    const { clock, logger } = this.#options
    const membership: ConsumerOptions<Buffer, Buffer, Buffer, Buffer> = {
      ...this.#base,
      groupId: group,
      sessionTimeout: sessionMs,
      heartbeatInterval: heartbeatMs,
      rebalanceTimeout: sessionMs,
      protocols: [{ name: 'headgate', version: 1 }],
      protocolsMetadata: () => Promise.resolve(Buffer.from(about())),
      partitionAssigner: (_, members, __, metadata) => {
        const abouts = new Map<string, string>()
        for (const [id, member] of members) abouts.set(id, String(member.metadata ?? ''))
        const shares = share(abouts, metadata.topics.get(topic)!.partitionsCount)
        return [...shares].map(([memberId, partitions]) => ({
          memberId,
          assignments: new Map([[topic, { topic, partitions }]]),
        }))
      },
    }
    const consumer: Consumer = new this.#library.Consumer(membership)
    consumer.topics.track(topic)
    let hasLeft = false
    let cancel = () => {}
    consumer.on('consumer:group:join', ({ assignments }) =>
      assigned(assignments?.find((each) => each.topic === topic)?.partitions ?? []),
    )
    const rejoin = (err: unknown) => {
      if (hasLeft) return
      logger.warn({ err: textOf(err) }, 'not a member of the group of collectors: joins again')
      cancel()
      cancel = clock.timer(rejoinMs, () => {
        if (!hasLeft) consumer.joinGroup().catch(rejoin)
      })
    }
    // It gives up when it could not come back by itself.
    consumer.on('error', rejoin)
    try {
      await this.#patiently(`group ${group}`, () => consumer.joinGroup())
    } catch (error) {
      await consumer.close(true).catch(() => {})
      throw error
    }
    return {
      leave: async () => {
        hasLeft = true
        cancel()
        // Where no broker answers, the others wait until it has been silent for long enough.
        await consumer.close(true).catch(() => {})
      },
    }
  }

  owners(group: string, topic: string): Promise<Map<number, string>> {
    return this.#patiently(`group ${group}`, async () => {
      const found = new Map<number, string>()
      const described = (await this.#admin.describeGroups({ groups: [group] })).get(group)
      for (const { metadata, assignments } of described?.members.values() ?? [])
        for (const partition of assignments?.get(topic)?.partitions ?? [])
          found.set(partition, String(metadata?.metadata ?? ''))
      return found
    })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    for (const writer of this.#writers) writer.close()
    await this.#admin.close().catch(() => {})
  }

  /** @throws when nobody leads it, or it is not known yet */
  async #leaderOf({ topic, partition }: Place): Promise<{ broker: Broker; topicId: string }> {
    const { topics, brokers } = await this.#admin.metadata({ topics: [topic] })
    const found = topics.get(topic)
    const broker = brokers.get(found?.partitions[partition]?.leader ?? -1)
    if (!found || !broker) {
      this.#admin.clearMetadata()
      throw new Error(`nobody leads partition ${partition} of ${topic}`)
    }
    return { broker, topicId: found.id }
  }

  async #connect({ host, port }: Broker): Promise<Connection> {
    const { connectTimeout, requestTimeout, tls, tlsServerName, sasl } = this.#base
    const connection = new this.#library.Connection(clientId, {
      connectTimeout: connectTimeout!,
      requestTimeout: requestTimeout!,
      ...(tls && { tls, tlsServerName: tlsServerName! }),
      ...(sasl && { sasl }),
    })
    // What is under way then fails, which says it.
    connection.on('error', () => {})
    await connection.connect(host, port)
    return connection
  }

  #is(error: unknown, id: string): boolean {
    return this.#library.findErrorBy(error as Error, 'apiId', id) !== null
  }

  /** While the cluster chooses who leads what, calls fail, for some seconds. */
  async #patiently<T>(what: string, ask: () => Promise<T>): Promise<T> {
    const { clock } = this.#options
    const endMs = clock.monotonicMs() + this.#patienceMs
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(maxPauseMs, pauseMs * 2)) {
      try {
        return await ask()
      } catch (cause) {
        if (this.#closing.signal.aborted || clock.monotonicMs() > endMs)
          throw new LogFailure('LOG_DISK', `${what}: ${textOf(cause)}`, { cause })
        this.#admin.clearMetadata()
        await sleep(clock, pauseMs, this.#closing.signal).catch(() => {})
      }
    }
  }
}

/** A broker that is named by an address, which is no name to ask a server for. */
function isAddress(broker: string): boolean {
  return /^(\[|[\d.]+:)/.test(broker)
}

/** Leaves out what was aborted, and the marks that say so. */
function* committed(
  batches: readonly RecordsBatch[],
  aborted: readonly { producerId: bigint; firstOffset: bigint }[],
): Generator<StoredRecord> {
  const coming = [...aborted].sort((a, b) => (a.firstOffset < b.firstOffset ? -1 : 1))
  const aborting = new Set<bigint>()
  for (const { firstOffset, lastOffsetDelta, attributes, producerId, records } of batches) {
    while (coming[0] && coming[0].firstOffset <= firstOffset + BigInt(lastOffsetDelta))
      aborting.add(coming.shift()!.producerId)
    if (attributes & isControl) {
      // Whether it commits or aborts: the transaction ends here.
      aborting.delete(producerId)
      continue
    }
    if (attributes & isTransactional && aborting.has(producerId)) continue
    for (const { offsetDelta, key, value, headers } of records)
      yield {
        offset: Number(firstOffset) + offsetDelta,
        key: String(key ?? ''),
        value: value ?? new Uint8Array(0),
        header: (name) => {
          const found = headers.find(([each]) => String(each) === name)
          return found ? String(found[1] ?? '') : undefined
        },
      }
  }
}
