import { setInterval as every } from 'node:timers/promises'
import mqtt from 'mqtt'

const devices = 50
const metrics = 4

/**
 * A plant that publishes at its own pace, however slow the broker answers: 200 series in turn, one reading a
 * message, QoS 1, the values 1, 2, 3 …
 */
export class PlantLoad {
  readonly #stop = new AbortController()
  #published = 0
  readonly #done: Promise<void>

  constructor(url: string, perSecond: number) {
    this.#done = this.#run(url, perSecond)
  }

  get published(): number {
    return this.#published
  }

  /** Resolves once the broker has answered for everything. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#done
  }

  async #run(url: string, perSecond: number): Promise<void> {
    const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 })
    const startMs = performance.now()
    for await (const _ of every(10)) {
      if (this.#stop.signal.aborted) break
      const due = ((performance.now() - startMs) / 1000) * perSecond
      while (this.#published < due) {
        const series = this.#published % (devices * metrics)
        const topic = `sensors/d${series % devices}/m${Math.floor(series / devices)}`
        this.#published += 1
        const payload = JSON.stringify({ t: Date.now(), v: this.#published })
        client.publish(topic, payload, { qos: 1 })
      }
    }
    await client.endAsync() // It waits for what is in flight.
  }
}
