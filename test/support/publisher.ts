import type { TestContext } from 'node:test'
import mqtt, { type IClientOptions } from 'mqtt'

/** A device that publishes with QoS 1, gone when the test ends. */
export async function device(t: TestContext, url: string, options: IClientOptions = {}) {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options })
  t.after(() => client.endAsync(true))
  return {
    client,
    /** Resolves once the broker has acknowledged them all. */
    publish: (topic: string, payloads: readonly string[], { retain = false } = {}) =>
      Promise.all(
        payloads.map((payload) => client.publishAsync(topic, payload, { qos: 1, retain })),
      ),
  }
}
