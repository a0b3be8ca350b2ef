import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Rehearsal } from '../../agent/fleet/rehearsal.ts'
import { Quality } from '../../shared/reading.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { runMember } from '../support/fleet-member.ts'
import { documentFor, fleetPlant } from '../support/fleet-plant.ts'
import { device } from '../support/publisher.ts'
import { until } from '../support/until.ts'

test('commands: each runs once, and gives its result', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join, desk } = set
  const { agent, collector, restarts } = await join({
    sections: {
      outbox: { tail: {} },
      source: { username: 'gateway', password: 'hunter2-hunter2' },
      enrol: {
        url: 'https://collector.test',
        token: `hg1.${'A'.repeat(22)}.${'B'.repeat(43)}`,
        proxy: 'http://user:hunter2@proxy.test',
      },
      filter: [{ match: { metric: 'state' }, reduce: { method: 'deadband', error: 0 } }],
    },
  })
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/state', ['1', '1', '1', '2'])
  await until(() => agent.status!.ledger.received === 4, 'four have come')
  assert.equal((await watcher.ask('flush-1', 'flush')).state, 'done')
  await until(() => agent.status!.ledger.buffered === 0, 'all is decided')

  const { state, result } = await watcher.ask('look-1', 'diagnostics')
  assert.equal(state, 'done')
  assert.equal((result!.status as { agent: string }).agent, 'gw-001')
  assert.doesNotMatch(JSON.stringify(result), /hunter2|hg1\./)

  // Raw readings once more, those too that were suppressed: marked, and no duplicates.
  const before = collector.readings.length
  const range = { from: '2000-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' }
  const resent = await watcher.ask('resend-1', 'resend', { ...range, device: 'pu*' })
  assert.deepEqual([resent.state, resent.result], ['done', { readings: 4 }])
  await until(() => collector.readings.length === before + 4, 'they arrive')
  const again = collector.readings.slice(before)
  assert.deepEqual(
    again.map(({ value }) => value),
    [1, 1, 1, 2],
  )
  assert.ok(again.every(({ quality }) => quality & Quality.resent))
  assert.equal(agent.status!.ledger.received, 4)

  assert.equal((await watcher.ask('pause-1', 'pause')).state, 'done')
  assert.equal(agent.status!.source.phase, 'closed')
  await publish('sensors/pump/state', ['3'])
  assert.equal((await watcher.ask('resume-1', 'resume')).state, 'done')
  await until(() => agent.status!.ledger.received === 5, 'what came meanwhile comes now')

  // Delivered again, as brokers do, it does not run again.
  const pause = desk.command('pause-2', 'restart')
  await watcher.command('pause-2', pause)
  await until(() => restarts.length === 1, 'it restarts')
  await watcher.command('pause-2', pause)
  await watcher.ask('flush-2', 'flush')
  assert.equal(restarts.length, 1)
})

test('commands that are forged, for others, expired or wrong are refused', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { watcher, join, desk } = set
  const { agent } = await join()
  await until(() => watcher.status.length > 0, 'it is there')
  const stranger = new FleetDesk()
  const now = Date.now()
  const refused: [string, Uint8Array, RegExp][] = [
    ['forged', stranger.command('forged', 'restart'), /not of our fleet/],
    ['others', desk.command('others', 'restart', {}, { agent: 'gw-002' }), /another agent/],
    ['expired', desk.command('expired', 'restart', {}, { expiresMs: now - 1 }), /expired/],
    ['forever', desk.command('forever', 'restart', {}, { expiresMs: now + 1e12 }), /7 days/],
    ['renamed', desk.command('other-id', 'restart'), /its id is not/],
    ['unknown', desk.command('unknown', 'explode'), /expected one of flush/],
    ['arguments', desk.command('arguments', 'resend', { from: 'now' }), /time such as/],
    ['noise', Buffer.alloc(100, 1), /tag 18/],
  ]
  for (const [id, bytes, message] of refused) {
    await watcher.command(id, bytes)
    const { state, problems } = await watcher.result(id)
    assert.equal(state, 'refused', id)
    assert.match(problems.map((problem) => problem.message).join(), message, id)
  }
  const { state, problems } = await watcher.ask('resend', 'resend', {
    from: '2026-01-01T00:00:00Z',
    to: '2026-01-02T00:00:00Z',
  })
  assert.deepEqual([state, problems[0]!.path], ['failed', 'outbox.tail'])
  assert.equal(agent.status!.paused, false)
})

test('a pause lasts over a restart, and a restart is done once the agent is back', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { watcher, join, desk } = set
  const first = await join()
  await watcher.until(0, 'none')
  await watcher.ask('pause', 'pause')
  await watcher.command('restart', desk.command('restart', 'restart'))
  await until(() => first.restarts.length === 1, 'it is asked to restart')
  await first.end()
  await until(() => watcher.status.at(-1)?.online === false, 'it is gone')
  assert.ok(!watcher.results.some(({ id }) => id === 'restart'), 'it is not back yet')
  const { broker, fleet, certificates } = set
  const second = runMember(t, { broker: broker.url, fleet, desk, certificates, data: first.data })
  assert.equal((await watcher.result('restart')).state, 'done')
  const resumed = await watcher.ask('resume', 'resume')
  assert.equal(resumed.state, 'done', JSON.stringify(resumed))
  assert.equal((await second).agent.status!.paused, false)
})

test('a rehearsal says what another filter would have done, and applies nothing', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent, local } = await join({ sections: { outbox: { tail: {} } } })
  const { publish } = await device(t, broker.url)
  const beganMs = Date.now() - 3_600_000
  const row = (v: number, i: number) => JSON.stringify({ v, t: beganMs + i * 1_000 })
  const values = [...Array.from({ length: 500 }, (_, i) => 20 + Math.sin(i) / 3), 99]
  await publish('sensors/pump/temp', values.map(row))
  await until(() => agent.status!.ledger.received === 501, 'they have come')
  const { state, result } = await watcher.ask('try-1', 'rehearse', {
    document: documentFor(broker.url, {
      filter: [{ check: { range: [0, 50] }, reduce: { error: 1 } }],
    }),
  })
  assert.equal(state, 'done')
  const { readings, running, candidate, gained, lost } = result as unknown as Rehearsal
  assert.equal(readings, 501)
  assert.equal(running.kept, 501)
  assert.ok(candidate.kept < 50, JSON.stringify(candidate))
  assert.ok(candidate.bytes < running.bytes)
  assert.deepEqual(lost, [])
  assert.equal(gained[0]!.kind, 'range')
  assert.deepEqual(agent.status!.ledger.suppressed, 0)
  assert.deepEqual(local.filter, [])
  const wrong = await watcher.ask('try-2', 'rehearse', { document: { filter: [{ reduce: {} }] } })
  assert.equal(wrong.state, 'failed')
  assert.ok(wrong.problems.some(({ path }) => path === 'filter.0.reduce.error'))
})

test('diagnostics show a configuration as it was sent, not what its variables stand for', async (t) => {
  const set = await fleetPlant(t)
  if (!set) return
  const { broker, watcher, join } = set
  await join({ labels: { line: 'hunter2' } })
  await watcher.until(0, 'none')
  const variable = `\${label.line}`
  await watcher.push(
    1,
    documentFor(broker.url, {
      filter: [{ match: { device: variable }, check: { range: [0, 1] } }],
    }),
  )
  await watcher.until(1, 'probation')
  const { result } = await watcher.ask('look', 'diagnostics')
  const { document, config } = result as Record<string, { filter: [{ match: object }] }>
  assert.deepEqual(document!.filter[0].match, { device: variable })
  assert.doesNotMatch(JSON.stringify([document, config]), /hunter2/)
})
