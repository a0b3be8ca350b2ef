import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AgentConfig } from '../../agent/config.ts'
import { imbalance } from '../../shared/ledger.ts'
import { agentConfig, runAgent } from '../support/agent-in-process.ts'
import { assertAll, counting } from '../support/counting-publisher.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { device } from '../support/publisher.ts'
import { until } from '../support/until.ts'

test('with readings flowing, any part is changed and none is lost or repeated', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const { agent, collector, config } = await runAgent(t, broker.url)
  const sensor = await counting(t, broker.url)
  const other = (sections: Record<string, unknown>): AgentConfig =>
    agentConfig(config.data, broker.url, sections)
  const changes: [string, AgentConfig][] = [
    ['decode', other({ decode: [{ topic: 'sensors/{line}/{metric}' }] })],
    ['filter', other({ filter: [{ check: { range: [0, 1e9] } }] })],
    ['outbox', other({ outbox: { maxBytes: '2MiB', tail: {} } })],
    ['uplink', other({ uplink: { batch: { maxReadings: 77 } } })],
    ['topics', other({ source: { topics: ['sensors/#'] } })],
    ['broker settings', other({ source: { keepalive: '5s', version: 5 } })],
    ['everything back', config],
  ]
  for (const [what, to] of changes) {
    const before = sensor.count
    await until(() => sensor.count >= before + 300, 'readings flow')
    await agent.change(to)
    await until(
      () => agent.status?.source.phase === 'connected' && sensor.count >= before + 600,
      `readings flow under another ${what}`,
    )
    const { source } = agent.status!
    // The source's own counter starts with the source.
    assert.equal(source.connects, 1, what)
    assert.equal(source.sessionsLost, 0, what)
  }
  await assertAll(agent, collector, await sensor.stop())
})

test('the connection to the broker is kept where its part has not changed', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const { agent, config } = await runAgent(t, broker.url)
  const since = agent.status!.source.connectedSinceMs
  await agent.change(
    agentConfig(config.data, broker.url, {
      filter: [{ reduce: { error: 1 } }],
      uplink: { timeout: '5s' },
      outbox: { maxBytes: '9MiB' },
    }),
  )
  assert.equal(agent.status!.source.connectedSinceMs, since)
  assert.equal(agent.status!.source.phase, 'connected')
})

test('what a filter knows of a series goes on under other rules', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const stuck = (more: object) => ({
    filter: [
      { match: { metric: 'level' }, window: { every: '1h', emit: ['count', 'sum'] }, ...more },
    ],
  })
  const { agent, collector, config } = await runAgent(t, broker.url, stuck({}))
  const { publish } = await device(t, broker.url)
  await publish('sensors/tank/level', ['1', '2', '3'])
  await until(() => agent.status!.ledger.absorbed === 3, 'three are in the window')
  await agent.change(agentConfig(config.data, broker.url, stuck({ maxSeries: 5 })))
  await publish('sensors/tank/level', ['4'])
  await until(() => agent.status!.ledger.absorbed === 4, 'a fourth is')
  await agent.flush()
  await until(() => collector.readings.length > 0, 'the window is closed')
  assert.deepEqual(
    collector.readings.map(({ series, value }) => [series.metric, value]),
    [
      ['level.count', 4],
      ['level.sum', 10],
    ],
  )
  assert.equal(imbalance(agent.status!.ledger), 0)
})

test('a paused agent takes nothing, and misses nothing', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const { agent, collector } = await runAgent(t, broker.url)
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/count', ['1', '2'])
  await until(() => collector.readings.length === 2, 'two have come')
  await agent.pause()
  assert.equal(agent.status!.paused, true)
  assert.equal(agent.status!.source.phase, 'closed')
  await publish('sensors/pump/count', ['3', '4'])
  await agent.resume()
  await assertAll(agent, collector, 4)
})

test('a configuration that cannot be taken over leaves the old one running', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const { agent, collector, config } = await runAgent(t, broker.url)
  const { publish } = await device(t, broker.url)
  const impossible = {
    ...config,
    get uplink(): never {
      throw new Error('no such uplink')
    },
  }
  await assert.rejects(agent.change(impossible), /no such uplink/)
  await publish('sensors/pump/count', ['1', '2'])
  await assertAll(agent, collector, 2)
})

test('changes that come at once are made one after the other', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const { agent, collector, config } = await runAgent(t, broker.url)
  const sensor = await counting(t, broker.url)
  await until(() => sensor.count > 300, 'readings flow')
  const other = (keepalive: string) =>
    agentConfig(config.data, broker.url, { source: { keepalive } })
  // Each while the one before is under way.
  const changes: Promise<void>[] = []
  for (const keepalive of ['5s', '6s', '7s']) {
    changes.push(agent.change(other(keepalive)))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await Promise.all(changes)
  const before = sensor.count
  await until(() => sensor.count > before + 2_000, 'readings go on to flow')
  // Two sources under one name would throw each other out.
  const { connects, lastError } = agent.status!.source
  assert.deepEqual([connects, lastError], [1, undefined])
  await assertAll(agent, collector, await sensor.stop())
})
