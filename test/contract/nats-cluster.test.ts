import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { Balancer } from '../support/balancer.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { NatsNode } from '../support/nats/server.ts'
import { Network } from '../support/network.ts'
import { Cloud } from '../support/plant.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const cuts = effort('HEADGATE_NATS_CUTS', { quick: 2, inCi: 4, inFull: 40 })
const kills = effort('HEADGATE_NATS_KILLS', { quick: 3, inCi: 8, inFull: 100 })

/** A collector that keeps its log in that cluster. */
async function collectorOf(t: TestContext, name: string, nodes: NatsNode[]): Promise<Cloud> {
  const directory = join(await temporaryDirectory(t), name)
  const nats = { servers: nodes.map(({ url }) => url), replicas: nodes.length }
  return Cloud.make(t, { directory, more: { log: { engine: 'nats', partitions: 2, nats } } })
}

/** Every batch of every lane is there once and in order, and nothing but what was answered for. */
async function assertWhole(nodes: NatsNode[], readings: number): Promise<void> {
  await using log = await NatsLog.open({
    servers: nodes.map(({ url }) => url),
    name: 'headgate',
    partitions: 2,
    replicas: nodes.length,
    clock: systemClock,
    random: systemRandom,
    logger: silentLog,
    retention: { bytes: undefined, ageMs: undefined },
  })
  const { problems, records } = await log.verify(async () => {})
  assert.deepEqual(problems, [])
  assert.equal(records.readings, readings)
}

test(`after ${kills} kills of NATS servers and collectors all is there, once and in order`, async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const nodes = await NatsNode.start(t, { nodes: 3 })
  if (!nodes) return
  const clouds = [await collectorOf(t, 'a', nodes), await collectorOf(t, 'b', nodes)]
  for (const cloud of clouds) await cloud.start()
  const balancer = await Balancer.open(
    t,
    clouds.map(({ port }) => ({ host: '127.0.0.1', port })),
  )
  const senders = new Senders(random, 8, () => balancer.url)
  await senders.progress(100)
  for (let kill = 0; kill < kills; kill++) {
    await senders.progress(random.below(100))
    if (kill % 2 === 0) {
      const node = nodes[random.below(nodes.length)]!
      await node.kill()
      await senders.progress(100) // Two of three go on.
      node.launch()
      await node.healthy()
    } else {
      const cloud = clouds[random.below(clouds.length)]!
      await cloud.kill()
      await senders.progress(50) // The other takes over, and knows what is held.
      await cloud.start()
    }
  }
  await senders.stop()
  t.diagnostic(`${senders.answers} batches, ${senders.readings} readings`)
  await assertWhole(nodes, senders.readings)
})

test('a server cut off with its collector, wholly or one way from one other, takes nothing that the others do not have', async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const network = await Network.make(t, 3)
  if (!network) return
  const nodes = await NatsNode.start(t, { nodes: 3, site: network })
  if (!nodes) return
  // Each collector begins with the server beside it.
  const urls = await Promise.all(
    nodes.map(async (node, machine) => {
      const others = nodes.filter((each) => each !== node)
      const cloud = await collectorOf(t, `c${machine}`, [node, ...others])
      await cloud.start({ through: network.through(machine) })
      const { host, port } = await network.expose(t, machine, cloud.port)
      return `http://${host}:${port}`
    }),
  )
  // Each asks any collector at any time, as behind a balancer, also the one that is cut off.
  const senders = new Senders(random, 6, () => urls[random.below(urls.length)]!)
  await senders.progress(100)
  for (let cut = 0; cut < cuts; cut++) {
    const machine = random.below(nodes.length)
    if (cut % 2 === 0) await network.cut(machine)
    else await network.mute(machine, (machine + 1) % nodes.length)
    await senders.progress(60)
    await network.join(machine)
    await nodes[machine]!.healthy()
    await senders.progress(60)
  }
  await senders.stop()
  t.diagnostic(`${senders.answers} batches, ${senders.readings} readings`)
  await assertWhole(nodes, senders.readings)
})
