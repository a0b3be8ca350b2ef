import mqtt, { type MqttClient } from 'mqtt'
import { topicRoot } from '../../shared/fleet/topics.ts'
import type { Logger } from '../../shared/log.ts'
import type { BusHandler, FleetBus } from './bus.ts'
import { FleetProblem } from './problem.ts'

export interface RemoteBusOptions {
  /** `mqtts://host:port` */
  url: string
  /** The collector's certificate as a client, PEM. */
  tls: { cert: string; key: string; ca: string }
  logger: Logger
  handler: BusHandler
  /** The broker is there, again or for the first time: it may have lost what it is to retain. */
  onConnect: () => void
}

const reconnectMs = 5_000
const keepaliveS = 30
/** What agents say, and what managers send them who do without the collector. */
const filters = ['config/reported', 'status', 'result/+', 'config/desired', 'command/+'].map(
  (rest) => `${topicRoot}/+/${rest}`,
)

/** A stock broker, with the collector as one of its clients. */
export class RemoteBus implements FleetBus {
  readonly #client: MqttClient

  constructor({ url, tls, logger, handler, onConnect }: RemoteBusOptions) {
    this.#client = mqtt.connect(url, {
      ...tls,
      allowPartialTrustChain: true,
      clientId: 'headgate-collector',
      reconnectPeriod: reconnectMs,
      keepalive: keepaliveS,
    } as mqtt.IClientOptions)
    this.#client.on('message', (topic, payload) => handler(topic, payload))
    this.#client.on('error', (err) => logger.warn({ err, broker: url }, 'fleet broker'))
    this.#client.on('connect', () => {
      logger.info({ broker: url }, 'connected with the fleet broker')
      this.#client.subscribe([...filters], { qos: 1 }, (err) => {
        if (err) logger.error({ err, broker: url }, 'the fleet broker does not let us listen')
        else onConnect()
      })
    })
  }

  async publish(
    topic: string,
    payload: Uint8Array,
    { retain }: { retain: boolean },
  ): Promise<void> {
    if (this.#client.connected)
      await this.#client.publishAsync(topic, Buffer.from(payload), { qos: 1, retain })
    // What is retained is published again whenever the broker is back.
    else if (!retain) throw new FleetProblem(503, 'broker', 'no connection with the fleet broker')
  }

  /** Only the broker knows. */
  isConnected(): undefined {
    return undefined
  }

  /** A stock broker keeps an open connection until it reads its list of revoked certificates anew. */
  drop(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.endAsync(true)
  }
}
