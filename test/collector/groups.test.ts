import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { GroupProblem, Groups, maxGroups } from '../../collector/groups/groups.ts'
import { DiskNotes } from '../../collector/log/embedded/notes.ts'
import { systemRandom } from '../../shared/system.ts'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { send, startCollector } from '../support/collector.ts'
import { openLog } from '../support/embedded-log.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { MemoryNotes } from '../support/memory-notes.ts'
import { silentLog } from '../support/silent-log.ts'

const leaseMs = 30_000

interface Rig {
  clock: ManualClock
  disk: MemoryDisk
  groups: Groups
  lease(consumer: string, session?: string): ReturnType<Groups['lease']>
  /** As after a crash: what was not synced is gone. */
  restart(): Promise<void>
}

/** Groups over a log of some partitions with ten readings in each. */
async function rig(t: TestContext, partitions = 4): Promise<Rig> {
  const clock = new ManualClock()
  const log = await openLog(new MemoryDisk(), { partitions })
  cleanUp(t, () => log.close())
  for (let i = 0; (await emptyPartitions(log, partitions)) > 0; i++)
    await log.append(entryOf(new TestAgent({ name: `gw-${i}` }).readings(10)))
  const open = (disk: MemoryDisk) =>
    Groups.open({
      log,
      notes: new DiskNotes(disk),
      clock,
      random: systemRandom,
      logger: silentLog,
    })
  const disk = new MemoryDisk()
  const rig: Rig = {
    clock,
    disk,
    groups: await open(disk),
    lease: (consumer, session) =>
      rig.groups.lease('etl', 'readings', { consumer, session, leaseMs, from: 'beginning' }),
    restart: async () => {
      rig.disk = rig.disk.powerCut((_, { synced }) => synced)
      rig.groups = await open(rig.disk)
    },
  }
  return rig
}

async function emptyPartitions(
  log: Awaited<ReturnType<typeof openLog>>,
  partitions: number,
): Promise<number> {
  const counts = await Promise.all(
    Array.from({ length: partitions }, async (_, i) => (await log.statistics(i)).readings.records),
  )
  return counts.filter((count) => count === 0).length
}

const numbers = ({ partitions }: { partitions: { partition: number }[] }) =>
  partitions.map(({ partition }) => partition)
const refused = (code: string) => (error: unknown) =>
  error instanceof GroupProblem && error.code === code

test('consumers of a group share its partitions, and a partition is one consumer’s at a time', async (t) => {
  const { lease, groups } = await rig(t)
  const a = await lease('a')
  assert.deepEqual(numbers(a), [0, 1, 2, 3])
  const b = await lease('b')
  assert.deepEqual(numbers(b), [], 'nothing is taken from one that does not know')
  // It gives back what is beyond its share when it is next heard.
  assert.deepEqual(numbers(await lease('a', a.session)), [0, 1])
  assert.deepEqual(numbers(await lease('b', b.session)), [2, 3])
  const c = await lease('c')
  for (const [name, session] of [
    ['a', a.session],
    ['b', b.session],
    ['c', c.session],
  ] as const)
    await lease(name, session)
  const { partitions } = await groups.describe('etl', 'readings')
  const holders = partitions.map(({ consumer }) => consumer).sort()
  assert.deepEqual(holders, ['a', 'a', 'b', 'c'])
})

test('what is committed is where the next one begins, over a power cut', async (t) => {
  const it = await rig(t, 1)
  const { session, partitions } = await it.lease('a')
  assert.deepEqual(partitions, [{ partition: 0, next: 0, first: 0, end: 10 }])
  await it.groups.commit('etl', 'readings', { session, next: new Map([[0, 7]]) })
  // A cursor does not go back by a commit that comes late.
  await it.groups.commit('etl', 'readings', { session, next: new Map([[0, 3]]) })
  await it.restart()
  const again = await it.lease('a')
  assert.equal(again.partitions[0]?.next, 7)
  const { partitions: told } = await it.groups.describe('etl', 'readings')
  assert.deepEqual(told[0], {
    partition: 0,
    next: 7,
    first: 0,
    end: 10,
    behind: 3,
    consumer: 'a',
  })
})

test('a lease that is not renewed ends, and what it held goes to another with its cursor', async (t) => {
  const it = await rig(t, 1)
  const a = await it.lease('a')
  const b = await it.lease('b')
  await it.groups.commit('etl', 'readings', { session: a.session, next: new Map([[0, 4]]) })
  await it.clock.advance(leaseMs - 1)
  assert.deepEqual(numbers(await it.lease('b', b.session)), [])
  await it.clock.advance(1)
  assert.deepEqual((await it.lease('b', b.session)).partitions, [
    { partition: 0, next: 4, first: 0, end: 10 },
  ])
  // The one before has ended for good: it can neither commit nor come back as it was.
  const late = { session: a.session, next: new Map([[0, 9]]) }
  await assert.rejects(it.groups.commit('etl', 'readings', late), refused('lost'))
  await assert.rejects(it.lease('a', a.session), refused('ended'))
  assert.equal((await it.lease('b', b.session)).partitions[0]?.next, 4)
})

test('a collector that starts again knows whose the leases are', async (t) => {
  const it = await rig(t, 2)
  const a = await it.lease('a')
  await it.restart()
  assert.deepEqual(numbers(await it.lease('b')), [])
  await it.groups.commit('etl', 'readings', { session: a.session, next: new Map([[1, 5]]) })
  assert.deepEqual(numbers(await it.lease('a', a.session)), [0])
  await it.restart()
  await it.clock.advance(leaseMs)
  assert.deepEqual(numbers(await it.lease('c')), [0, 1])
})

test('a consumer that comes anew under its name has its partitions at once, and shuts the old one out', async (t) => {
  const it = await rig(t, 2)
  const old = await it.lease('a')
  const young = await it.lease('a')
  assert.notEqual(young.session, old.session)
  assert.deepEqual(numbers(young), [0, 1])
  const late = { session: old.session, next: new Map([[0, 9]]) }
  await assert.rejects(it.groups.commit('etl', 'readings', late), refused('lost'))
  await assert.rejects(it.lease('a', old.session), refused('taken'))
})

test('of a commit that names a partition of another nothing counts', async (t) => {
  const it = await rig(t, 2)
  const a = await it.lease('a')
  const b = await it.lease('b')
  await it.lease('a', a.session)
  await it.lease('b', b.session)
  const both = {
    session: a.session,
    next: new Map([
      [0, 5],
      [1, 5],
    ]),
  }
  await assert.rejects(it.groups.commit('etl', 'readings', both), (error: GroupProblem) => {
    assert.deepEqual([error.code, error.more], ['lost', { lost: [1] }])
    return true
  })
  const { partitions } = await it.groups.describe('etl', 'readings')
  assert.deepEqual(
    partitions.map(({ next }) => next),
    [0, 0],
  )
  const beyond = { session: a.session, next: new Map([[0, 10_000]]) }
  await assert.rejects(it.groups.commit('etl', 'readings', beyond), refused('query'))
})

test('a commit that the disk did not take is not answered for, and the next one carries it', async (t) => {
  const it = await rig(t, 1)
  const { session } = await it.lease('a')
  it.disk.before = (call) => {
    if (call === 'sync') throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
  }
  const commit = (offset: number) =>
    it.groups.commit('etl', 'readings', { session, next: new Map([[0, offset]]) })
  await assert.rejects(commit(4), refused('LOG_DISK'))
  it.disk.before = () => {}
  await commit(5)
  await it.restart()
  assert.equal((await it.lease('a')).partitions[0]?.next, 5)
})

test('a group’s file that makes no sense is set aside, and the group begins anew', async (t) => {
  const it = await rig(t, 1)
  const { session } = await it.lease('a')
  await it.groups.commit('etl', 'readings', { session, next: new Map([[0, 9]]) })
  const file = await it.disk.open('groups/readings.etl.json', 'write')
  await file.write([new TextEncoder().encode('{"version":7')], 0)
  await file.sync()
  await it.restart()
  assert.deepEqual(await it.groups.list(), [])
  assert.equal((await it.lease('a')).partitions[0]?.next, 0)
  assert.ok((await it.disk.list('groups')).includes('readings.etl.json.damaged'))
})

test('groups are bounded, and one that is removed makes room', async (t) => {
  const it = await rig(t, 1)
  const lease = (group: string) => {
    const asked = { consumer: 'a', session: undefined, leaseMs, from: 'end' } as const
    return it.groups.lease(group, 'readings', asked)
  }
  for (let i = 0; i < maxGroups; i++) await lease(`g${i}`)
  await assert.rejects(lease('more'), refused('full'))
  await it.groups.remove('g7', 'readings')
  assert.equal((await lease('more')).partitions[0]?.next, 10, 'from the end')
  await it.restart()
  assert.equal((await it.groups.list()).length, maxGroups)
  await assert.rejects(it.groups.describe('g7', 'readings'), refused('group'))
})

test('consumers of one group are bounded', async (t) => {
  const it = await rig(t, 1)
  for (let i = 0; i < 256; i++) await it.lease(`c${i}`)
  await assert.rejects(it.lease('more'), refused('full'))
  await it.clock.advance(leaseMs)
  assert.deepEqual(numbers(await it.lease('more')), [0])
})

/** Two collectors of one log, each with a clock of its own. */
async function pair(t: TestContext) {
  const log = await openLog(new MemoryDisk(), { partitions: 2 })
  cleanUp(t, () => log.close())
  const notes = new MemoryNotes()
  const open = async () => {
    const clock = new ManualClock()
    const world = { log, notes, clock, random: systemRandom, logger: silentLog }
    const groups = await Groups.open(world)
    const lease = (consumer: string, session?: string) =>
      groups.lease('etl', 'readings', { consumer, session, leaseMs, from: 'beginning' })
    return { clock, groups, lease }
  }
  return { a: await open(), b: await open(), open }
}

test('consumers may ask any collector of a log, and a lease that one renewed the others know of', async (t) => {
  const { a, b } = await pair(t)
  const x = await a.lease('x')
  const y = await b.lease('y')
  assert.deepEqual(numbers(y), [])
  assert.deepEqual(numbers(await b.lease('x', x.session)), [0])
  assert.deepEqual(numbers(await a.lease('y', y.session)), [1])
  // Each is heard by one collector alone, for three times as long as its lease runs.
  for (let i = 0; i < 6; i++) {
    for (const { clock } of [a, b]) await clock.advance(leaseMs / 2)
    assert.deepEqual(numbers(await a.lease('x', x.session)), [0])
    assert.deepEqual(numbers(await b.lease('y', y.session)), [1])
  }
  assert.deepEqual(await a.groups.list(), [{ group: 'etl', stream: 'readings' }])
})

test('a lease ends at every collector by its own clock, and of what was committed nothing is lost', async (t) => {
  const { a, b, open } = await pair(t)
  const x = await a.lease('x')
  await a.groups.commit('etl', 'readings', { session: x.session, next: new Map([[0, 0]]) })
  // Another collector knows nothing of how long ago that was.
  const y = await b.lease('y')
  await b.clock.advance(leaseMs - 1)
  assert.deepEqual(numbers(await b.lease('y', y.session)), [])
  await b.clock.advance(1)
  assert.deepEqual(numbers(await b.lease('y', y.session)), [0, 1])
  const late = { session: x.session, next: new Map([[0, 0]]) }
  await assert.rejects(a.groups.commit('etl', 'readings', late), refused('lost'))
  await assert.rejects(a.lease('x', x.session), refused('ended'))
  // The one that was asked is gone.
  const c = await open()
  assert.deepEqual(numbers(await c.lease('y', y.session)), [0, 1])
  await c.groups.remove('etl', 'readings')
  await assert.rejects(a.groups.describe('etl', 'readings'), refused('group'))
  assert.deepEqual(numbers(await a.lease('x')), [0, 1])
})

test('over HTTP a group is read, committed, moved and removed, and nonsense is refused', async (t) => {
  const { url } = await startCollector(t)
  await send(url, new TestAgent().readings(5))
  const path = `${url}/v1/groups/etl/readings`
  const call = async (
    verb: string,
    body: unknown,
    method = 'POST',
  ): Promise<Record<string, unknown>> => {
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const answer = await fetch(`${path}${verb}`, {
      method,
      ...(method === 'POST' && { body: text }),
    })
    return { status: answer.status, ...((await answer.json()) as Record<string, unknown>) }
  }
  const leased = await call('/lease', { consumer: 'a' })
  const { session } = leased
  assert.deepEqual(leased.partitions, [{ partition: 0, next: 0, first: 0, end: 5 }])
  assert.equal((await call('/commit', { session, next: { 0: 3 } })).status, 200)
  assert.equal((await call('/seek', { next: [1] })).status, 409)
  assert.equal((await call('/leave', { session })).status, 200)
  assert.equal((await call('/seek', { next: [1] })).status, 200)
  const told = await call('', '', 'GET')
  assert.deepEqual(told.partitions, [{ partition: 0, next: 1, first: 0, end: 5, behind: 4 }])
  const all = await (await fetch(`${url}/v1/groups`)).json()
  assert.deepEqual(all, { groups: [{ group: 'etl', stream: 'readings' }] })

  for (const [verb, body, status] of [
    ['/lease', '{', 400],
    ['/lease', {}, 400],
    ['/lease', { consumer: 'a b' }, 400],
    ['/lease', { consumer: 'a', leaseMs: 1 }, 400],
    ['/lease', { consumer: 'a', session: 'x' }, 400],
    ['/lease', { consumer: 'a', session: '0'.repeat(32) }, 409],
    ['/commit', { session: '0'.repeat(32), next: { 0: 1 } }, 409],
    ['/commit', { session: '0'.repeat(32), next: { x: 1 } }, 400],
    ['/commit', { session: '0'.repeat(32), next: { 0: -1 } }, 400],
    ['/lease', 'x'.repeat(40_000), 413],
    ['/other', {}, 404],
  ] as const)
    assert.equal((await call(verb, body)).status, status, `${verb} ${JSON.stringify(body)}`)
  for (const name of ['.', '..', '%2e%2e', 'a/b', 'a%2fb', `${'x'.repeat(65)}`, '.hidden'])
    assert.equal((await fetch(`${url}/v1/groups/${name}/readings`)).status, 404, name)
  assert.equal((await fetch(`${url}/v1/groups/etl/nothing`)).status, 404)
  assert.equal((await fetch(path, { method: 'PUT' })).status, 405)

  assert.equal((await call('', '', 'DELETE')).status, 200)
  assert.equal((await call('', '', 'GET')).status, 404)
})
