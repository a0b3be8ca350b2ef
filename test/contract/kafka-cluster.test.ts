import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Balancer } from '../support/balancer.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { Network } from '../support/network.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const cuts = effort('HEADGATE_KAFKA_CUTS', { quick: 1, inCi: 1, inFull: 20 })
const kills = effort('HEADGATE_KAFKA_KILLS', { quick: 2, inCi: 4, inFull: 60 })
const partitions = 4

/** A collector that keeps its log in that cluster. */
async function collectorOf(
  t: TestContext,
  name: string,
  brokers: string[],
  peer?: { host: string },
): Promise<Cloud> {
  const directory = join(await temporaryDirectory(t), name)
  const kafka = { brokers, replicas: brokers.length, ...(peer && { peer }) }
  return Cloud.make(t, { directory, more: { log: { engine: 'kafka', partitions, kafka } } })
}

/** Starts it; resolves once it takes batches: on a busy machine that takes its time. */
async function serve(cloud: Cloud): Promise<void> {
  cloud.launch()
  await ready(cloud.url)
}

async function ready(url: string): Promise<void> {
  const isReady = async () => (await fetch(`${url}/readyz`).catch(() => undefined))?.ok
  await poll(isReady, `the collector at ${url} is ready`, 120_000)
}

/** Every batch of every lane is there once and in order, and nothing but what was answered for. */
async function assertWhole(brokers: string[], readings: number): Promise<void> {
  await using log = await openKafkaLog(brokers, { partitions })
  const { problems, records } = await log.verify(async () => {})
  assert.deepEqual(problems, [])
  assert.equal(records.readings, readings)
}

test(`after ${kills} kills of Kafka brokers and collectors all is there, once and in order`, async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const nodes = await KafkaNode.start(t, { nodes: 3 })
  if (!nodes) return
  const brokers = nodes.map(({ address }) => address)
  const clouds = [await collectorOf(t, 'a', brokers), await collectorOf(t, 'b', brokers)]
  for (const cloud of clouds) await serve(cloud)
  const balancer = await Balancer.open(
    t,
    clouds.map(({ port }) => ({ host: '127.0.0.1', port })),
  )
  // Each batch goes to either collector, whichever owns its agent.
  const senders = new Senders(random, 8, () => balancer.url)
  await senders.progress(50)
  for (let kill = 0; kill < kills; kill++) {
    await senders.progress(random.below(50))
    if (kill % 2 === 0) {
      const cloud = clouds[random.below(clouds.length)]!
      await cloud.kill()
      await senders.progress(50) // The other takes over, and knows what is held.
      await serve(cloud)
    } else {
      const node = nodes[random.below(nodes.length)]!
      await node.kill()
      await senders.progress(50) // Two of three go on.
      node.launch()
      await node.healthy()
    }
  }
  await senders.stop()
  t.diagnostic(`${senders.answers} batches, ${senders.readings} readings`)

  for (const cloud of clouds) await cloud.stop()
  await assertWhole(brokers, senders.readings)
})

test('a broker cut off with its collector takes nothing that the others do not have', async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const network = await Network.make(t, 3)
  if (!network) return
  const nodes = await KafkaNode.start(t, { nodes: 3, site: network })
  if (!nodes) return
  const brokers = nodes.map(({ address }) => address)
  const clouds: Cloud[] = []
  const urls: string[] = []
  for (const machine of nodes.keys()) {
    // It begins with the broker beside it.
    const nearest = [...brokers.slice(machine), ...brokers.slice(0, machine)]
    const peer = { host: network.host(machine) }
    const cloud = await collectorOf(t, `c${machine}`, nearest, peer)
    await cloud.start({ through: network.through(machine) })
    const { host, port } = await network.expose(t, machine, cloud.port)
    clouds.push(cloud)
    urls.push(`http://${host}:${port}`)
  }
  await Promise.all(urls.map(ready))
  // Each asks any collector at any time, as behind a balancer, also the one that is cut off.
  const senders = new Senders(random, 6, () => urls[random.below(urls.length)]!)
  await senders.progress(50)
  for (let cut = 0; cut < cuts; cut++) {
    const machine = random.below(nodes.length)
    await network.cut(machine)
    await senders.progress(30)
    await network.join(machine)
    await ready(urls[machine]!)
    await senders.progress(30)
  }
  await senders.stop()
  t.diagnostic(`${senders.answers} batches, ${senders.readings} readings`)
  for (const cloud of clouds) await cloud.stop()
  await assertWhole(brokers, senders.readings)
})
