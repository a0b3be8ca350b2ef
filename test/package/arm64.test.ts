import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { arm64, built } from './support/built.ts'

test('the arm64 executable keeps readings over a kill and brings them to a collector', async (t) => {
  const through = arm64(t)
  if (!through) return
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: broker.url,
    collector: cloud.url,
  })
  const options = { through, command: [built('headgate-agent-linux-arm64')] }
  await gateway.start(options)
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  await sensor.publish(60)
  await gateway.until(({ ledger }) => ledger.buffered === 60, 'LevelDB holds them')
  await gateway.kill()

  await cloud.start()
  await gateway.start(options)
  await gateway.drained(60)
  const values = (await cloud.readings()).map(({ value }) => Number(value))
  assert.deepEqual(
    values.sort((a, b) => a - b),
    Array.from({ length: 60 }, (_, index) => index + 1),
  )
})
