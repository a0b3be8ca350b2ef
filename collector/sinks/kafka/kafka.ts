import { readFileSync } from 'node:fs'
import { findErrorBy, ProduceAcks, Producer } from '@platformatic/kafka'
import type { LogRecord } from '../../fanout/record.ts'
import { type Row, rowOf } from '../columns.ts'
import { readSecret } from '../http/http-output.ts'
import { identityText } from '../identity.ts'
import type { KafkaConfig } from '../kafka.ts'
import { NameTemplate } from '../name-template.ts'
import type { RowFormat } from '../registry/row-format.ts'
import { rowJson } from '../row-json.ts'
import {
  type Refusal,
  type Refuse,
  type Sink,
  type SinkContext,
  SinkFailure,
  type Slice,
} from '../sink.ts'

/** Of one request's records, about. */
const requestBytes = 512 * 1024
const connectTimeoutMs = 5_000

/** Errors of a cluster that a person has to mend. */
const refusing = [
  'UNKNOWN_TOPIC_OR_PARTITION',
  'INVALID_TOPIC_EXCEPTION',
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'SASL_AUTHENTICATION_FAILED',
]

const plainJson = {
  contentType: 'application/json',
  encode: (row: Row) => Buffer.from(rowJson(row)),
}

interface Message {
  topic: string
  key: Buffer
  value: Buffer
  timestamp: bigint
  headers: Map<Buffer, Buffer>
}

/**
 * Produces with acknowledgement by all replicas in sync, by an idempotent producer: what the client itself
 * sends again is there once. What comes again after a failure is there twice; its header `id` tells.
 */
export class KafkaSink implements Sink {
  readonly #config: KafkaConfig
  readonly #context: SinkContext
  readonly #topic: NameTemplate
  readonly #format: Pick<RowFormat, 'contentType' | 'encode'>
  readonly #producer: Producer<Buffer, Buffer, Buffer, Buffer>

  static async open(config: KafkaConfig, context: SinkContext): Promise<Sink> {
    const format = config.registry ? await knownFormat(config, context) : plainJson
    return new KafkaSink(config, context, format)
  }

  private constructor(
    config: KafkaConfig,
    context: SinkContext,
    format: Pick<RowFormat, 'contentType' | 'encode'>,
  ) {
    this.#config = config
    this.#context = context
    this.#format = format
    this.#topic = new NameTemplate(config.topic)
    const { brokers, ca, sasl, timeout } = config
    this.#producer = new Producer({
      clientId: `headgate-${context.name}`,
      bootstrapBrokers: [...brokers],
      idempotent: true,
      acks: ProduceAcks.ALL,
      autocreateTopics: false,
      connectTimeout: connectTimeoutMs,
      requestTimeout: timeout,
      timeout,
      retries: 2,
      ...(ca && { tls: { ca: readFileSync(ca, 'utf8') } }),
      ...(sasl && { sasl: { ...sasl, password: readSecret(sasl.password) } }),
    })
  }

  async write({ records }: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable'> {
    const refusals: Refusal[] = []
    let messages: Message[] = []
    let bytes = 0
    const send = async () => {
      signal.throwIfAborted()
      if (messages.length > 0) await this.#send(messages)
      messages = []
      bytes = 0
    }
    for (const record of records) {
      const message = this.#messageOf(record)
      const { length } = message.value
      if (length > this.#config.maxMessage) {
        const reason = `${length} bytes, and maxMessage is ${this.#config.maxMessage}`
        refusals.push({ record, reason })
        continue
      }
      if (bytes + length > requestBytes) await send()
      messages.push(message)
      bytes += length
    }
    await send()
    if (refusals.length > 0) await refuse(refusals)
    return 'durable'
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#producer.close(true).catch(() => {})
  }

  #messageOf(record: LogRecord): Message {
    const { stream, origin } = this.#context
    const row = rowOf(record)
    const fit = (text: string) => text.replaceAll(/[^A-Za-z0-9._-]/g, '_') || '_'
    return {
      topic: this.#topic.fill(row, stream, fit),
      // What belongs to one device stays in order; what belongs to none, by its agent.
      key: Buffer.from(row.device ?? row.agent),
      value: this.#format.encode(row),
      timestamp: row.time < 0n ? 0n : row.time / 1000n,
      headers: new Map([
        [Buffer.from('id'), Buffer.from(identityText(record, origin))],
        [Buffer.from('content-type'), Buffer.from(this.#format.contentType)],
      ]),
    }
  }

  async #send(messages: Message[]): Promise<void> {
    const { compression, brokers } = this.#config
    try {
      await this.#producer.send({ messages, compression })
    } catch (cause) {
      const error = cause as Error
      const where = brokers.join(', ')
      const found = refusing.find((id) => findErrorBy(error, 'apiId', id))
      // The client has asked for what is known of the topic, and got nothing.
      const isUnknown = /Unknown topic/.test(String(findErrorBy(error, 'code', 'PLT_KFK_USER')))
      if (found || isUnknown) {
        const topics = [...new Set(messages.map(({ topic }) => topic))].slice(0, 3).join(', ')
        const why = found ?? 'no such topic'
        throw new SinkFailure('SINK_REFUSED', `${where}: ${why}: ${topics}`, { cause })
      }
      throw new SinkFailure('SINK_UNREACHABLE', `${where}: ${error.message}`, { cause })
    }
  }
}

/** Of the sink's topic, whose name is the same for every record then. @throws SinkFailure */
async function knownFormat(config: KafkaConfig, { stream }: SinkContext): Promise<RowFormat> {
  const [{ openRowFormat }, { RegistryFailure }] = await Promise.all([
    import('../registry/row-format.ts'),
    import('../registry/client.ts'),
  ])
  const topic = config.topic.replaceAll('{stream}', stream)
  try {
    return await openRowFormat(config, { topic, name: 'Record' })
  } catch (cause) {
    if (!(cause instanceof RegistryFailure)) throw cause
    throw new SinkFailure(cause.retry ? 'SINK_UNREACHABLE' : 'SINK_REFUSED', cause.message, {
      cause,
    })
  }
}
