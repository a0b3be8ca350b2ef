import { join } from 'node:path'
import { Cloud, Gateway } from '../../support/plant.ts'
import { startMosquitto } from '../harness/mosquitto.ts'
import type { Make } from './peer.ts'

/** mosquitto → agent → collector, which syncs. */
export const makeHeadgate: Make = async (t, directory) => {
  const broker = await startMosquitto(t)
  const cloud = await Cloud.make(t, { directory: join(directory, 'collector') })
  const agent = await Gateway.make(t, {
    directory: join(directory, 'agent'),
    broker: broker.url,
    collector: cloud.url,
    // As for throughput: readings are at the collector within a quarter of a second.
    source: { linger: '50ms' },
    uplink: { batch: { maxAge: '200ms' } },
  })
  return {
    port: broker.port,
    brokerPid: broker.pid,
    async start() {
      await agent.start()
      await agent.subscribed()
    },
    pid: () => agent.process.pid,
    kill: () => agent.kill(),
    async openCloud() {
      await cloud.start()
    },
    async arrived() {
      const response = await fetch(`${cloud.url}/v1/streams`)
      const streams = (await response.json()) as { readings: { readings: number } }
      return streams.readings.readings
    },
  }
}
