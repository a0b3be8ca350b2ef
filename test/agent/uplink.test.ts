import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Outbox } from '../../agent/outbox/outbox.ts'
import { chooseLane, readAnswer, retryDelayMs } from '../../agent/uplink/policy.ts'
import { Uplink, uplinkSchema } from '../../agent/uplink/uplink.ts'
import { imbalance } from '../../shared/ledger.ts'
import { systemRandom } from '../../shared/system.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { json, ModelCollector } from '../support/model-collector.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { readings } from '../support/readings.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

interface Rig {
  outbox: Outbox
  uplink: Uplink
  collector: ModelCollector
  clock: ManualClock
  /** Ends when the uplink does. */
  running: Promise<void>
  /** Moves time until nothing waits. */
  drain(): Promise<void>
}

async function rig(
  t: TestContext,
  batch: { maxReadings?: number } = {},
  decidedMs?: () => number | undefined,
): Promise<Rig> {
  const clock = new ManualClock()
  const outbox = await openOutbox(await temporaryDirectory(t), { clock })
  const collector = new ModelCollector()
  const config = uplinkSchema.parse({ url: 'http://127.0.0.1:1', batch })
  const uplink = new Uplink({
    outbox,
    link: collector,
    clock,
    random: systemRandom,
    log: silentLog,
    agent: 'gw-001',
    config,
    ...(decidedMs && { decidedMs }),
  })
  const stop = new AbortController()
  const running = uplink.run(stop.signal)
  t.after(async () => {
    stop.abort()
    await running
    await outbox.close()
  })
  const drain = async () => {
    await until(async () => {
      await clock.advance(100)
      return outbox.ledger.buffered === 0
    }, 'drained')
  }
  return { outbox, uplink, collector, clock, running, drain }
}

function values(collector: ModelCollector): unknown[] {
  return collector.readings.map(({ value }) => value)
}

test('a batch closes by age, not before', async (t) => {
  const { outbox, collector, clock, drain } = await rig(t)
  await outbox.commit(groupOf(readings(3)))
  await clock.advance(900)
  assert.equal(collector.requests, 0)
  await drain()
  assert.equal(collector.requests, 1)
  assert.deepEqual(values(collector), [1, 2, 3])
})

test('a commit that makes nothing due sooner does not wake the uplink', async (t) => {
  const { outbox, collector, clock } = await rig(t)
  await outbox.commit(groupOf(readings(3)))
  await clock.advance(300.1)
  const timers = t.mock.method(clock, 'timer')
  await outbox.commit(groupOf(readings(3, 4)))
  await clock.advance(300.1)
  assert.equal(timers.mock.callCount(), 0)
  await clock.advance(400)
  await until(() => collector.requests === 1, 'sent by the age of the first')
})

test('a full batch goes at once, and small groups travel as one item', async (t) => {
  const { outbox, collector } = await rig(t, { maxReadings: 100 })
  for (let i = 0; i < 10; i++) await outbox.commit(groupOf(readings(10, 1 + i * 10)))
  await until(() => outbox.ledger.buffered === 0, 'sent without waiting for age')
  assert.equal(collector.batches.length, 1)
  assert.equal(collector.batches[0]?.items.length, 1)
})

test('what is lost on the way is sent again, and is in the log once', async (t) => {
  const { outbox, collector, drain } = await rig(t, { maxReadings: 10 })
  collector.loseAnswers = 3
  for (let i = 0; i < 10; i++) await outbox.commit(groupOf(readings(5, 1 + i * 5)))
  await drain()
  assert.deepEqual(
    values(collector),
    Array.from({ length: 50 }, (_, i) => i + 1),
  )
  assert.equal(outbox.ledger.forwarded, 50)
  assert.equal(imbalance(outbox.ledger), 0)
})

test('nothing is settled that comes after the batch that says so', async (t) => {
  // A millisecond goes by whenever it is asked.
  let ask = () => 0
  const { collector, outbox, clock } = await rig(t, { maxReadings: 10 }, () => ask())
  ask = () => {
    clock.setWall(clock.wallMs() + 1)
    return clock.wallMs()
  }
  await outbox.commit(groupOf(readings(10)))
  await until(() => collector.batches.length === 1, 'a full batch')
  const { ledger, sentMs } = collector.batches[0]!.header
  assert.equal(ledger?.settledMs, sentMs)
})

test('a report says what is settled once its own batch is answered for', async (t) => {
  let decidedMs: number | undefined = Infinity
  const { outbox, collector, clock, drain } = await rig(t, { maxReadings: 10 }, () => decidedMs)
  const settled = () => collector.batches.at(-1)!.header.ledger?.settledMs
  decidedMs = clock.wallMs() + 500
  const beganMs = clock.wallMs()
  await outbox.commit(groupOf(readings(15)))
  await until(() => collector.batches.length === 1, 'a full batch')
  assert.equal(settled(), beganMs, 'the rest of the commit waits')
  await drain()
  // The last one carries what the filter and the source have decided, and no more.
  await clock.advance(10_000)
  await outbox.commit(groupOf(readings(1, 16)))
  await drain()
  assert.equal(settled(), beganMs + 500)
  decidedMs = undefined
  await clock.advance(10_000)
  await outbox.commit(groupOf(readings(1, 17)))
  await drain()
  assert.equal(settled(), undefined)
  assert.equal(collector.batches.at(-1)!.header.ledger?.received, 17)

  // A batch that failed and is sent again has seen nothing of what was committed meanwhile.
  decidedMs = Infinity
  collector.before = () => json(503, {})
  await clock.advance(10_000)
  const oldMs = clock.wallMs()
  await outbox.commit(groupOf(readings(1, 18)))
  await clock.advance(2_000)
  await outbox.commit(groupOf(readings(1, 19)))
  collector.before = () => undefined
  await until(async () => {
    await clock.advance(100)
    return collector.readings.length === 18
  }, 'it gets through')
  assert.equal(settled(), oldMs)
})

test('a busy collector is left alone for as long as it asks', async (t) => {
  const { outbox, uplink, collector, clock, drain } = await rig(t)
  collector.before = () => json(503, { message: 'disk is slow' }, { 'retry-after': '120' })
  await outbox.commit(groupOf(readings(1)))
  await clock.advance(1000)
  await until(() => uplink.status.state.phase === 'waiting', 'refused by the busy collector')
  assert.equal(collector.requests, 1)
  await clock.advance(119_000)
  assert.equal(collector.requests, 1)
  collector.before = () => undefined
  await drain()
})

test('a stranger that answers 400, 404 or nonsense costs no reading its place', async (t) => {
  const { outbox, collector, drain, uplink } = await rig(t)
  const answers = [
    json(400, { error: 'proxy' }),
    json(404, {}),
    json(200, { ok: true }),
    json(500, {}),
    json(401, {}),
  ]
  collector.before = () => answers.shift()
  await outbox.commit(groupOf(readings(2)))
  await drain()
  assert.deepEqual(values(collector), [1, 2])
  assert.equal(uplink.status.refused, 0)
})

test('one bad reading in a batch is set aside, the others arrive in order', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  collector.refuse = (given) => given.some(({ value }) => value === 13)
  await outbox.commit(groupOf(readings(40)))
  await drain()
  const expected = Array.from({ length: 40 }, (_, i) => i + 1).filter((value) => value !== 13)
  assert.deepEqual(values(collector), expected)
  assert.deepEqual({ ...outbox.ledger }, { ...outbox.ledger, forwarded: 39, quarantined: 1 })
  const gaps = collector.batches.flatMap(({ items }) => items.filter((item) => item.kind === 'gap'))
  assert.deepEqual(
    gaps.map((gap) => gap.kind === 'gap' && [gap.reason, gap.count]),
    [['refused', 1]],
  )
})

test('a collector that was restored gets a declared gap, and delivery goes on', async (t) => {
  const { outbox, collector, drain } = await rig(t, { maxReadings: 5 })
  await outbox.commit(groupOf(readings(5)))
  await drain()
  const backup = new Map(collector.held)
  await outbox.commit(groupOf(readings(5, 6)))
  await drain()
  for (const [key, held] of backup) collector.held.set(key, held)
  await outbox.commit(groupOf(readings(5, 11)))
  await drain()
  const [gap] = collector.batches.flatMap(({ items }) => items.filter(({ kind }) => kind === 'gap'))
  assert.ok(gap?.kind === 'gap' && gap.reason === 'released' && gap.count === 5)
  assert.equal(collector.batches.at(-1)?.header.last, 15)
  assert.equal(imbalance(outbox.ledger), 0)
})

test('an empty collector gets a declared gap for everything it never saw', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  await outbox.commit(groupOf(readings(5)))
  await drain()
  collector.held.clear()
  await outbox.commit(groupOf(readings(5, 6)))
  await drain()
  assert.deepEqual(values(collector).slice(-5), [6, 7, 8, 9, 10])
  assert.equal(collector.batches.at(-1)?.header.first, 1)
})

test('another history under the same incarnation is answered with a new one, nothing is lost', async (t) => {
  const { outbox, collector, drain, uplink } = await rig(t)
  await outbox.commit(groupOf(readings(5)))
  await drain()
  for (const held of collector.held.values()) held.chain = { high: 7, low: 7 }
  await outbox.commit(groupOf(readings(5, 6)))
  await drain()
  assert.equal(uplink.status.forks, 1)
  assert.deepEqual(values(collector).slice(-5), [6, 7, 8, 9, 10])
  assert.equal(imbalance(outbox.ledger), 0)
})

test('a collector ahead of the current incarnation is another process: numbered anew, nothing is lost', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  await outbox.commit(groupOf(readings(5)))
  await drain()
  for (const held of collector.held.values()) held.sequence = 100
  await outbox.commit(groupOf(readings(5, 6)))
  await drain()
  assert.deepEqual(values(collector).slice(-5), [6, 7, 8, 9, 10])
})

test('of another history that holds several batches nothing is deleted', async (t) => {
  const { outbox, collector, drain, uplink } = await rig(t, { maxReadings: 2 })
  await outbox.commit(groupOf(readings(2)))
  await drain()
  // Another process under this name has sent five more.
  for (const held of collector.held.values()) {
    held.sequence = 7
    held.chain = { high: 7, low: 7 }
  }
  await outbox.commit(groupOf(readings(6, 3)))
  await drain()
  assert.equal(uplink.status.forks, 1)
  assert.deepEqual(values(collector), [1, 2, 3, 4, 5, 6, 7, 8])
})

test('urgent goes first, and bulk is not starved', async (t) => {
  const { outbox, collector, drain } = await rig(t, { maxReadings: 5 })
  let ready = false
  collector.before = () => (ready ? undefined : json(503, {}))
  for (let i = 0; i < 10; i++)
    for (const lane of ['bulk', 'urgent'] as const)
      await outbox.commit(groupOf(readings(5, 1 + i * 5), { lane }))
  ready = true
  await drain()
  const order = collector.batches.map(({ header }) => header.lane)
  assert.ok(order.indexOf('bulk') < order.lastIndexOf('urgent'), order.join(' '))
  assert.ok(order.slice(1, 5).filter((lane) => lane === 'urgent').length >= 3, order.join(' '))
})

test('an encoding that the collector does not know is replaced by one that it names', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  collector.before = ({ headers }) =>
    headers['content-encoding'] === 'gzip'
      ? undefined
      : json(415, {}, { 'accept-encoding': 'gzip' })
  await outbox.commit(groupOf(readings(2)))
  await drain()
  assert.deepEqual(values(collector), [1, 2])
})

test('a body is compressed where that saves something worth the effort', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  for (const count of [2, 500]) {
    await outbox.commit(groupOf(readings(count)))
    await drain()
  }
  assert.deepEqual(collector.encodings, ['identity', 'zstd'])
})

test('a collector that wants no body as it is gets small ones compressed too', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  collector.before = ({ headers }) =>
    headers['content-encoding'] === undefined
      ? json(415, {}, { 'accept-encoding': 'zstd, gzip' })
      : undefined
  for (const count of [2, 3]) {
    await outbox.commit(groupOf(readings(count)))
    await drain()
  }
  assert.deepEqual(collector.encodings, ['zstd', 'zstd'])
  assert.equal(collector.requests, 3)
})

test('a link too slow for a batch gets smaller ones', async (t) => {
  const { outbox, collector, drain } = await rig(t)
  collector.before = ({ body }) => {
    if (body.length > 1000) throw Object.assign(new Error('late'), { name: 'TimeoutError' })
    return undefined
  }
  await outbox.commit(
    groupOf(readings(500).map((given) => ({ ...given, value: Math.sin(given.timeMs) }))),
  )
  await drain()
  assert.equal(values(collector).length, 500)
  assert.ok(collector.batches.length > 1)
})

test('an uplink that is to finish waits for the answer to what it has sent, and sends no more', async (t) => {
  const { outbox, uplink, collector, clock, running } = await rig(t, { maxReadings: 10 })
  collector.before = () => {
    uplink.finish()
    return undefined
  }
  await outbox.commit(groupOf(readings(20)))
  await clock.advance(1000)
  await running
  assert.equal(outbox.ledger.forwarded, 10)
  assert.equal(collector.requests, 1)
})

test('retries spread over the whole interval, the first at once', () => {
  const retry = { base: 20_000, max: 60_000 }
  assert.equal(retryDelayMs(0, retry, 0.99), 0)
  assert.equal(retryDelayMs(1, retry, 0.5), 10_000)
  assert.equal(retryDelayMs(2, retry, 0.5), 20_000)
  assert.equal(retryDelayMs(1000, retry, 0.5), 30_000)
})

test('an answer that is not plainly a collector’s is unknown', () => {
  const held = { held: 4, chain: '0011223344556677' }
  assert.equal(readAnswer(json(200, { code: 'accepted', ...held })).kind, 'accepted')
  for (const broken of [
    {},
    { code: 'accepted' },
    { code: 'accepted', held: -1, chain: held.chain },
    { code: 'accepted', held: 4, chain: 'xyz' },
  ])
    assert.equal(readAnswer(json(200, broken)).kind, 'unknown')
  assert.equal(
    readAnswer({ status: 200, headers: {}, body: new TextEncoder().encode('<html>') }).kind,
    'unknown',
  )
  assert.equal(readAnswer(json(429, {}, { 'retry-after': 'soon' })).kind, 'busy')
})

test('lanes take turns by priority and patience', () => {
  const due = new Set(['urgent', 'bulk'] as const)
  assert.equal(chooseLane(due, { urgent: 0, bulk: 3, quarantine: 0 }), 'urgent')
  assert.equal(chooseLane(due, { urgent: 0, bulk: 4, quarantine: 0 }), 'bulk')
  assert.equal(chooseLane(new Set(), { urgent: 0, bulk: 9, quarantine: 9 }), undefined)
})
