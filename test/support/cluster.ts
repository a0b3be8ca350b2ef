import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import { Balancer } from './balancer.ts'
import { KafkaNode } from './kafka/server.ts'
import { NatsNode } from './nats/server.ts'
import { Cloud } from './plant.ts'
import { poll } from './poll.ts'
import { temporaryDirectory } from './temporary.ts'

/** Collectors of one log on a cluster of one server, and a balancer before them. */
export interface Cluster {
  clouds: Cloud[]
  /** Of whichever collector is there. */
  url: string
}

/** Where the log is kept, as `log` of collector.yaml says; undefined where it cannot be had and the test was skipped. */
type Place = (t: TestContext) => Promise<object | undefined>

export const clusterEngines: Record<string, Place> = {
  nats: async (t) => {
    const nodes = await NatsNode.start(t)
    return nodes && { nats: { servers: nodes.map(({ url }) => url), replicas: 1 } }
  },
  kafka: async (t) => {
    const nodes = await KafkaNode.start(t)
    const brokers = nodes?.map(({ address }) => address)
    return brokers && { kafka: { brokers, replicas: 1, records: 'batches' } }
  },
}

/** Two collectors that run. @returns undefined where the test was skipped */
export async function startCluster(
  t: TestContext,
  engine: string,
  more: object = {},
): Promise<Cluster | undefined> {
  const place = await clusterEngines[engine]!(t)
  if (!place) return undefined
  const directory = await temporaryDirectory(t)
  const log = { engine, partitions: 2, takeover: '2s', ...place }
  const clouds: Cloud[] = []
  for (const name of ['a', 'b']) {
    const cloud = await Cloud.make(t, { directory: join(directory, name), more: { log, ...more } })
    await cloud.start()
    clouds.push(cloud)
  }
  const targets = clouds.map(({ port }) => ({ host: '127.0.0.1', port }))
  return { clouds, url: (await Balancer.open(t, targets)).url }
}

export async function sinksOf(cloud: Cloud): Promise<SinkStatus[]> {
  const answer = await fetch(`${cloud.url}/v1/sinks`)
  return ((await answer.json()) as { sinks: SinkStatus[] }).sinks
}

/** Resolves to the collector that runs a sink, once one does. */
export function runnerOf(clouds: readonly Cloud[], sink: string): Promise<Cloud> {
  return poll(
    async () => {
      for (const cloud of clouds) {
        const found = (await sinksOf(cloud)).find(({ name }) => name === sink)
        if (found?.phase === 'running') return cloud
      }
      return undefined
    },
    `somebody runs ${sink}`,
    60_000,
  )
}
