import { readFile } from 'node:fs/promises'
import type { JetStreamClient } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/transport-node'
import type { LogRecord } from '../../fanout/record.ts'
import { rowOf } from '../columns.ts'
import { identityText } from '../identity.ts'
import { levelEscape, NameTemplate } from '../name-template.ts'
import { type NatsConfig, subjectOf } from '../nats.ts'
import { rowJson } from '../row-json.ts'
import {
  type Refusal,
  type Refuse,
  type Sink,
  type SinkContext,
  SinkFailure,
  type Slice,
} from '../sink.ts'

const connectTimeoutMs = 5_000
/** JetStream's code for a message that is larger than the stream takes. */
const messageTooLarge = 10_054
/** Codes of a stream that is full and takes nothing new. */
const streamIsFull = [10_047, 10_077]

/**
 * Publishes to JetStream. `Nats-Msg-Id` is the record's identity, so the stream takes a repeat for one
 * within its `duplicate_window`.
 */
export class NatsSink implements Sink {
  readonly #config: NatsConfig
  readonly #context: SinkContext
  readonly #subject: NameTemplate
  readonly #fit = levelEscape(/[.*>]/)
  readonly #connection: NatsConnection
  readonly #client: JetStreamClient

  static async open(config: NatsConfig, context: SinkContext): Promise<Sink> {
    const [{ connect, credsAuthenticator }, { jetstream }] = await Promise.all([
      import('@nats-io/transport-node'),
      import('@nats-io/jetstream'),
    ])
    const { servers, credentials, ca } = config
    try {
      const connection = await connect({
        servers: [...servers],
        name: `headgate sink ${context.name}`,
        timeout: connectTimeoutMs,
        // The runner opens it anew, and knows how long to wait.
        reconnect: false,
        ...(credentials && { authenticator: credsAuthenticator(await readFile(credentials)) }),
        ...(ca && { tls: { caFile: ca } }),
      })
      return new NatsSink(config, context, connection, jetstream(connection))
    } catch (cause) {
      throw new SinkFailure('SINK_UNREACHABLE', `NATS: ${(cause as Error).message}`, { cause })
    }
  }

  private constructor(
    config: NatsConfig,
    context: SinkContext,
    connection: NatsConnection,
    client: JetStreamClient,
  ) {
    this.#config = config
    this.#context = context
    this.#subject = new NameTemplate(subjectOf(config.subject, context.stream))
    this.#connection = connection
    this.#client = client
  }

  async write({ records }: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable'> {
    const refusals: Refusal[] = []
    const { maxInFlight } = this.#config
    for (let at = 0; at < records.length; at += maxInFlight) {
      signal.throwIfAborted()
      const some = records.slice(at, at + maxInFlight)
      const reasons = await Promise.all(some.map((record) => this.#publish(record)))
      for (const [index, reason] of reasons.entries())
        if (reason !== undefined) refusals.push({ record: some[index]!, reason })
    }
    if (refusals.length > 0) await refuse(refusals)
    return 'durable'
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close()
  }

  /** @returns why the stream will never take it */
  async #publish(record: LogRecord): Promise<string | undefined> {
    const { stream, origin } = this.#context
    const row = rowOf(record)
    const subject = this.#subject.fill(row, stream, this.#fit)
    const body = Buffer.from(rowJson(row))
    const maxBytes = this.#connection.info?.max_payload ?? Number.POSITIVE_INFINITY
    // Its headers count, too.
    const bytes = body.length + 1_024 + record.agent.length * 3
    if (bytes > maxBytes) return `${bytes} bytes with headers, and the server takes ${maxBytes}`
    const msgID = identityText(record, origin)
    try {
      await this.#client.publish(subject, body, { msgID, timeout: this.#config.timeout })
      return undefined
    } catch (cause) {
      const { code, message, name } = cause as Error & { code?: number }
      if (code === messageTooLarge) return message
      if (streamIsFull.includes(code ?? 0)) throw new SinkFailure('SINK_BUSY', message, { cause })
      if (code !== undefined) throw new SinkFailure('SINK_REFUSED', message, { cause })
      // What the client makes of it when nobody listens on a subject.
      const none = name === 'JetStreamNotEnabled'
      throw none
        ? new SinkFailure('SINK_REFUSED', `no stream of JetStream takes ${subject}`, { cause })
        : new SinkFailure('SINK_UNREACHABLE', `NATS: ${message}`, { cause })
    }
  }
}
