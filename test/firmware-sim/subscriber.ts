import type { TestContext } from 'node:test'
import mqtt, { type IClientOptions, type IConnackPacket, type MqttClient } from 'mqtt'

export interface Received {
  topic: string
  payload: string
  duplicate: boolean
  packetId: number
}

/** A subscriber at QoS 1 to everything below `sensors`, by a client library that is not ours. */
export class Subscriber {
  readonly received: Received[] = []
  readonly client: MqttClient

  private constructor(client: MqttClient) {
    this.client = client
    client.on('message', (topic, payload, { dup, messageId = 0 }) =>
      this.received.push({
        topic,
        payload: payload.toString(),
        duplicate: dup,
        packetId: messageId,
      }),
    )
  }

  /** Resolves once it is subscribed. */
  static async open(
    t: TestContext,
    url: string,
    options: IClientOptions = {},
  ): Promise<Subscriber> {
    const subscriber = new Subscriber(mqtt.connect(url, { reconnectPeriod: 20, ...options }))
    t.after(() => subscriber.client.end(true))
    const { sessionPresent } = await connected(subscriber.client)
    if (!sessionPresent) await subscriber.client.subscribeAsync('sensors/#', { qos: 1 })
    return subscriber
  }

  get payloads(): string[] {
    return this.received.map(({ payload }) => payload)
  }

  /** Leaves without a word, as a process that is killed. */
  async vanish(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.client.once('close', resolve))
    this.client.options.reconnectPeriod = 0
    this.client.stream.destroy()
    await closed
    this.client.end(true)
  }
}

export function connected(client: MqttClient): Promise<IConnackPacket> {
  return new Promise((resolve) => client.once('connect', resolve))
}
