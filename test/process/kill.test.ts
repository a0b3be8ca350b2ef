import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered, assertSame } from '../support/counting.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { keepsOverKill, keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { MqttTap } from '../support/mqtt-tap.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Seeded } from '../support/seeded.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Half of them in each test. */
const kills = effort('HEADGATE_KILLS', { quick: 12, inCi: 60, inFull: 300 })
/** What the sensor publishes while processes die and come back. */
const perSecond = 1_500
/** Longest time from a start to a kill: some hit a process that is still starting, some one at work. */
const maxLifeMs = 1_500

test(`agent and collector, killed ${kills / 2} times at random moments, lose and repeat nothing`, async (t) => {
  const plant = await start(t, keepsQueue)
  if (!plant) return
  const { gateway, cloud, sensor, random } = plant
  sensor.start(perSecond)
  for (let kill = 0; kill < kills / 2; kill++) {
    await pause(random.below(maxLifeMs))
    const victim = random.chance(0.6) ? gateway : cloud
    await victim.kill()
    victim.launch()
  }
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
  t.diagnostic(`${sensor.acknowledged.size} readings`)
})

test(`agent, collector and broker, killed ${kills / 2} times: what the agent acknowledged is there, once, in order`, async (t) => {
  const tap = new MqttTap()
  const plant = await start(t, keepsOverKill, tap)
  if (!plant) return
  const { broker, gateway, cloud, sensor, random } = plant
  sensor.start(perSecond)
  for (let kill = 0; kill < kills / 2; kill++) {
    await pause(random.below(maxLifeMs))
    if (random.chance(0.4)) {
      await broker.kill()
      await broker.up()
      continue
    }
    const victim = random.chance(0.6) ? gateway : cloud
    await victim.kill()
    victim.launch()
  }
  await sensor.stop()
  // What the broker had acknowledged and has lost with its own life is not the agent's to deliver.
  await gateway.drained(0, 60_000)
  const log = await cloud.readings()
  t.diagnostic(`${log.length} readings, ${sensor.acknowledged.size} that the broker answered for`)
  const acknowledged = new Set([...tap.acknowledged].map((payload) => JSON.parse(payload).v))
  assertSame(log, acknowledged, new Set(Array.from({ length: sensor.published }, (_, i) => i + 1)))
})

async function start(t: TestContext, lines: readonly string[], tap?: MqttTap) {
  const broker = await Mosquitto.start(t, { lines })
  if (!broker) return undefined
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, {
    directory: `${directory}/cloud`,
    more: { log: { segment: '64KiB' } },
  })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: tap
      ? `mqtt://127.0.0.1:${(await FaultProxy.open(t, broker.port, tap.watch)).port}`
      : broker.url,
    collector: cloud.url,
    uplink: { batch: { maxAge: '100ms' } },
  })
  await Promise.all([cloud.start(), gateway.start()])
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { broker, cloud, gateway, sensor, random: new Seeded(seed) }
}
