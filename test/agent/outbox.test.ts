import assert from 'node:assert/strict'
import { test } from 'node:test'
import { passingFilter } from '../../agent/filter/filter.ts'
import { decodeEntry, encodeEntry, unseal } from '../../agent/outbox/entry.ts'
import type { StoredIncarnation } from '../../agent/outbox/incarnation.ts'
import {
  entryKey,
  entryRange,
  incarnationRange,
  positionRange,
  stateKey,
} from '../../agent/outbox/key.ts'
import { openLevel } from '../../agent/outbox/level.ts'
import { type Cut, Outbox, OutboxFailure, outboxSchema } from '../../agent/outbox/outbox.ts'
import { decodeItem } from '../../shared/batch.ts'
import { chainStart, sameChain } from '../../shared/chain.ts'
import { UserError } from '../../shared/failure.ts'
import { imbalance } from '../../shared/ledger.ts'
import type { Store } from '../../shared/ports.ts'
import type { Lane, Value } from '../../shared/reading.ts'
import { systemRandom } from '../../shared/system.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryStore } from '../support/memory-store.ts'
import { groupOf, openOutbox, wholeLane } from '../support/outbox.ts'
import { reading, readings } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const reject = {
  topic: 'sensors/x',
  payload: new Uint8Array([1, 2, 3]),
  size: 3,
  sha256: undefined,
  reason: 'not JSON',
  arrival: { wallMs: 0, monotonicMs: 0 },
}

function values(cut: Cut | undefined): Value[] {
  return (cut?.items ?? []).flatMap(({ bytes }) => {
    const item = decodeItem(bytes)
    return item.kind === 'readings' ? item.readings.map(({ value }) => value) : []
  })
}

test('what is committed comes out in order, once, numbered from 1 without holes', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  await outbox.commit(groupOf(readings(3, 1)))
  await outbox.commit(groupOf(readings(2, 4)))

  const first = await outbox.cut('bulk', { ...wholeLane, maxCount: 4 })
  assert.deepEqual([first?.first, first?.last, first?.more], [1, 3, true])
  assert.deepEqual(values(first), [1, 2, 3])
  assert.deepEqual(first?.before, chainStart)
  await outbox.release(first!)

  const second = await outbox.cut('bulk', wholeLane)
  assert.deepEqual([second?.first, second?.last, second?.more], [4, 5, false])
  assert.ok(sameChain(second!.before, first!.after))
  await outbox.release(second!)
  assert.equal(await outbox.cut('bulk', wholeLane), undefined)
  assert.equal(outbox.ledger.forwarded, 5)
  assert.equal(imbalance(outbox.ledger), 0)
})

test('a drained outbox reuses no sequence after a restart', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(2)))
  const first = (await before.cut('bulk', wholeLane))!
  await before.release(first)
  await before.close()

  await using after = await openOutbox(directory)
  await after.commit(groupOf(readings(1)))
  const second = (await after.cut('bulk', wholeLane))!
  assert.notDeepEqual(second.incarnation.id, first.incarnation.id)
  assert.deepEqual(second.incarnation.predecessor?.id, first.incarnation.id)
  assert.equal(second.incarnation.predecessor?.last.bulk, 2)
  assert.ok(sameChain(second.incarnation.predecessor!.chain.bulk, first.after))
})

test('what was not released is there after a restart, before what comes later', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(5)))
  await before.release((await before.cut('bulk', { ...wholeLane, maxCount: 2 }))!)
  await before.close()

  await using after = await openOutbox(directory)
  assert.deepEqual(after.damage, [])
  assert.equal(after.ledger.buffered, 3)
  await after.commit(groupOf(readings(2, 6)))
  const rest = (await after.cut('bulk', wholeLane))!
  assert.deepEqual([rest.first, rest.last], [3, 5])
  assert.deepEqual(values(rest), [3, 4, 5])
  await after.release(rest)
  assert.deepEqual(values(await after.cut('bulk', wholeLane)), [6, 7])
  assert.equal(imbalance(after.ledger), 0)
})

test('a cut in the middle of an entry carries the running hash on', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  await outbox.commit(groupOf(readings(10)))
  const whole = (await outbox.cut('bulk', wholeLane))!
  const parts = []
  for (const last of [3, 7, 10]) {
    const part = (await outbox.cut('bulk', { ...wholeLane, last }))!
    assert.equal(part.last, last)
    parts.push(part)
    await outbox.release(part)
  }
  assert.deepEqual(parts.flatMap(values), values(whole))
  assert.ok(sameChain(parts[1]!.before, parts[0]!.after))
  assert.ok(sameChain(parts[2]!.after, whole.after))
  assert.equal(outbox.ledger.forwarded, 10)
})

test('lanes, quarantine and state commit with the group, all or nothing', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(
    groupOf(readings(1), {
      rejects: [reject],
      records: [{ type: 'alert', content: { state: 'raised' } }],
      state: [{ space: 'source', key: 'mark', value: new Uint8Array([7]) }],
      counts: {
        received: 2,
        receivedQos0: 0,
        suppressed: 0,
        absorbed: 0,
        deduplicated: 0,
        held: 0,
      },
    }),
  )
  await before.close()
  await using after = await openOutbox(directory)
  const state = await Array.fromAsync(after.read('source'))
  assert.deepEqual(
    state.map(({ key, value }) => [key, [...value]]),
    [['mark', [7]]],
  )
  assert.equal((await after.cut('urgent', wholeLane))?.last, 1)
  const quarantined = (await after.cut('quarantine', wholeLane))!
  const item = decodeItem(quarantined.items[0]!.bytes)
  assert.ok(item.kind === 'records' && item.records[0]?.type === 'quarantine')
  assert.deepEqual([...item.records[0].payload], [1, 2, 3])
  assert.deepEqual(
    { ...after.ledger },
    { ...after.ledger, received: 2, quarantined: 1, buffered: 1 },
  )
  assert.equal(imbalance(after.ledger), 0)
})

test('a full outbox evicts the oldest bulk readings, and a gap says which', async (t) => {
  const directory = await temporaryDirectory(t)
  const whenFull = { urgent: 'evict', bulk: 'evict', quarantine: 'evict' } as const
  await using outbox = await openOutbox(directory, { config: { maxBytes: 1500, whenFull } })
  for (let i = 0; i < 40; i++) await outbox.commit(groupOf(readings(20, 1 + i * 20)))
  assert.ok(outbox.bytes <= 1500, `${outbox.bytes} bytes`)
  const { ledger } = outbox
  assert.ok(ledger.evicted > 0 && ledger.buffered > 0)
  assert.equal(ledger.evicted + ledger.buffered, 800)
  const cut = (await outbox.cut('bulk', wholeLane))!
  const gap = decodeItem(cut.items[0]!.bytes)
  assert.ok(gap.kind === 'gap' && gap.reason === 'evicted')
  assert.equal(cut.items[0]!.count, ledger.evicted)
  assert.deepEqual(gap.series, [{ device: 'pump-1', metric: 'temperature', count: ledger.evicted }])
  assert.deepEqual(values(cut).at(-1), 800)
  assert.equal(cut.last, 800)
  await outbox.release(cut)
  assert.equal(imbalance(outbox.ledger), 0)
})

test('what was cut, and may be on its way, is not evicted', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t), { config: { maxBytes: 1500 } })
  await outbox.commit(groupOf(readings(20)))
  const sent = (await outbox.cut('bulk', wholeLane))!
  for (let i = 1; i < 40; i++) await outbox.commit(groupOf(readings(20, 1 + i * 20)))
  await outbox.release(sent)
  assert.equal(outbox.ledger.forwarded, 20)
  assert.equal(imbalance(outbox.ledger), 0)
  const rest = (await outbox.cut('bulk', wholeLane))!
  assert.deepEqual([rest.first, rest.last], [21, 800])
})

test('a damaged entry becomes a declared gap, and the rest is kept', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  for (let i = 0; i < 3; i++) await before.commit(groupOf(readings(5, 1 + i * 5)))
  await before.close()
  const store = await openLevel(directory)
  const entries = await Array.fromAsync(store.read(entryRange('bulk')))
  const flipped = entries[1]!.value.slice()
  flipped[60]! ^= 1
  await store.write([{ key: entries[1]!.key, value: flipped }], { sync: true })
  await store.close()

  await using after = await openOutbox(directory)
  assert.equal(after.damage.length > 0, true)
  assert.deepEqual(
    { ...after.ledger },
    { ...after.ledger, received: 15, buffered: 10, lostCorrupt: 5 },
  )
  const cut = (await after.cut('bulk', wholeLane))!
  assert.deepEqual([cut.first, cut.last], [1, 15])
  assert.deepEqual(
    cut.items.map(({ gap, count }) => [gap, count]),
    [
      [false, 5],
      [true, 5],
      [false, 5],
    ],
  )
  assert.deepEqual(values(cut), [1, 2, 3, 4, 5, 11, 12, 13, 14, 15])
})

test('an entry that LevelDB dropped at the end of an incarnation is missed, and declared', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(5)))
  await before.commit(groupOf(readings(5, 6)))
  await before.close()
  const store = await openLevel(directory)
  const entries = await Array.fromAsync(store.read(entryRange('bulk')))
  await store.write([{ key: entries[1]!.key, value: undefined }], { sync: true })
  await store.close()
  await using after = await openOutbox(directory)
  assert.equal(after.ledger.lostCorrupt, 5)
  assert.equal(imbalance(after.ledger), 0)
  const cut = (await after.cut('bulk', wholeLane))!
  assert.deepEqual([cut.first, cut.last], [1, 10])
  const gap = decodeItem(cut.items[1]!.bytes)
  assert.ok(gap.kind === 'gap' && gap.reason === 'lost_corrupt' && gap.count === 5)
})

test('what is missing at the end of an incarnation is known to the one behind it', async (t) => {
  const directory = await temporaryDirectory(t)
  for (const value of [1, 2]) {
    await using outbox = await openOutbox(directory)
    await outbox.commit(groupOf(readings(3, value)))
  }
  const store = await openLevel(directory)
  const entries = await Array.fromAsync(store.read(entryRange('bulk')))
  await store.write([{ key: entries[0]!.key, value: new Uint8Array(60) }], { sync: true })
  await store.close()
  await using outbox = await openOutbox(directory)
  const cut = (await outbox.cut('bulk', wholeLane))!
  assert.deepEqual([cut.first, cut.last], [1, 3])
  assert.deepEqual(cut.after, decodeEntry(entries[0]!.key, entries[0]!.value)!.after)
  await outbox.release(cut)
  assert.deepEqual(values(await outbox.cut('bulk', wholeLane)), [2, 3, 4])
})

test('a gap that the collector holds the beginning of goes on at its running hash', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  for (const value of [1, 2, 3]) await before.commit(groupOf(readings(2, value)))
  await before.close()
  const store = await openLevel(directory)
  const entries = await Array.fromAsync(store.read(entryRange('bulk')))
  await store.write([{ key: entries[0]!.key, value: undefined }], { sync: true })
  await store.close()
  await using after = await openOutbox(directory)
  const held = (await after.cut('bulk', { ...wholeLane, last: 1 }))!
  await after.release({ ...held, after: { high: 7, low: 9 } })
  const cut = (await after.cut('bulk', wholeLane))!
  assert.deepEqual([cut.first, cut.last, cut.before], [2, 6, { high: 7, low: 9 }])
  assert.deepEqual(values(cut), [2, 3, 3, 4])
})

test('a delivery whose deletion did not survive is counted once', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(2)))
  await before.release((await before.cut('bulk', wholeLane))!)
  await before.commit(groupOf(readings(1, 3)))
  await before.close()
  // What LevelDB does at a loss of power: the release, in an older file, is lost, the commit is not.
  const store = await openLevel(directory)
  const [kept] = await Array.fromAsync(store.read(entryRange('bulk')))
  const [position] = await Array.fromAsync(store.read(positionRange))
  const lost = entryKey('bulk', 1, 1)
  const first = decodeEntry(kept!.key, kept!.value)!
  const two = { ...first, count: 2, received: 2, before: chainStart, after: first.before }
  await store.write(
    [
      { key: position!.key, value: undefined },
      { key: lost, value: encodeEntry(lost, two) },
    ],
    { sync: true },
  )
  await store.close()
  await using after = await openOutbox(directory)
  assert.deepEqual(after.damage, [])
  assert.equal(after.ledger.received, 3)
  assert.equal(after.ledger.forwarded, 0)
  assert.equal(imbalance(after.ledger), 0)
})

test('an incarnation whose record is damaged keeps its name', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(3)))
  const { id } = (await before.cut('bulk', wholeLane))!.incarnation
  await before.close()
  const store = await openLevel(directory)
  const [record] = await Array.fromAsync(store.read(incarnationRange))
  await store.write([{ key: record!.key, value: new Uint8Array(9) }], { sync: true })
  await store.close()
  await using after = await openOutbox(directory)
  assert.deepEqual((await after.cut('bulk', wholeLane))!.incarnation.id, id)
})

test('incarnations of which nothing is left are declared under their names', async (t) => {
  const directory = await temporaryDirectory(t)
  for (const count of [2, 3]) {
    await using before = await openOutbox(directory)
    await before.commit(groupOf(readings(count)))
  }
  const store = await openLevel(directory)
  const records = await Array.fromAsync(store.read(incarnationRange))
  const ids = records.map(({ key, value }) => unseal<StoredIncarnation>(key, value)!.id)
  for (const range of [incarnationRange, entryRange('bulk')])
    for await (const { key } of store.read(range))
      await store.write([{ key, value: undefined }], { sync: true })
  await store.close()
  await using after = await openOutbox(directory)
  for (const [i, count] of [2, 3].entries()) {
    const cut = (await after.cut('bulk', wholeLane))!
    const name = Buffer.from(cut.incarnation.id).toString('hex')
    assert.deepEqual([name, cut.first, cut.last], [ids[i], 1, count])
    await after.release(cut)
  }
})

test('a group is told to be durable before anybody else hears of it', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  const heard: string[] = []
  outbox.onCommit(() => heard.push('committed'))
  await outbox.commit(groupOf(readings(1)), () => heard.push(`durable: ${outbox.ledger.received}`))
  assert.deepEqual(heard, ['durable: 1', 'committed'])
})

test('after one failed write nothing more is accepted', async (t) => {
  const directory = await temporaryDirectory(t)
  const real = await openLevel(directory)
  let failing = false
  const store: Store = {
    get: (key) => real.get(key),
    read: (range) => real.read(range),
    close: () => real.close(),
    write: (changes, options) =>
      failing ? Promise.reject(new Error('ENOSPC')) : real.write(changes, options),
  }
  await using outbox = await openOutbox(directory, { store })
  await outbox.commit(groupOf(readings(1)))
  failing = true
  const durable = t.mock.fn()
  await assert.rejects(outbox.commit(groupOf(readings(1, 2)), durable), OutboxFailure)
  assert.equal(durable.mock.callCount(), 0)
  failing = false
  await assert.rejects(outbox.commit(groupOf(readings(1, 2))), OutboxFailure)
  assert.equal(outbox.ledger.received, 1)
})

test('a refused reading moves to quarantine, and a gap stands in its place', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  await outbox.commit(groupOf(readings(3)))
  await outbox.refuse((await outbox.cut('bulk', { ...wholeLane, maxCount: 1 }))!, 'too odd')
  const cut = (await outbox.cut('bulk', wholeLane))!
  assert.deepEqual(
    cut.items.map(({ gap, count }) => [gap, count]),
    [
      [true, 1],
      [false, 2],
    ],
  )
  assert.deepEqual([cut.first, cut.last], [1, 3])
  const set = decodeItem((await outbox.cut('quarantine', wholeLane))!.items[0]!.bytes)
  assert.ok(set.kind === 'records' && set.records[0]?.type === 'quarantine')
  assert.match(set.records[0].reason, /too odd/)
  assert.deepEqual(
    { ...outbox.ledger },
    { ...outbox.ledger, received: 3, quarantined: 1, buffered: 2 },
  )
  assert.equal(imbalance(outbox.ledger), 0)
})

test('what the collector no longer holds is declared released, and delivery goes on', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  await outbox.commit(groupOf(readings(4)))
  await outbox.release((await outbox.cut('bulk', wholeLane))!)
  await outbox.commit(groupOf(readings(2, 5)))
  const cut = (await outbox.cut('bulk', wholeLane))!
  const collector = { incarnation: cut.incarnation.id, held: 1, chain: { high: 1, low: 2 } }
  assert.equal(await outbox.declareReleased(cut, collector), 3)
  const again = (await outbox.cut('bulk', wholeLane))!
  assert.deepEqual([again.first, again.last, again.before], [2, 6, { high: 1, low: 2 }])
  const gap = decodeItem(again.items[0]!.bytes)
  assert.ok(gap.kind === 'gap' && gap.reason === 'released' && gap.count === 3)
  assert.deepEqual(values(again), [5, 6])
})

test("a stage's state with a flipped byte is left out, whatever it would have said", async () => {
  const store = new MemoryStore()
  const outbox = await openOutbox('', { store })
  const state = ['whole', 'flipped'].map((key) => {
    return { space: 'filter' as const, key, value: Buffer.from('{"device":"d4"}') }
  })
  await outbox.commit(groupOf([], { state }))
  const key = stateKey('filter', 'flipped')
  const value = Buffer.from((await store.get(key))!)
  value[value.indexOf('d4')]! ^= 0x20
  await store.write([{ key, value }])
  const kept = await Array.fromAsync((await openOutbox('', { store })).read('filter'))
  assert.deepEqual(
    kept.map(({ key, value }) => [key, Buffer.from(value).toString()]),
    [['whole', '{"device":"d4"}']],
  )
})

test('where the collector has forgotten something, all that was delivered is offered again', async (t) => {
  const directory = await temporaryDirectory(t)
  await startOften(directory, 4)
  await using outbox = await openOutbox(directory)
  const cut = (await outbox.cut('bulk', wholeLane))!
  const incarnation = cut.incarnation.predecessor!.id
  assert.equal(await outbox.declareReleased(cut, { incarnation, held: 0, chain: chainStart }), 1)
  // As gaps: what is held after all is a repeat.
  const kinds = {
    bulk: ['gap', 'gap', 'gap', 'readings'],
    quarantine: ['gap', 'gap', 'gap', 'gap'],
  }
  for (const [lane, expected] of Object.entries(kinds)) {
    const offered: string[] = []
    for (;;) {
      const next = await outbox.cut(lane as Lane, wholeLane)
      if (!next) break
      offered.push(decodeItem(next.items[0]!.bytes).kind)
      assert.deepEqual([next.incarnation.ordinal, next.first, next.last], [offered.length, 1, 1])
      await outbox.release(next)
    }
    assert.deepEqual(offered, expected)
  }
  await outbox.close()
  await using again = await openOutbox(directory)
  assert.deepEqual(again.damage, [])
  assert.equal(again.ledger.buffered, 0)
})

test('what the collector asks for of a forgotten incarnation is declared too', async (t) => {
  const directory = await temporaryDirectory(t)
  await startOften(directory, 67) // 64 are remembered.
  await using outbox = await openOutbox(directory)
  const asked: number[] = []
  for (let depth = 0; depth < 2; depth++) {
    const cut = (await outbox.cut('bulk', wholeLane))!
    const incarnation = cut.incarnation.predecessor!.id
    asked.push(await outbox.declareReleased(cut, { incarnation, held: 0, chain: chainStart }))
  }
  assert.deepEqual(asked, [1, 1])
  const oldest = (await outbox.cut('bulk', wholeLane))!
  assert.equal(oldest.incarnation.predecessor, undefined)
  await outbox.close()
  await using again = await openOutbox(directory)
  assert.deepEqual(again.damage, [])
})

/** Each start numbers under a new incarnation; all is delivered but the last reading. */
async function startOften(directory: string, times: number): Promise<void> {
  for (let value = 1; value <= times; value++) {
    await using outbox = await openOutbox(directory)
    await outbox.commit(groupOf(readings(1, value), { rejects: [reject] }))
    await outbox.release((await outbox.cut('quarantine', wholeLane))!)
    if (value < times) await outbox.release((await outbox.cut('bulk', wholeLane))!)
  }
}

test('a renumbering that a crash ends goes on at the next start, and leaves no hole', async () => {
  const store = new MemoryStore()
  const before = await openOutbox('', { store })
  for (const value of [1, 2, 3]) await before.commit(groupOf(readings(1, value)))
  const forked = (await before.cut('bulk', wholeLane))!
  let writes = 0
  const write = store.write.bind(store)
  store.write = async (changes) => {
    if (++writes === 3) throw new Error('power cut')
    await write(changes)
  }
  await assert.rejects(before.renumber(forked.incarnation.ordinal), OutboxFailure)
  store.write = write
  const after = await openOutbox('', { store })
  assert.deepEqual(after.damage, [])
  const moved: unknown[] = []
  for (let cut = await after.cut('bulk', wholeLane); cut; ) {
    assert.notDeepEqual(cut.incarnation.id, forked.incarnation.id)
    moved.push(...values(cut))
    await after.release(cut)
    cut = await after.cut('bulk', wholeLane)
  }
  assert.deepEqual(moved, [1, 2, 3])
})

test('a fork moves what is not delivered to a new incarnation, whole and in order', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  await outbox.commit(groupOf(readings(3)))
  await outbox.release((await outbox.cut('bulk', { ...wholeLane, maxCount: 1 }))!)
  await outbox.commit(groupOf(readings(3, 4)))
  const forked = (await outbox.cut('bulk', wholeLane))!
  await outbox.renumber(forked.incarnation.ordinal)
  const moved = (await outbox.cut('bulk', wholeLane))!
  assert.notDeepEqual(moved.incarnation.id, forked.incarnation.id)
  assert.deepEqual([moved.first, moved.last], [1, 5])
  assert.deepEqual(values(moved), [2, 3, 4, 5, 6])
  assert.equal(moved.incarnation.predecessor?.last.bulk, 1)
  await outbox.commit(groupOf(readings(1, 7)))
  await outbox.release((await outbox.cut('bulk', wholeLane))!)
  assert.equal(imbalance(outbox.ledger), 0)
  assert.equal(outbox.ledger.buffered, 0)
})

test('a store of another agent or of a newer version is refused in one line', async (t) => {
  const directory = await temporaryDirectory(t)
  await (await openOutbox(directory)).close()
  const store = await openLevel(directory)
  t.after(() => store.close())
  const other = Outbox.open({
    store,
    clock: new ManualClock(),
    random: systemRandom,
    agent: 'gw-002',
    boot: new Uint8Array(16),
    config: outboxSchema.parse({}),
  })
  await assert.rejects(other, UserError)
})

test('a second process on the same folder is told who holds it', async (t) => {
  const directory = await temporaryDirectory(t)
  await using _held = await openOutbox(directory)
  await assert.rejects(openLevel(directory), /another running agent holds it/)
})

test('values of every kind survive', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t))
  const given: Value[] = [
    21.5,
    -0,
    2n ** 63n,
    -(2n ** 63n),
    true,
    'open',
    null,
    1e-7,
    9007199254740991,
  ]
  await outbox.commit(groupOf(given.map((value) => reading({ value }))))
  assert.deepEqual(values(await outbox.cut('bulk', wholeLane)), given)
})

test('lanes that block let nothing go: the outbox says that it is full until something is delivered', async (t) => {
  const whenFull = { urgent: 'block', bulk: 'block', quarantine: 'block' } as const
  const config = { maxBytes: 1500, whenFull }
  await using outbox = await openOutbox(await temporaryDirectory(t), { config })
  let number = 0
  while (!outbox.full) await outbox.commit(groupOf(readings(20, 1 + 20 * number++)))
  assert.equal(outbox.ledger.evicted, 0)
  const room = outbox.room(new AbortController().signal)
  let has = false
  void room.then(() => {
    has = true
  })
  await new Promise(setImmediate)
  assert.equal(has, false)
  await outbox.release((await outbox.cut('bulk', { ...wholeLane, maxCount: 100 }))!)
  await room
  assert.equal(outbox.full, false)
})

test('what is older than its expiry is dropped, and a gap says which', async (t) => {
  const clock = new ManualClock()
  const config = { expiry: 3_600_000 }
  await using outbox = await openOutbox(await temporaryDirectory(t), { clock, config })
  await outbox.commit(groupOf(readings(5)))
  await clock.advance(1_800_000)
  await outbox.commit(groupOf(readings(5, 6)))
  await clock.advance(1_900_000)
  await outbox.expire()
  assert.deepEqual({ ...outbox.ledger }, { ...outbox.ledger, evicted: 5, buffered: 5 })
  const cut = (await outbox.cut('bulk', wholeLane))!
  const gap = decodeItem(cut.items[0]!.bytes)
  assert.ok(gap.kind === 'gap' && gap.reason === 'expired' && gap.count === 5)
  assert.deepEqual(values(cut), [6, 7, 8, 9, 10])
  assert.equal(imbalance(outbox.ledger), 0)
})

test('whoever leans on an evicted reading is told, and what it decides joins that write', async (t) => {
  const directory = await temporaryDirectory(t)
  const outbox = await openOutbox(directory, { config: { maxBytes: 1500 } })
  const told = new Set<string>()
  outbox.whenLost((series) => {
    for (const { device } of series) told.add(device)
    return {
      ...passingFilter.judge([]),
      suppressed: 1,
      held: -1,
      state: [{ space: 'filter', key: 'reset', value: new Uint8Array([1]) }],
    }
  })
  const held = {
    received: 100,
    receivedQos0: 0,
    suppressed: 0,
    absorbed: 0,
    deduplicated: 0,
    held: 100,
  }
  await outbox.commit(groupOf([], { counts: held }))
  for (let i = 0; i < 40; i++) await outbox.commit(groupOf(readings(20, 1 + i * 20, `pump-${i}`)))
  assert.ok(told.has('pump-0') && !told.has('pump-39'))
  assert.ok(outbox.ledger.evicted > 0 && outbox.ledger.suppressed > 0)
  assert.equal(imbalance(outbox.ledger), 0)
  await outbox.close()
  await using after = await openOutbox(directory)
  assert.equal((await Array.fromAsync(after.read('filter'))).length, 1)
  assert.equal(imbalance(after.ledger), 0)
})
