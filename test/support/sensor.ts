import { randomBytes } from 'node:crypto'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { poll } from './poll.ts'

/** Published together; the next ones follow once the broker has answered for all of them. */
const chunk = 40

/**
 * A sensor that counts: 1, 2, 3 …, each once, in turn under a few topics, all on one connection, so
 * that the broker has them in this order. It keeps its own record of what the broker answered for.
 */
export class Sensor {
  /** The broker has acknowledged these: they must reach the log. */
  readonly acknowledged = new Set<number>()
  /** No answer came, because the broker went away; it may have them or not. Never sent again. */
  readonly unknown = new Set<number>()
  readonly #url: string
  readonly #options: IClientOptions
  readonly #pad: number
  readonly #qos: 1 | 2
  readonly #stop = new AbortController()
  #next = 1
  #running: Promise<void> | undefined

  /** @param pad characters behind the number, which no compression makes fewer; the value is then a text */
  constructor(
    url: string,
    { pad = 0, qos = 1, ...options }: IClientOptions & { pad?: number; qos?: 1 | 2 } = {},
  ) {
    this.#url = url
    this.#qos = qos
    this.#options = options
    this.#pad = pad
  }

  /** Publishes at most so many a second, until `stop`. */
  start(perSecond: number): void {
    this.#running = this.#run(Number.POSITIVE_INFINITY, perSecond)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  /** Publishes so many more and resolves once the broker has answered for each. */
  async publish(count: number, perSecond = Number.POSITIVE_INFINITY): Promise<void> {
    await this.#run(count, perSecond)
  }

  get published(): number {
    return this.#next - 1
  }

  async #run(count: number, perSecond: number): Promise<void> {
    const last = this.#next + count
    const stopped = this.#stop.signal
    while (this.#next < last && !stopped.aborted) {
      const client = await this.#connect()
      if (!client) return
      const startMs = performance.now()
      const start = this.#next
      while (this.#next < last && client.connected && !stopped.aborted) {
        await this.#publishChunk(client, Math.min(chunk, last - this.#next))
        const dueMs = startMs + ((this.#next - start) / perSecond) * 1000
        const waitMs = dueMs - performance.now()
        if (waitMs > 1) await new Promise((resolve) => setTimeout(resolve, waitMs))
      }
      await client.endAsync(true)
    }
  }

  async #connect(): Promise<MqttClient | undefined> {
    const options = { reconnectPeriod: 0, connectTimeout: 5_000, ...this.#options }
    return poll(async () => {
      if (this.#stop.signal.aborted) return 'stopped' as const
      const client = await mqtt.connectAsync(this.#url, options).catch(() => undefined)
      client?.on('error', () => {})
      // Only then are the publications in flight told that there will be no answer.
      client?.on('close', () => client.end(true))
      return client
    }, 'the broker takes connections').then((found) => (found === 'stopped' ? undefined : found))
  }

  async #publishChunk(client: MqttClient, count: number): Promise<void> {
    const answers = Array.from({ length: count }, async () => {
      const value = this.#next++
      const topic = `sensors/s${value % 7}/count`
      const text = randomBytes(this.#pad).toString('base64').slice(0, this.#pad)
      const v = this.#pad > 0 ? `${value} ${text}` : value
      const payload = JSON.stringify({ t: 1_767_225_600_000 + value, v })
      try {
        await client.publishAsync(topic, payload, { qos: this.#qos })
        this.acknowledged.add(value)
      } catch {
        this.unknown.add(value)
      }
    })
    await Promise.all(answers)
  }
}
