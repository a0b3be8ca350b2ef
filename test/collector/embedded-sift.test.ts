import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { FolderView } from '../../collector/log/embedded/folder-view.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import type { LogItem, ReadRequest } from '../../collector/log/engine.ts'
import type { LaneRecord } from '../../shared/batch.ts'
import type { Stream } from '../../shared/reading.ts'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { openLog } from '../support/embedded-log.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { readings } from '../support/readings.ts'

/** Short days: the log looks after itself every minute. */
const dayMs = 120_000
const alert: LaneRecord = { type: 'alert', content: { device: 'pump-1', what: 'hot' } }

/** Sequences that a stream has of an agent. */
async function sequencesOf(
  log: { read(request: ReadRequest): AsyncIterable<LogItem> },
  stream: Stream,
  agent = 'gw-001',
): Promise<number[]> {
  const found: number[] = []
  for await (const item of log.read({ stream })) {
    assert.equal(item.type, 'batch', `${stream}: ${JSON.stringify(item)}`)
    if (item.type === 'batch' && item.agent === agent) found.push(item.first)
  }
  return found
}

/** Days of batches, each with a reading and an alert, and a ledger; every third without the alert. */
async function fill(log: EmbeddedLog, clock: ManualClock, agent: TestAgent, days: number) {
  for (let day = 0; day < days; day++) {
    const changes = { ledger: { received: day } }
    const items = [{ kind: 'readings', readings: readings(2, agent.next) } as const]
    const batch =
      day % 3 === 2
        ? agent.batch(items, changes)
        : agent.batch([...items, { kind: 'records', records: [alert] }], changes)
    assert.equal((await log.append(entryOf(batch, clock.wallMs()))).code, 'accepted')
    await clock.advance(dayMs)
  }
}

const options = (clock: ManualClock) => ({
  clock,
  segmentBytes: 1600,
  retention: {
    bytes: undefined,
    ageMs: 10 * dayMs,
    agesMs: { alerts: 40 * dayMs, quarantine: dayMs },
  },
})

test('each stream keeps its records for its own time, and nothing that went is called lost', async () => {
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  const agent = new TestAgent()
  let alerts: number[]
  {
    await using log = await openLog(disk, options(clock))
    await fill(log, clock, agent, 60)
    await log.retain()
    const kept = await sequencesOf(log, 'readings')
    assert.ok(kept.length >= 10 && kept.length < 18, `${kept.length} days of readings`)
    alerts = await sequencesOf(log, 'alerts')
    // Two of three days had one.
    assert.ok(alerts.length >= 26 && alerts.length < 34, `${alerts.length} alerts`)
    assert.ok(alerts[0]! < kept[0]!)
    assert.deepEqual((await verifyLog(disk)).problems, [])
    assert.deepEqual(await sequencesOf((await FolderView.open(disk, clock))!, 'alerts'), alerts)
  }
  await using log = await openLog(disk, options(clock))
  assert.deepEqual(await sequencesOf(log, 'alerts'), alerts)
  assert.equal((await log.append(entryOf(agent.readings(1), clock.wallMs()))).code, 'accepted')
  // Old segments are gone, and those that are left are smaller than they were.
  const { readings: held } = await log.statistics()
  assert.equal(held.records, 2 * ((await sequencesOf(log, 'readings')).length - 1) + 1)
})

test('of the ledger an agent keeps its newest, however old, over restarts', async () => {
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  const quiet = new TestAgent({ name: 'gw-quiet' })
  const busy = new TestAgent()
  {
    await using log = await openLog(disk, options(clock))
    await fill(log, clock, quiet, 3)
    await fill(log, clock, busy, 70)
    await log.retain()
  }
  await using log = await openLog(disk, options(clock))
  await clock.advance(50 * dayMs)
  await fill(log, clock, busy, 10)
  await log.retain()
  assert.deepEqual(await sequencesOf(log, 'ledger', 'gw-quiet'), [7])
  assert.deepEqual(await sequencesOf(log, 'readings', 'gw-quiet'), [])
  const ledgers = await sequencesOf(log, 'ledger')
  assert.equal(ledgers.at(-1), busy.next - 3)
  assert.ok(ledgers.length <= 12, `${ledgers.length} ledgers`)
  assert.deepEqual((await verifyLog(disk)).problems, [])

  // It comes back: then the old one goes.
  const again = quiet.readings(1, { ledger: { received: 9 } })
  assert.equal((await log.append(entryOf(again, clock.wallMs()))).code, 'accepted')
  await log.retain()
  assert.deepEqual(await sequencesOf(log, 'ledger', 'gw-quiet'), [again.header.first])
})

test('to a reader of segments that are sifted meanwhile nothing seems lost', async () => {
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  // A segment has a batch of several days.
  const retention = { bytes: undefined, ageMs: 12 * dayMs, agesMs: { alerts: 40 * dayMs } }
  await using log = await openLog(disk, { ...options(clock), segmentBytes: 4000, retention })
  const agent = new TestAgent()
  await fill(log, clock, agent, 4)
  // The newest ledger of this one stays, among others that go.
  await fill(log, clock, new TestAgent({ name: 'gw-quiet' }), 1)
  await fill(log, clock, agent, 4)
  const view = (await FolderView.open(disk, clock))!
  const reader = view.read({ stream: 'ledger' })[Symbol.asyncIterator]()
  assert.equal((await reader.next()).done, false)
  await fill(log, clock, agent, 30)
  await log.retain()
  const agents: string[] = []
  for (let next = await reader.next(); !next.done; next = await reader.next()) {
    assert.equal(next.value.type, 'batch', JSON.stringify(next.value))
    if (next.value.type === 'batch') agents.push(next.value.agent)
  }
  assert.ok(agents.includes('gw-quiet'))
})

test('a power cut at any disk call of it takes nothing that is kept, and it is made up for', async () => {
  const clock = new ManualClock()
  const retention = { bytes: undefined, ageMs: 8 * dayMs, agesMs: { alerts: 90 * dayMs } }
  const keepsAll = { clock, segmentBytes: 2000 }
  const sifts = { ...keepsAll, retention }
  const base = new MemoryDisk()
  const agent = new TestAgent()
  {
    await using log = await openLog(base, keepsAll)
    await fill(log, clock, agent, 24)
  }
  const whole = base.powerCut((_, { synced }) => synced)
  const alerts = await opened(whole, keepsAll, (log) => sequencesOf(log, 'alerts'))
  const sifted = base.powerCut((_, { synced }) => synced)
  const left = await opened(sifted, sifts, async (log) => {
    await log.retain()
    return sequencesOf(log, 'readings')
  })
  assert.ok(left.length > 0 && left.length < 24)
  for (const survives of ['synced', 'bytes'] as const)
    for (let n = 1; ; n++) {
      const disk = base.powerCut((_, { synced }) => synced)
      const log = await openLog(disk, sifts)
      let image: MemoryDisk | undefined
      let calls = 0
      disk.before = (call, path) => {
        if (call === 'read' || call === 'list' || ++calls < n) return
        image ??= disk.powerCut((_, stored) => stored[survives])
        throw new Error(`the power is gone at ${call} ${path}`)
      }
      await log.retain()
      await log.close()
      if (!image) break
      assert.deepEqual((await verifyLog(image)).problems, [], `call ${n}`)
      await opened(image, sifts, async (again) => {
        await again.retain()
        assert.deepEqual(await sequencesOf(again, 'alerts'), alerts, `call ${n}`)
        assert.deepEqual(await sequencesOf(again, 'readings'), left, `call ${n}`)
        const held = await again.held('gw-001', agent.incarnation, 'bulk')
        assert.equal(held.held, agent.next - 1)
      })
    }
})

/** What `use` finds in a log on that disk, which is closed then. */
async function opened<Result>(
  disk: MemoryDisk,
  options: Parameters<typeof openLog>[1],
  use: (log: EmbeddedLog) => Promise<Result>,
): Promise<Result> {
  await using log = await openLog(disk, options)
  return use(log)
}
