import assert from 'node:assert/strict'
import { test } from 'node:test'
import { incarnation, TestAgent } from '../support/batches.ts'
import { assertDelivered } from '../support/counting.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { Strace } from '../support/strace.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Time for so many is measured. */
const syncs = 30

for (const { syncMs, window } of [
  { syncMs: 10, window: 20 },
  { syncMs: 100, window: 200 },
])
  test(`an agent on a disk that takes ${syncMs} ms to sync takes a window of messages a sync, not one`, async (t) => {
    const strace = Strace.find(t)
    const broker = strace && (await Mosquitto.start(t, { lines: keepsQueue }))
    if (!strace || !broker) return
    const directory = await temporaryDirectory(t)
    const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
    const gateway = await Gateway.make(t, {
      directory: `${directory}/gateway`,
      broker: broker.url,
      collector: cloud.url,
      // The broker lets the agent have so many at a time.
      source: { version: '5', receiveMaximum: window },
    })
    const slow = { calls: 'fdatasync', fault: `delay_enter=${syncMs}ms` }
    await gateway.start({ through: strace.through(slow) })
    await gateway.subscribed()
    const sensor = new Sensor(broker.url)
    const count = syncs * window
    const startMs = performance.now()
    await sensor.publish(count)
    await gateway.until(({ ledger }) => ledger.received >= count, 'it has taken them')
    const perSecond = (count * 1000) / (performance.now() - startMs)
    const bound = (window * 1000) / syncMs
    t.diagnostic(`${Math.round(perSecond)} messages/s; window / sync time is ${bound}/s`)
    assert.ok(perSecond > bound / 4, `${perSecond} of ${bound} messages/s`)

    await cloud.start()
    await assertDelivered({ gateway, cloud, sensor })
  })

test('a collector on a disk that takes 100 ms to sync takes batches of many agents a sync', async (t) => {
  const strace = Strace.find(t)
  if (!strace) return
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  const slow = { calls: 'pwritev', fault: 'delay_enter=100ms' }
  await cloud.start({ through: strace.through(slow) })
  const agents = Array.from(
    { length: 50 },
    (_, i) => new TestAgent({ name: `gw-${i}`, incarnation: incarnation(i + 1) }),
  )
  const rounds = 10
  const startMs = performance.now()
  await Promise.all(
    agents.map(async (agent) => {
      for (let round = 0; round < rounds; round++) {
        const { status } = await fetch(`${cloud.url}/v1/batches`, {
          method: 'POST',
          headers: { 'content-type': 'application/cbor', 'content-encoding': 'gzip' },
          body: Buffer.from(agent.readings(20).body('gzip')),
        })
        assert.equal(status, 200)
      }
    }),
  )
  const inSyncs = (performance.now() - startMs) / 100
  t.diagnostic(`${agents.length * rounds} batches in the time of ${inSyncs.toFixed(1)} syncs`)
  assert.ok(inSyncs < 4 * rounds, `${inSyncs} syncs`)
})
