import type {
  Consumer,
  ConsumerMessages,
  JetStreamClient,
  JetStreamManager,
  OrderedConsumerOptions,
  StreamConfig,
} from '@nats-io/jetstream'
import type { MsgHdrs, NatsConnection } from '@nats-io/transport-node'
import { sleep } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Clock } from '../../../shared/ports.ts'
import { formatTime } from '../../../shared/time-text.ts'
import { LogFailure } from '../engine.ts'
import { moved } from '../notes.ts'

/** What a log needs of JetStream, so that all else is free of the client. */
export interface NatsOptions {
  servers: readonly string[]
  /** Content of a file with a user's JWT and seed. */
  credentials?: Uint8Array | undefined
  /** File of PEM; the link is TLS then. */
  ca?: string | undefined
  clock: Clock
  logger: Logger
}

/** A message as JetStream keeps it. */
export interface Message {
  subject: string
  sequence: number
  header(name: string): string | undefined
  /** Empty where only headers were asked for. */
  body: Uint8Array
}

export interface StreamFacts {
  messages: number
  bytes: number
  firstSequence: number
  lastSequence: number
  /** Those that went from between the first and the last. */
  deleted: number
}

export interface Scan {
  /** Default: the first that is there. */
  fromSequence?: number
  headersOnly?: boolean
  /** Of each subject only its last message, and then whatever comes. */
  lastPerSubject?: boolean
  signal?: AbortSignal | undefined
}

/** The oldest server whose cluster checks expected sequences one after the other, and syncs always. */
const oldest = [2, 12, 0] as const
const wrongLastSequence = [10071, 10164]
const publishTimeoutMs = 5_000
const electionMs = 20_000
/** Messages on their way to a reader. */
const ahead = 64
/**
 * After twice this without a sign a reader asks again: in a cluster the first request of a new reader
 * may come before the server that answers it is known everywhere.
 */
const heartbeatMs = 500
const pullMs = 30_000

/** A connection to a NATS cluster that comes back by itself. */
export class NatsLink {
  readonly #connection: NatsConnection
  readonly #client: JetStreamClient
  readonly #manager: JetStreamManager
  readonly #newHeaders: () => MsgHdrs
  readonly #clock: Clock
  readonly #logger: Logger
  #trouble: string | undefined

  /** @throws LogFailure LOG_REFUSED when the server is too old, LOG_DISK when none answers */
  static async open(options: NatsOptions): Promise<NatsLink> {
    // Not before an engine wants it: most collectors never do.
    const [{ connect, credsAuthenticator, headers }, { jetstream, jetstreamManager }] =
      await Promise.all([import('@nats-io/transport-node'), import('@nats-io/jetstream')])
    const { servers, credentials, ca } = options
    let connection: NatsConnection
    try {
      connection = await connect({
        servers: [...servers],
        name: 'headgate collector',
        timeout: 5_000,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 250,
        reconnectJitter: 250,
        // A server that is cut off is left within 4 s.
        pingInterval: 2_000,
        maxPingOut: 2,
        ...(credentials && { authenticator: credsAuthenticator(credentials) }),
        ...(ca && { tls: { caFile: ca } }),
      })
    } catch (cause) {
      throw new LogFailure('LOG_DISK', `no NATS server answers: ${textOf(cause)}`, { cause })
    }
    try {
      const problem = problemOf(connection)
      if (problem) throw new LogFailure('LOG_REFUSED', problem)
      const manager = await patiently(options.clock, () => jetstreamManager(connection))
      const client = jetstream(connection)
      return new NatsLink(options, connection, client, manager, headers)
    } catch (error) {
      await connection.close()
      throw error
    }
  }

  private constructor(
    { clock, logger }: NatsOptions,
    connection: NatsConnection,
    client: JetStreamClient,
    manager: JetStreamManager,
    newHeaders: () => MsgHdrs,
  ) {
    this.#clock = clock
    this.#connection = connection
    this.#client = client
    this.#manager = manager
    this.#newHeaders = newHeaders
    this.#logger = logger
    void this.#watch()
  }

  /** Why nothing can be written; undefined while all is well. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** Largest message that the server takes, with its headers; without a server, no limit is known. */
  get maxMessageBytes(): number {
    return this.#connection.info?.max_payload || Number.POSITIVE_INFINITY
  }

  /**
   * Makes a stream that keeps everything in files, or looks at the one that is there.
   *
   * @param perSubject messages that it keeps of each; left out, all
   */
  async ensureStream(
    name: string,
    subjects: readonly string[],
    replicas: number,
    metadata: Record<string, string>,
    perSubject?: number,
  ): Promise<Record<string, string>> {
    const wanted: Partial<StreamConfig> & { name: string } = {
      name,
      subjects: [...subjects],
      retention: 'limits',
      storage: 'file',
      discard: 'new',
      num_replicas: replicas,
      allow_direct: true,
      metadata,
      ...(perSubject !== undefined && { max_msgs_per_subject: perSubject }),
    }
    const { config } = await patiently(this.#clock, async () => {
      const found = await this.#manager.streams.info(name).catch(() => undefined)
      return found ?? (await this.#manager.streams.add(wanted))
    })
    // Any of these would in time take the last message of a subject, and with it what is held.
    for (const limit of ['max_age', 'max_bytes', 'max_msgs', 'max_msgs_per_subject'] as const)
      if (config[limit] > 0 && wanted[limit] === undefined)
        throw new LogFailure(
          'LOG_REFUSED',
          `stream ${name} has ${limit}, which forgets what is held: remove it, and set log.retention`,
        )
    if (config.storage !== 'file')
      throw new LogFailure('LOG_REFUSED', `stream ${name} is not kept in files`)
    if (config.num_replicas !== replicas)
      this.#logger.warn(
        { stream: name, has: config.num_replicas, wanted: replicas },
        'a stream has another number of replicas than configured',
      )
    return { ...config.metadata }
  }

  /**
   * Appends a message if the subject's last one is the expected.
   *
   * @param expected its sequence, 0 for none
   * @returns the new sequence, once a majority has it on disk; `moved` when there is another one
   * @throws LogFailure LOG_DISK when it may or may not have been appended
   */
  async publish(
    subject: string,
    body: Uint8Array,
    headers: Record<string, string>,
    expected: number,
  ): Promise<number | typeof moved> {
    if (this.#trouble) throw new LogFailure('LOG_DISK', this.#trouble)
    const set = this.#newHeaders()
    for (const [name, value] of Object.entries(headers)) set.set(name, value)
    try {
      const { seq } = await this.#client.publish(subject, body, {
        headers: set,
        timeout: publishTimeoutMs,
        expect: { lastSubjectSequence: expected },
      })
      return seq
    } catch (cause) {
      if (wrongLastSequence.includes((cause as { code?: number }).code ?? 0)) return moved
      throw new LogFailure('LOG_DISK', textOf(cause), { cause })
    }
  }

  /** A subject's last message as the stream's leader has it. */
  async last(stream: string, subject: string): Promise<Message | undefined> {
    return this.#get(stream, { last_by_subj: subject })
  }

  /** @returns undefined when it is gone */
  async at(stream: string, sequence: number): Promise<Message | undefined> {
    return this.#get(stream, { seq: sequence })
  }

  async #get(
    stream: string,
    query: { last_by_subj: string } | { seq: number },
  ): Promise<Message | undefined> {
    const found = await this.#asked(() => this.#manager.streams.getMessage(stream, query))
    if (!found) return undefined
    const { subject, seq, data, header } = found
    return { subject, sequence: seq, body: data, header: (name) => header?.get(name) || undefined }
  }

  /** The first sequence that arrived at or after a time; undefined when there is none. */
  async firstSince(stream: string, timeMs: number): Promise<number | undefined> {
    const start = formatTime(timeMs)
    const found = await this.#asked(() =>
      this.#manager.direct.getMessage(stream, { start_time: start }),
    )
    return found?.seq
  }

  async facts(stream: string): Promise<StreamFacts> {
    const { state } = await this.#asked(() => this.#manager.streams.info(stream))
    return {
      messages: state.messages,
      bytes: state.bytes,
      firstSequence: state.first_seq,
      lastSequence: state.last_seq,
      deleted: state.num_deleted ?? 0,
    }
  }

  /** Removes everything before a sequence. */
  async purge(stream: string, sequence: number): Promise<void> {
    await this.#asked(() => this.#manager.streams.purge(stream, { seq: sequence }))
  }

  /** Messages in order, without end; some are fetched ahead. Ends when the signal aborts. */
  async *scan(stream: string, options: Scan): AsyncGenerator<Message> {
    const { fromSequence, headersOnly, lastPerSubject, signal } = options
    const config: Partial<OrderedConsumerOptions> = {
      headers_only: headersOnly ?? false,
      ...(lastPerSubject && { deliver_policy: 'last_per_subject' }),
      ...(fromSequence !== undefined && {
        deliver_policy: 'by_start_sequence',
        opt_start_seq: fromSequence,
      }),
    }
    if (signal?.aborted) return
    let consumer: Consumer | undefined
    let messages: ConsumerMessages | undefined
    const stop = () => void messages?.close().catch(() => {})
    try {
      consumer = await this.#asked(() => this.#client.consumers.get(stream, config))
      messages = await consumer.consume({
        max_messages: ahead,
        idle_heartbeat: heartbeatMs,
        expires: pullMs,
      })
      signal?.addEventListener('abort', stop, { once: true })
      if (signal?.aborted) return
      for await (const { subject, seq, headers, data } of messages) {
        const header = (name: string) => headers?.get(name) || undefined
        yield { subject, sequence: seq, body: data, header }
        if (signal?.aborted) return
      }
    } finally {
      signal?.removeEventListener('abort', stop)
      stop()
      consumer?.delete().catch(() => {}) // It ends by itself when nobody pulls.
    }
  }

  async close(): Promise<void> {
    await this.#connection.close()
  }

  async #asked<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (cause) {
      throw new LogFailure('LOG_DISK', textOf(cause), { cause })
    }
  }

  async #watch(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === 'disconnect') this.#trouble = 'the NATS server is gone: looking for another'
      else if (type === 'reconnect') this.#trouble = problemOf(this.#connection)
      else continue
      if (this.#trouble) this.#logger.error({ err: this.#trouble }, 'the log cannot write')
      else this.#logger.info('the log can write again')
    }
  }
}

/** Why a server will not do. */
function problemOf({ info }: NatsConnection): string | undefined {
  const version = info?.version ?? ''
  const [major = 0, minor = 0, patch = 0] = version.split(/[.-]/).map(Number)
  const found = [major, minor, patch]
  for (const [i, least] of oldest.entries()) {
    if (found[i]! > least) break
    if (found[i]! < least)
      return (
        `NATS server ${version} is too old: before ${oldest.join('.')} a cluster takes two writers' ` +
        'batches under one expected sequence, and a server may not sync what it acknowledges'
      )
  }
  return info?.jetstream ? undefined : 'the NATS server has no JetStream: enable it'
}

/** While the cluster chooses who leads it, nobody answers, for some seconds. */
async function patiently<T>(clock: Clock, ask: () => Promise<T>): Promise<T> {
  const endMs = clock.monotonicMs() + electionMs
  for (;;) {
    try {
      return await ask()
    } catch (cause) {
      if (clock.monotonicMs() > endMs)
        throw new LogFailure('LOG_DISK', `JetStream does not answer: ${textOf(cause)}`, { cause })
      await sleep(clock, 250)
    }
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
