import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type CompletenessQuestion,
  completeness,
  type Missing,
} from '../../collector/fanout/completeness.ts'
import type { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import type { BatchHeader, Gap, Item } from '../../shared/batch.ts'

import { entryOf } from '../contract/log-engine.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { openLog } from '../support/embedded-log.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { Headgate } from '../support/process.ts'
import { reading } from '../support/readings.ts'

const minute = 60_000
/** Eight in the morning; the hour that is asked for. */
const fromMs = Date.UTC(2026, 0, 31, 8)
const toMs = fromMs + 60 * minute
const hour: CompletenessQuestion = { device: 'pump-1', fromMs, toMs }

/** Readings of a device, one at each minute behind eight. */
function at(minutes: number[], device = 'pump-1'): Item {
  const readings = minutes.map((each) => reading({ device, timeMs: fromMs + each * minute }))
  return { kind: 'readings', readings }
}

/** A log that takes batches as they come, minutes behind eight; `settled` is what their agent then reports. */
class Rig implements AsyncDisposable {
  readonly log: EmbeddedLog

  static async open(options: Parameters<typeof openLog>[1] = {}): Promise<Rig> {
    return new Rig(await openLog(new MemoryDisk(), options))
  }

  private constructor(log: EmbeddedLog) {
    this.log = log
  }

  async take(agent: TestAgent, minutes: number, items: Item[], settled?: number): Promise<void> {
    const nowMs = fromMs + minutes * minute
    const changes: Partial<BatchHeader> = { sentMs: nowMs }
    if (settled !== undefined)
      changes.ledger = { received: 1, settledMs: fromMs + settled * minute }
    const answer = await this.log.append(entryOf(agent.batch(items, changes), nowMs))
    assert.equal(answer.code, 'accepted')
  }

  ask(question: Partial<CompletenessQuestion> = {}) {
    return completeness(this.log, { ...hour, ...question })
  }

  [Symbol.asyncDispose] = () => this.log.close()
}

function gap(changes: Partial<Gap> = {}): Item {
  return {
    kind: 'gap',
    count: 3,
    reason: 'evicted',
    after: { high: 1, low: 2 },
    series: [{ device: 'pump-1', metric: 'temperature', count: 3 }],
    fromMs: fromMs + 20 * minute,
    toMs: fromMs + 30 * minute,
    atLeast: false,
    ...changes,
  }
}

const reasons = (missing: Missing[]) => missing.map(({ reason }) => reason)

test('an hour is complete once its gateway says that all it received by then is settled', async () => {
  await using rig = await Rig.open()
  const agent = new TestAgent()
  await rig.take(agent, 30, [at([10, 20, 30])], 30)
  const early = await rig.ask()
  assert.deepEqual([early.state, early.readings], ['not_yet', 3])
  await rig.take(agent, 59, [at([59])], 59)
  await rig.take(agent, 61, [at([60])], 59)
  const unsent = await rig.ask()
  assert.deepEqual(unsent.waiting, [
    {
      agent: 'gw-001',
      reason: 'unsent',
      heardMs: fromMs + 61 * minute,
      settledMs: fromMs + 59 * minute,
    },
  ])
  await rig.take(agent, 62, [at([61])], 60)
  const done = await rig.ask()
  assert.deepEqual(
    [done.state, done.readings, done.asOfMs, done.agents],
    ['complete', 4, toMs, ['gw-001']],
  )
  // Such a word stays true, whatever the gateway holds later.
  await rig.take(agent, 90, [at([90])], 61)
  assert.equal((await rig.ask()).state, 'complete')
  const next = await rig.ask({ fromMs: toMs, toMs: toMs + 60 * minute })
  assert.equal(next.state, 'not_yet')
})

test('of a gateway that is away it is said since when, and what it held', async () => {
  await using rig = await Rig.open()
  const agent = new TestAgent()
  await rig.take(agent, 30, [at([30])], 29)
  const { state, waiting, asOfMs } = await rig.ask()
  assert.deepEqual([state, asOfMs], ['not_yet', undefined])
  assert.deepEqual(waiting, [
    {
      agent: 'gw-001',
      reason: 'offline',
      heardMs: fromMs + 30 * minute,
      settledMs: fromMs + 29 * minute,
    },
  ])
})

test('a gateway of before reports were told is waited for, not believed', async () => {
  await using rig = await Rig.open()
  const agent = new TestAgent()
  await rig.take(agent, 30, [at([30])])
  const nowMs = fromMs + 90 * minute
  const batch = agent.batch([at([90])], { sentMs: nowMs, ledger: { received: 9 } })
  await rig.log.append(entryOf(batch, nowMs))
  const { state, waiting } = await rig.ask()
  assert.deepEqual([state, waiting[0]?.reason], ['not_yet', 'untold'])
})

test('a report from a clock that is ahead does not close a time that is not over', async () => {
  await using rig = await Rig.open()
  const agent = new TestAgent()
  const nowMs = fromMs + 30 * minute
  const ahead = { sentMs: fromMs + 90 * minute, ledger: { settledMs: fromMs + 90 * minute } }
  await rig.log.append(entryOf(agent.batch([at([30])], ahead), nowMs))
  assert.equal((await rig.ask()).state, 'not_yet')
})

test('a declared gap makes the hours that it touches incomplete, with count, metrics and times', async () => {
  await using rig = await Rig.open()
  const agent = new TestAgent()
  await rig.take(agent, 61, [at([10]), gap(), at([60])], 61)
  const { state, missing } = await rig.ask()
  assert.equal(state, 'incomplete')
  assert.deepEqual(missing, [
    {
      agent: 'gw-001',
      reason: 'evicted',
      count: 3,
      atLeast: false,
      metrics: ['temperature'],
      fromMs: fromMs + 20 * minute,
      toMs: fromMs + 30 * minute,
    },
  ])
  assert.equal((await rig.ask({ device: 'pump-2', agent: 'gw-001' })).state, 'complete')
  assert.equal((await rig.ask({ toMs: fromMs + 20 * minute })).state, 'complete')
  assert.equal((await rig.ask({ fromMs: fromMs + 31 * minute })).state, 'complete')
})

test('a gap whose time nobody knows concerns what was not settled when it was declared', async () => {
  const unknown = { series: [], fromMs: undefined, toMs: undefined, atLeast: true }
  await using rig = await Rig.open()
  const agent = new TestAgent()
  await rig.take(agent, 62, [at([10, 60])], 61)
  await rig.take(agent, 120, [gap({ ...unknown, reason: 'lost_corrupt' })], 120)
  assert.equal((await rig.ask()).state, 'complete')
  const later = await rig.ask({ fromMs: toMs, toMs: fromMs + 119 * minute })
  assert.deepEqual([later.state, later.missing[0]?.count], ['incomplete', undefined])
  // What had been delivered to a log that has lost it was settled once.
  await rig.take(agent, 130, [gap({ ...unknown, reason: 'released' })], 130)
  assert.deepEqual(reasons((await rig.ask()).missing), ['released'])
})

test('of two gateways with one device both have to be settled', async () => {
  await using rig = await Rig.open()
  const [first, second] = [new TestAgent(), new TestAgent({ name: 'gw-002' })]
  await rig.take(first, 61, [at([10])], 61)
  await rig.take(second, 40, [at([15])], 40)
  const both = await rig.ask()
  assert.deepEqual([both.state, both.readings], ['not_yet', 2])
  assert.deepEqual(both.agents.sort(), ['gw-001', 'gw-002'])
  assert.deepEqual(
    both.waiting.map(({ agent }) => agent),
    ['gw-002'],
  )
  assert.equal((await rig.ask({ agent: 'gw-001' })).state, 'complete')
})

test('of a device that nobody has sent nothing is claimed', async () => {
  await using rig = await Rig.open()
  await rig.take(new TestAgent(), 61, [at([10])], 61)
  assert.equal((await rig.ask({ device: 'pump-9' })).state, 'unknown')
  assert.equal((await rig.ask({ device: 'pump' })).state, 'unknown')
  assert.equal((await rig.ask({ agent: 'gw-009' })).state, 'unknown')
})

test('a gateway that was wiped before it had settled the hour leaves it incomplete', async () => {
  await using rig = await Rig.open()
  await rig.take(new TestAgent(), 30, [at([30])], 29)
  const wiped = new TestAgent({ incarnation: incarnation(2) })
  await rig.take(wiped, 61, [at([60])], 61)
  const { state, missing } = await rig.ask()
  assert.deepEqual([state, reasons(missing)], ['incomplete', ['wiped']])
  const after = await rig.ask({ fromMs: toMs + minute, toMs: toMs + 2 * minute })
  assert.deepEqual(reasons(after.missing), [])
})

test('a wipe behind a report that covers the hour does not touch it', async () => {
  await using rig = await Rig.open()
  await rig.take(new TestAgent(), 61, [at([30, 60])], 61)
  const wiped = new TestAgent({ incarnation: incarnation(2) })
  await rig.take(wiped, 90, [at([90])], 90)
  assert.equal((await rig.ask()).state, 'complete')
})

test('a gateway that was put back from an older image leaves the hour incomplete', async () => {
  const last = { urgent: 0, bulk: 1, quarantine: 0 }
  const heir = (id: number) => {
    const predecessor = { incarnation: incarnation(1), last }
    return new TestAgent({ incarnation: incarnation(id), predecessor })
  }
  await using rig = await Rig.open()
  await rig.take(new TestAgent(), 10, [at([10])], 10)
  await rig.take(heir(2), 30, [at([30])], 29)
  await rig.take(heir(3), 61, [at([60])], 61)
  const { state, missing } = await rig.ask()
  assert.deepEqual([state, reasons(missing)], ['incomplete', ['restored']])
})

test('what retention may have removed is not called complete', async () => {
  await using rig = await Rig.open({
    segmentBytes: 2 ** 16,
    retention: { bytes: 2 ** 17, ageMs: undefined },
  })
  const agent = new TestAgent()
  const noise = () =>
    Array.from({ length: 3000 }, () => reading({ device: 'noise', value: Math.random() }))
  for (let at = 10; (await rig.log.statistics()).readings.first === 0; at += 1) {
    const readings = [...noise(), reading({ timeMs: fromMs + at * minute })]
    await rig.take(agent, at, [{ kind: 'readings', readings }], at)
    await rig.log.retain()
  }
  await rig.take(agent, 200, [at([200])], 200)
  const { state, missing } = await rig.ask()
  assert.deepEqual([state, reasons(missing)], ['incomplete', ['retention']])
  const late = await rig.ask({ fromMs: fromMs + 190 * minute, toMs: fromMs + 195 * minute })
  assert.deepEqual([late.state, late.missing], ['complete', []])
})

test('over HTTP and on the command line the answer is the same', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const ledger = { settledMs: Date.now() + minute }
  await send(url, agent.batch([at([10, 59])], { sentMs: Date.now(), ledger }))
  const time = ['--from', '2026-01-31T08:00:00Z', '--to', '2026-01-31T09:00:00Z']
  const ask = ['log', 'complete', '--collector', url, '--device', 'pump-1', ...time]
  const told = await Headgate.run(t, ask)
  assert.deepEqual([told.code, told.stderr], [0, ''])
  assert.match(
    told.stdout,
    /^pump-1 2026-01-31T08:00:00.000Z to .*: complete, as of .*\n2 readings\n$/,
  )
  const path = 'device=pump-1&from=2026-01-31T08:00:00Z&to=2026-01-31T09:00:00Z'
  const answer = await (await fetch(`${url}/v1/completeness?${path}`)).json()
  const { stdout } = await Headgate.run(t, [...ask, '--json'])
  assert.deepEqual(JSON.parse(stdout), answer)

  const early = await Headgate.run(t, [...ask.slice(0, -1), '2099-01-01T00:00:00Z'])
  assert.equal(early.code, 3, early.stderr)
  for (const query of ['', 'device=a', 'device=a&from=0&to=9', `${path}&x=1`]) {
    const { status } = await fetch(`${url}/v1/completeness?${query}`)
    assert.equal(status, 400, query)
  }
})
