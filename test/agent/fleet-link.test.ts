import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertAll, counting } from '../support/counting-publisher.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { documentFor, fleetPlant } from '../support/fleet-plant.ts'
import { until } from '../support/until.ts'

test('pushed over mosquitto with readings flowing: applied, good, and none lost or repeated', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent, collector } = await join()
  const sensor = await counting(t, broker.url)
  await watcher.until(0, 'none')
  const since = agent.status!.source.connectedSinceMs
  await watcher.push(
    1,
    documentFor(broker.url, {
      outbox: { maxBytes: '9MiB' },
      filter: [{ check: { range: [0, 1e9] } }],
    }),
  )
  await watcher.until(1, 'probation')
  assert.equal(agent.status!.source.connectedSinceMs, since, 'the session was not dropped')
  await watcher.until(1, 'good')
  // The states, each once, in this order.
  const states = watcher.reported.map(({ state }) => state)
  assert.deepEqual([...new Set(states)], ['none', 'applied', 'probation', 'good'])
  await until(() => watcher.status.at(-1)?.versions?.config === 1, 'the status tells the version')
  const status = watcher.status.at(-1)!
  assert.equal(status.online, true)
  assert.ok(status.ledger!.received! > 0)
  await assertAll(agent, collector, await sensor.stop())
})

test('a bad push takes itself back while the fleet broker is gone, and tells when it is there again', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, fleetBroker, watcher, join } = set
  const { agent, collector, fleet } = await join()
  const sensor = await counting(t, broker.url)
  await watcher.until(0, 'none')
  const bad = documentFor(broker.url, { uplink: { url: 'http://nowhere.test' } })
  await watcher.push(1, bad)
  await watcher.until(1, 'probation')
  await fleetBroker.kill()
  await until(() => /check fleet\.url/.test(fleet.status.trouble ?? ''), 'it says where to look')
  await until(() => fleet.config.uplink.url === 'http://collector.test', 'it goes back', 20_000)
  await fleetBroker.up()
  const { problems } = await watcher.until(0, 'reverted')
  assert.deepEqual(
    problems.map(({ path }) => path),
    ['uplink'],
  )
  await assertAll(agent, collector, await sensor.stop())
})

test('another collector that works is as good', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent, collector, second } = await join()
  const sensor = await counting(t, broker.url)
  await watcher.push(1, documentFor(broker.url, { uplink: { url: 'http://second.test' } }))
  await watcher.until(1, 'good')
  const count = await sensor.stop()
  await until(() => agent.status!.ledger.forwarded === count, 'all is delivered')
  const values = [...collector.readings, ...second.readings].map(({ value }) => value as number)
  assert.deepEqual(
    values.toSorted((a, b) => a - b),
    Array.from({ length: count }, (_, i) => i + 1),
  )
})

test('a configuration that cuts its own connection to the fleet is taken back', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  await join()
  await watcher.until(0, 'none')
  await watcher.push(1, documentFor(broker.url, { fleet: { url: 'mqtts://127.0.0.1:1' } }))
  const { problems, desired } = await watcher.until(0, 'reverted')
  assert.deepEqual(
    problems.map(({ path }) => path),
    ['fleet'],
  )
  assert.equal(desired, 1)
})

test('an agent that was away gets what it was sent, and tells that it is gone', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const first = await join()
  await watcher.until(0, 'none')
  await first.end()
  await until(() => watcher.status.at(-1)?.online === false, 'it says that it leaves')
  await watcher.push(1, documentFor(broker.url))
  const second = await join({ data: first.data })
  await watcher.until(1, 'probation')
  await second.end()
  // The broker gives an old one again, as after a restored backup; also to a new process.
  await watcher.push(2, documentFor(broker.url, { outbox: { maxBytes: '5MiB' } }))
  await join({ data: first.data })
  await watcher.until(2, 'probation')
  await watcher.push(1, documentFor(broker.url))
  const { problems } = await watcher.until(2, 'refused')
  assert.match(problems[0]!.message, /older than version 2/)
})

test('where the fleet has moved to another broker, the agent follows', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { watcher, fleet: moved } = set
  const proxy = await FaultProxy.open(t, set.fleetBroker.port)
  const { fleet } = await set.join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  const isOnline = (online: boolean) => () => watcher.status.at(-1)?.online === online
  await until(isOnline(true), 'it is there')
  proxy.refuse()
  await until(isOnline(false), 'it is gone')
  fleet.learn({ labels: {}, fleetBroker: moved })
  await until(isOnline(true), 'it is there again')
})

test('the broker tells by the last will of an agent that went without a word', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const proxy = await FaultProxy.open(t, set.fleetBroker.port)
  await set.join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  await until(() => set.watcher.status.at(-1)?.online === true, 'it is there')
  proxy.refuse()
  await until(() => set.watcher.status.at(-1)?.online === false, 'it is gone')
})
