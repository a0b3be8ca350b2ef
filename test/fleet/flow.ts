import { setTimeout as pause } from 'node:timers/promises'
import mqtt, { type MqttClient } from 'mqtt'

const stepMs = 50
const devices = 20

/**
 * Readings for several gateways at a steady rate: each device counts, so each value is there once. Topics
 * are `<gateway>/sensors/<device>/counter`.
 */
export class Flow {
  readonly #clients: Map<string, MqttClient>
  readonly #acknowledged: Map<string, number>
  readonly #startedMs = performance.now()
  #stopped = false
  #endedMs = 0
  #running: Promise<unknown> = Promise.resolve()

  static async start(url: string, gateways: readonly string[], perSecond: number): Promise<Flow> {
    const clients = new Map<string, MqttClient>()
    for (const gateway of gateways) clients.set(gateway, await mqtt.connectAsync(url))
    const flow = new Flow(clients)
    const each = gateways.map((gateway) => flow.#publish(gateway, perSecond / gateways.length))
    flow.#running = Promise.all(each)
    return flow
  }

  private constructor(clients: Map<string, MqttClient>) {
    this.#clients = clients
    this.#acknowledged = new Map([...clients.keys()].map((gateway) => [gateway, 0]))
  }

  /** Readings a second from the start to the end. */
  get rate(): number {
    const sent = [...this.#acknowledged.values()].reduce((sum, count) => sum + count, 0)
    return (sent * 1000) / (this.#endedMs - this.#startedMs)
  }

  async #publish(gateway: string, perSecond: number): Promise<void> {
    const client = this.#clients.get(gateway)!
    let made = 0
    while (!this.#stopped) {
      const due = Math.floor((perSecond * (performance.now() - this.#startedMs)) / 1000)
      const step: Promise<unknown>[] = []
      for (; made < due; made++) {
        const topic = `${gateway}/sensors/d${made % devices}/counter`
        step.push(client.publishAsync(topic, `${Math.floor(made / devices)}`, { qos: 1 }))
      }
      await Promise.all(step)
      this.#acknowledged.set(gateway, made)
      await pause(stepMs)
    }
  }

  /** Resolves to the readings that the broker has acknowledged, by gateway. */
  async stop(): Promise<ReadonlyMap<string, number>> {
    if (!this.#stopped) {
      this.#stopped = true
      await this.#running
      this.#endedMs = performance.now()
      for (const client of this.#clients.values()) await client.endAsync()
    }
    return this.#acknowledged
  }
}
