import { readFile } from 'node:fs/promises'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import type { LogRecord } from '../../fanout/record.ts'
import { rowOf } from '../columns.ts'
import { readSecret } from '../http/http-output.ts'
import { type MqttConfig, topicOf } from '../mqtt.ts'
import { levelEscape, NameTemplate } from '../name-template.ts'
import { rowJson } from '../row-json.ts'
import {
  type Refusal,
  type Refuse,
  type Sink,
  type SinkContext,
  SinkFailure,
  type Slice,
} from '../sink.ts'

/** Reason codes of MQTT 5 that are about the message: topic name, size, payload format. */
const aboutMessage = [0x90, 0x95, 0x99]
const quotaExceeded = 0x97
const keepaliveS = 30
const maxTopicBytes = 65_535

/** Publishes at QoS 1: what the broker has acknowledged is its own to keep. A repeat is sent twice. */
export class MqttSink implements Sink {
  readonly #config: MqttConfig
  readonly #context: SinkContext
  readonly #topic: NameTemplate
  readonly #fit = levelEscape(/[/+#]/)
  readonly #client: MqttClient
  /** Rejects when the connection is gone. */
  readonly #lost: Promise<never>

  static async open(config: MqttConfig, context: SinkContext): Promise<Sink> {
    const { url, ca, cert, key, username, passwordFile, timeout } = config
    const read = (file: string | undefined) => (file === undefined ? undefined : readFile(file))
    const options = {
      clientId: config.clientId ?? `headgate-${context.name}`,
      protocolVersion: 5,
      clean: true,
      keepalive: keepaliveS,
      connectTimeout: timeout,
      // The runner opens it anew, and knows how long to wait.
      reconnectPeriod: 0,
      allowPartialTrustChain: true,
      ...(ca && { ca: await read(ca) }),
      ...(cert && { cert: await read(cert), key: await read(key) }),
      ...(username !== undefined && { username }),
      ...(passwordFile !== undefined && { password: readSecret(passwordFile) }),
    } as IClientOptions
    try {
      return new MqttSink(config, context, await mqtt.connectAsync(url, options, false))
    } catch (cause) {
      const { message, code } = cause as Error & { code?: number | string }
      const refused = typeof code === 'number'
      throw new SinkFailure(refused ? 'SINK_REFUSED' : 'SINK_UNREACHABLE', `${url}: ${message}`, {
        cause,
      })
    }
  }

  private constructor(config: MqttConfig, context: SinkContext, client: MqttClient) {
    this.#config = config
    this.#context = context
    this.#topic = new NameTemplate(topicOf(config.topic, context.stream))
    this.#client = client
    this.#lost = new Promise((_, reject) => {
      const lost = (why: string) =>
        reject(new SinkFailure('SINK_UNREACHABLE', `${config.url}: ${why}`))
      client.on('error', (error) => lost(error.message))
      client.on('disconnect', ({ reasonCode }) => lost(`the broker hung up, reason ${reasonCode}`))
      client.on('close', () => lost('the connection is gone'))
    })
    this.#lost.catch(() => {})
  }

  async write({ records }: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable'> {
    const refusals: Refusal[] = []
    const { maxInFlight } = this.#config
    for (let at = 0; at < records.length; at += maxInFlight) {
      signal.throwIfAborted()
      const some = records.slice(at, at + maxInFlight)
      const all = Promise.all(some.map((record) => this.#publish(record)))
      const reasons = await this.#inTime(all)
      for (const [index, reason] of reasons.entries())
        if (reason !== undefined) refusals.push({ record: some[index]!, reason })
    }
    if (refusals.length > 0) await refuse(refusals)
    return 'durable'
  }

  /** Rejects when the connection is lost, or the broker says nothing for too long. */
  async #inTime<T>(answers: Promise<T>): Promise<T> {
    const { url, timeout } = this.#config
    let cancel = () => {}
    const silence = new Promise<never>((_, reject) => {
      const tell = () => reject(new SinkFailure('SINK_UNREACHABLE', `${url} does not acknowledge`))
      cancel = this.#context.clock.timer(timeout, tell)
    })
    try {
      return await Promise.race([answers, this.#lost, silence])
    } finally {
      cancel()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.endAsync(true)
  }

  /** @returns why the broker will never take it */
  async #publish(record: LogRecord): Promise<string | undefined> {
    const row = rowOf(record)
    const topic = this.#topic.fill(row, this.#context.stream, this.#fit)
    const body = rowJson(row)
    const bytes = Buffer.byteLength(body)
    const { maxMessage, retain } = this.#config
    if (bytes > maxMessage) return `${bytes} bytes, and maxMessage is ${maxMessage}`
    if (Buffer.byteLength(topic) > maxTopicBytes) return 'the topic is longer than MQTT can say'
    try {
      await this.#client.publishAsync(topic, body, { qos: 1, retain })
      return undefined
    } catch (cause) {
      const { message, code } = cause as Error & { code?: number }
      if (aboutMessage.includes(code ?? 0)) return message
      if (code === quotaExceeded) throw new SinkFailure('SINK_BUSY', message, { cause })
      throw new SinkFailure(code === undefined ? 'SINK_UNREACHABLE' : 'SINK_REFUSED', message, {
        cause,
      })
    }
  }
}
