import { join } from 'node:path'
import { test } from 'node:test'
import { LogClient } from '../../shared/client.ts'
import { aedesBroker } from '../support/aedes-broker.ts'
import { Balancer } from '../support/balancer.ts'
import { assertSame } from '../support/counting.ts'
import { effort } from '../support/effort.ts'
import { NatsNode } from '../support/nats/server.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const hops = effort('HEADGATE_BALANCER_HOPS', { quick: 6, inCi: 12, inFull: 100 })

test(`after ${hops} hops between collectors behind a TCP balancer each agent's readings are there, once and in order`, async (t) => {
  const nodes = await NatsNode.start(t)
  if (!nodes) return
  const directory = await temporaryDirectory(t)
  const nats = { servers: nodes.map(({ url }) => url), replicas: 1 }
  const clouds: Cloud[] = []
  for (const name of ['a', 'b', 'c']) {
    const more = { log: { engine: 'nats', partitions: 2, nats } }
    const cloud = await Cloud.make(t, { directory: join(directory, name), more })
    await cloud.start()
    clouds.push(cloud)
  }
  const balancer = await Balancer.open(
    t,
    clouds.map(({ port }) => ({ host: '127.0.0.1', port })),
  )
  const plants = await Promise.all(
    ['gw-1', 'gw-2', 'gw-3'].map(async (name) => {
      const { url: broker } = await aedesBroker(t)
      const place = { directory: join(directory, name), broker, collector: balancer.url }
      const uplink = { batch: { maxAge: '50ms' } }
      const gateway = await Gateway.make(t, { ...place, name, uplink })
      await gateway.start()
      await gateway.subscribed()
      const sensor = new Sensor(broker)
      sensor.start(500)
      return { name, gateway, sensor }
    }),
  )
  const accepted = (cloud: Cloud) => counted(cloud, 'accepted')
  for (let hop = 0; hop < hops; hop++) {
    const before = await Promise.all(clouds.map(accepted))
    balancer.shake()
    // Each takes batches of some agent or other, which it has never seen before.
    await poll(async () => {
      const now = await Promise.all(clouds.map(accepted))
      return now.every((count, i) => count > before[i]!)
    }, `all collectors take batches, hop ${hop}`)
    if (hop % 3 !== 2) continue
    const cloud = clouds[hop % clouds.length]!
    await cloud.kill()
    for (const { gateway } of plants) {
      const { ledger } = await gateway.until(() => true, 'it answers')
      await gateway.until((now) => now.ledger.forwarded > ledger.forwarded, 'it goes on without')
    }
    await cloud.start()
  }
  let again = 0
  for (const { gateway, sensor } of plants) {
    await sensor.stop()
    const { uplink } = await gateway.drained(sensor.acknowledged.size, 60_000)
    again += uplink.duplicates
  }
  t.diagnostic(`${again} batches were sent again and recognised`)
  const found = new Map(plants.map(({ name }) => [name, [] as { value: string }[]]))
  const client = new LogClient({ url: clouds[0]!.url })
  for await (const { agent, value } of client.readings({ from: { timeMs: 0 } }))
    found.get(agent)!.push({ value: String(value) })
  for (const { name, sensor } of plants)
    assertSame(found.get(name)!, sensor.acknowledged, sensor.unknown)
})

/** Batches that a collector has answered so since its start. */
async function counted(cloud: Cloud, answer: string): Promise<number> {
  const text = await (await fetch(`${cloud.url}/metrics`)).text()
  const [, count] = new RegExp(`batches_total\\{answer="${answer}"\\} (\\d+)`).exec(text) ?? []
  return Number(count ?? 0)
}
