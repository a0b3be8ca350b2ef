import { zstdCompressSync } from 'node:zlib'
import type { Broker, Connection } from '@platformatic/kafka'
import { sleep } from '../../../shared/clock.ts'
import type { Clock } from '../../../shared/ports.ts'
import { LogFailure } from '../engine.ts'
import type { NewRecord, Place, Writer } from './cluster.ts'
import { recordBatch } from './record-batch.ts'

export type Library = typeof import('@platformatic/kafka')

/** For one answer of a broker. */
export const requestMs = 8_000
/** What is asked again fails behind this: sooner than the cluster gives the transaction up. */
const patienceMs = 6_000
const maxPauseMs = 100
/** Of one request's records; a broker takes 1 MB in one record batch where nobody has said otherwise. */
const produceBytes = 512 * 1024
/** What a broker says of a partition that is being made or changes hands, and while the last commit spreads. */
const passing = [
  'CONCURRENT_TRANSACTIONS',
  'LEADER_NOT_AVAILABLE',
  'NOT_ENOUGH_REPLICAS',
  'NOT_ENOUGH_REPLICAS_AFTER_APPEND',
  'NOT_LEADER_OR_FOLLOWER',
  'UNKNOWN_TOPIC_OR_PARTITION',
]

/** What a writer has of its cluster. */
export interface WriterLinks {
  coordinator: Broker
  connect(broker: Broker): Promise<Connection>
  leaderOf(place: Place): Promise<{ broker: Broker }>
  compressed: readonly string[]
  clock: Clock
  is(error: unknown, id: string): boolean
  /** Who leads what is asked anew. */
  forget(): void
  closed(): void
}

export class PlatformaticWriter implements Writer {
  readonly #library: Library
  readonly #transactionalId: string
  readonly #links: WriterLinks
  readonly #connections = new Map<string, Promise<Connection>>()
  /** Of the next record of each partition. */
  readonly #sequences = new Map<string, number>()
  #producerId = -1n
  #epoch = -1
  #isUsable = false

  constructor(library: Library, transactionalId: string, links: WriterLinks) {
    this.#library = library
    this.#transactionalId = transactionalId
    this.#links = links
  }

  begin(producerId: bigint, epoch: number): void {
    this.#producerId = producerId
    this.#epoch = epoch
    this.#isUsable = true
  }

  async commit(places: readonly Place[], records: Iterable<NewRecord>): Promise<void> {
    if (!this.#isUsable) throw new LogFailure('LOG_DISK', 'the transactional id has another owner')
    this.#isUsable = false
    try {
      await this.#addPartitions(places)
      for (const group of groupsOf(records)) await this.#produce(group)
      const { endTxnV3 } = this.#library
      const coordinator = await this.connection(this.#links.coordinator)
      const id = this.#transactionalId
      await endTxnV3.api.async(coordinator, id, this.#producerId, this.#epoch, true)
    } catch (cause) {
      throw new LogFailure('LOG_DISK', textOf(cause), { cause })
    }
    this.#isUsable = true
  }

  async #addPartitions(places: readonly Place[]): Promise<void> {
    const { addPartitionsToTxnV3 } = this.#library
    const connection = await this.connection(this.#links.coordinator)
    const topics = places.map(({ topic, partition }) => ({ name: topic, partitions: [partition] }))
    await this.#insisting(() =>
      addPartitionsToTxnV3.api.async(connection, [
        {
          transactionalId: this.#transactionalId,
          producerId: this.#producerId,
          producerEpoch: this.#epoch,
          verifyOnly: false,
          topics,
        },
      ]),
    )
  }

  /** @param records of one partition */
  async #produce(records: readonly NewRecord[]): Promise<void> {
    const { topic, partition } = records[0]!
    const place = `${topic}:${partition}`
    const sequence = this.#sequences.get(place) ?? 0
    const producer = { id: this.#producerId, epoch: this.#epoch, sequence }
    const isCompressed = this.#links.compressed.includes(topic)
    const batch = recordBatch(records, producer, isCompressed ? zstdCompressSync : undefined)
    // Sent again it has the same sequence, so that a broker which has it already knows it.
    await this.#insisting(async () => {
      const { broker } = await this.#links.leaderOf({ topic, partition })
      await this.#send(await this.connection(broker), { topic, partition }, batch)
    })
    this.#sequences.set(place, (sequence + records.length) % 2 ** 31)
  }

  /** As the client's `produceV9` does, with a batch of ours. */
  #send(connection: Connection, { topic, partition }: Place, batch: Uint8Array): Promise<unknown> {
    const { Writer: Bytes, ProduceAcks, produceV9 } = this.#library
    const request = () =>
      Bytes.create()
        .appendString(this.#transactionalId)
        .appendInt16(ProduceAcks.ALL)
        .appendInt32(requestMs)
        .appendArray([topic], (topics) => {
          topics.appendString(topic).appendArray([partition], (partitions) => {
            const length = batch.length + 1
            partitions.appendInt32(partition).appendUnsignedVarInt(length)
            partitions.append(Buffer.from(batch.buffer, batch.byteOffset, batch.length))
          })
        })
        .appendTaggedFields()
    const { key, version } = produceV9.api
    return new Promise((resolve, reject) => {
      connection.send(
        key,
        version,
        request,
        produceV9.parseResponse,
        true,
        true,
        (error, answer) => (error ? reject(error) : resolve(answer)),
      )
    })
  }

  /** Asks again while the cluster is about to be able to. */
  async #insisting(ask: () => Promise<unknown>): Promise<void> {
    const { clock, is, forget } = this.#links
    const endMs = clock.monotonicMs() + patienceMs
    for (let pauseMs = 2; ; pauseMs = Math.min(maxPauseMs, pauseMs * 2)) {
      try {
        await ask()
        return
      } catch (error) {
        if (!passing.some((id) => is(error, id)) || clock.monotonicMs() > endMs) throw error
        forget()
        await sleep(clock, pauseMs)
      }
    }
  }

  connection(broker: Broker): Promise<Connection> {
    const name = `${broker.host}:${broker.port}`
    let found = this.#connections.get(name)
    if (!found) {
      found = this.#links.connect(broker)
      this.#connections.set(name, found)
    }
    return found
  }

  close(): void {
    this.#isUsable = false
    this.#links.closed()
    for (const connection of this.#connections.values())
      connection.then((open) => open.close()).catch(() => {})
    this.#connections.clear()
  }
}

/** By partition, and each in parts that a broker takes. */
function* groupsOf(records: Iterable<NewRecord>): Generator<NewRecord[]> {
  const open = new Map<string, { group: NewRecord[]; bytes: number }>()
  for (const record of records) {
    const place = `${record.topic}:${record.partition}`
    const bytes = sizeOf(record)
    let last = open.get(place)
    if (last && last.bytes + bytes > produceBytes) {
      yield last.group
      last = undefined
    }
    if (!last) {
      last = { group: [], bytes: 0 }
      open.set(place, last)
    }
    last.group.push(record)
    last.bytes += bytes
  }
  for (const { group } of open.values()) yield group
}

/** As it is sent, or a little more. */
function sizeOf({ key, value, headers = {}, common = {} }: NewRecord): number {
  let bytes = value.length + 3 * key.length + 64
  for (const each of [headers, common])
    for (const name in each) bytes += name.length + 3 * each[name]!.length + 8
  return bytes
}

export function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const inner = (error as { errors?: unknown[] }).errors ?? []
  const texts = [error.message, ...inner.map((each) => textOf(each))]
  return [...new Set(texts)].join(' ').slice(0, 300)
}
