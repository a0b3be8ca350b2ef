import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { executable } from './support/built.ts'
import { anonymousMB, MemoryLimit, median, watchMemory } from './support/memory.ts'
import { PlantLoad } from './support/plant-load.ts'

const full = process.env.HEADGATE_FULL === '1'
const perSecond = 2_000
const command = [executable('agent')]

async function plant(t: TestContext) {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return undefined
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: cloud.url,
  })
  return { broker, cloud, gateway }
}

test('an idle agent, connected, takes at most 48 MB', async (t) => {
  const parts = await plant(t)
  if (!parts) return
  const agent = await parts.gateway.start({ command })
  await parts.gateway.subscribed()
  const seen = await watchMemory(agent.pid, full ? 60 : 10)
  t.diagnostic(
    `idle: ${Math.max(...seen).toFixed(1)} MB at most, ${seen.at(-1)!.toFixed(1)} MB at last`,
  )
  assert.ok(Math.max(...seen) <= 48)
})

test('2,000 readings a second take at most 80 MB, and no more as time goes on', async (t) => {
  const parts = await plant(t)
  if (!parts) return
  const agent = await parts.gateway.start({ command })
  await parts.gateway.subscribed()
  const load = new PlantLoad(parts.broker.url, perSecond)
  const seconds = full ? 600 : 60
  const seen = await watchMemory(agent.pid, seconds)
  await load.stop()
  await parts.gateway.drained(load.published)
  const quarter = Math.floor(seen.length / 4)
  const [third, last] = [seen.slice(-2 * quarter, -quarter), seen.slice(-quarter)]
  t.diagnostic(
    `${(load.published / seconds).toFixed(0)} readings/s for ${seconds} s: ` +
      `${Math.max(...seen).toFixed(1)} MB at most, median of the third quarter ${median(third).toFixed(1)} MB, ` +
      `of the last ${median(last).toFixed(1)} MB`,
  )
  assert.ok(load.published >= 0.95 * perSecond * seconds, 'the plant kept the rate')
  assert.ok(Math.max(...seen) <= 80)
  assert.ok(median(last) - median(third) <= 2, 'flat')
})

test('an agent in 96 MB lives through an outage under load, and loses nothing', async (t) => {
  const limit = MemoryLimit.make(t, 96)
  if (!limit) return
  const parts = await plant(t)
  if (!parts) return
  const { broker, cloud, gateway } = parts
  const agent = await gateway.start({ command, through: limit.through })
  await gateway.subscribed()
  const load = new PlantLoad(broker.url, perSecond)
  const phaseMs = full ? 60_000 : 10_000
  await pause(phaseMs)
  await cloud.kill()
  await pause(phaseMs)
  await cloud.start()
  await pause(phaseMs)
  await load.stop()
  await gateway.drained(load.published, 120_000)
  t.diagnostic(
    `${load.published} readings, outage of ${phaseMs / 1000} s: ${limit.peakMB.toFixed(1)} MB of 96 MB used, ` +
      `${anonymousMB(agent.pid).toFixed(1)} MB its own at the end`,
  )
  assert.ok(agent.isRunning)
  const values = new Set((await cloud.readings()).map(({ value }) => Number(value)))
  assert.equal(values.size, load.published)
})
