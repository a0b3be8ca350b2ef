import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { executable } from './support/built.ts'
import { idleMemory, loadedMemory } from './support/measure.ts'
import { anonymousMB, MemoryLimit, thirdAndLast } from './support/memory.ts'
import { PlantLoad } from './support/plant-load.ts'

const full = process.env.HEADGATE_FULL === '1'
const perSecond = 2_000

test('an idle agent, connected, takes at most 48 MB', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const seen = await idleMemory(t, broker.url, full ? 60 : 10)
  t.diagnostic(
    `idle: ${Math.max(...seen).toFixed(1)} MB at most, ${seen.at(-1)!.toFixed(1)} MB at last`,
  )
  assert.ok(Math.max(...seen) <= 48)
})

test('2,000 readings a second take at most 80 MB, and no more as time goes on', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const seconds = full ? 600 : 60
  const { seen, perSecond: kept } = await loadedMemory(t, broker.url, { perSecond, seconds })
  const [third, last] = thirdAndLast(seen)
  t.diagnostic(
    `${kept.toFixed(0)} readings/s for ${seconds} s: ${Math.max(...seen).toFixed(1)} MB at most, ` +
      `median of the third quarter ${third.toFixed(1)} MB, of the last ${last.toFixed(1)} MB`,
  )
  assert.ok(kept >= 0.95 * perSecond, 'the plant kept the rate')
  assert.ok(Math.max(...seen) <= 80)
  assert.ok(last - third <= 2, 'flat')
})

test('an agent in 96 MB lives through an outage under load, and loses nothing', async (t) => {
  const limit = MemoryLimit.make(t, 96)
  if (!limit) return
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: cloud.url,
  })
  const agent = await gateway.start({
    command: [executable('agent')],
    through: limit.through,
  })
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
