import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Balancer } from '../support/balancer.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const kills = effort('HEADGATE_KAFKA_KILLS', { quick: 2, inCi: 4, inFull: 60 })
const partitions = 4

/** A collector that keeps its log in that cluster. */
async function collectorOf(t: TestContext, name: string, brokers: string[]): Promise<Cloud> {
  const directory = join(await temporaryDirectory(t), name)
  const kafka = { brokers, replicas: brokers.length }
  return Cloud.make(t, { directory, more: { log: { engine: 'kafka', partitions, kafka } } })
}

/** Starts it; resolves once it takes batches: on a busy machine that takes its time. */
async function serve(cloud: Cloud): Promise<void> {
  cloud.launch()
  const isReady = async () => (await fetch(`${cloud.url}/readyz`).catch(() => undefined))?.ok
  await poll(isReady, 'the collector is ready', 120_000)
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
  await using log = await openKafkaLog(brokers, { partitions })
  const { problems, records } = await log.verify(async () => {})
  assert.deepEqual(problems, [])
  assert.equal(records.readings, senders.readings)
})
