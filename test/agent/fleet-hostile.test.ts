import assert from 'node:assert/strict'
import { test } from 'node:test'
import { imbalance } from '../../shared/ledger.ts'
import { assertAll, counting } from '../support/counting-publisher.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { documentFor, fleetPlant } from '../support/fleet-plant.ts'
import { device } from '../support/publisher.ts'
import { until } from '../support/until.ts'

test('hostile bytes on the desired topic are answered, and what runs stays', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join, desk } = set
  const { agent } = await join()
  await watcher.until(0, 'none')
  for (const bytes of [
    Buffer.alloc(10_000_000, 1),
    Buffer.alloc(300_000, 0xd2),
    Buffer.from('{}'),
  ]) {
    const before = watcher.reported.length
    await watcher.publish(bytes)
    await until(() => watcher.reported.length > before, 'an answer')
    const { version, state, desired } = watcher.reported.at(-1)!
    assert.deepEqual({ version, state, desired }, { version: 0, state: 'refused', desired: null })
  }
  await watcher.publish(desk.configuration(1, documentFor(broker.url)))
  await watcher.until(1, 'probation')
  assert.equal(agent.status!.source.phase, 'connected')
})

test('a broker that accepts and drops everything costs the agent nothing', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, fleetBroker, join } = set
  const proxy = await FaultProxy.open(t, fleetBroker.port)
  const { agent, collector } = await join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  await until(() => set.watcher.status.length > 0, 'it is there')
  proxy.silence()
  const sensor = await counting(t, broker.url)
  await until(() => sensor.count > 3_000, 'readings flow')
  await assertAll(agent, collector, await sensor.stop())
})

test('a clone of a gateway: both run on, and neither runs what is not signed', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const first = await join()
  await watcher.until(0, 'none')
  const clone = await join({ sections: { source: { clientId: 'clone' } } })
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/count', ['1', '2', '3'])
  for (const { agent, collector } of [first, clone]) await assertAll(agent, collector, 3)
  await watcher.push(1, documentFor(broker.url))
  for (const { fleet, local } of [first, clone])
    await until(() => fleet.config !== local, 'both take it', 20_000)
})

test('a connection that is cut in the middle of a configuration costs nothing but time', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, fleetBroker, watcher, join } = set
  const proxy = await FaultProxy.open(t, fleetBroker.port)
  await join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  await watcher.until(0, 'none')
  const filter = Array.from({ length: 900 }, (_, i) => ({
    match: { device: `device-${i}`, metric: 'm'.repeat(100) },
    check: { range: [0, i + 1] },
  }))
  const cut = proxy.cutAfter(60_000)
  await watcher.push(1, documentFor(broker.url, { filter }))
  await cut
  await watcher.until(1, 'probation')
})

test('valid but deadly, for real: each is taken back by itself, and no reading is lost or repeated', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent } = await join()
  const sensor = await counting(t, broker.url)
  const deadly: [object, string][] = [
    [
      {
        source: { topics: ['sensors/+/+'] },
        decode: [{ topic: 'sensors/nobody/{metric}', device: 'nobody' }],
      },
      'decode',
    ],
    [{ fleet: { maxMemory: '1MB' } }, 'fleet.maxMemory'],
  ]
  for (const [index, [more, path]] of deadly.entries()) {
    await watcher.push(index + 1, documentFor(broker.url, more as never))
    await watcher.until(index + 1, 'probation')
    const { problems, desired } = await watcher.until(0, 'reverted')
    assert.deepEqual([desired, problems.map((problem) => problem.path)], [index + 1, [path]])
  }
  const count = await sensor.stop()
  await until(() => agent.status!.ledger.received === count, 'all has come')
  await until(() => agent.status!.ledger.buffered === 0, 'all is delivered')
  const { ledger } = agent.status!
  assert.equal(imbalance(ledger), 0)
  assert.equal(ledger.forwarded + ledger.quarantined, count)
})
