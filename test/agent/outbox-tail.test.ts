import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openLevel } from '../../agent/outbox/level.ts'
import type { Outbox, OutboxConfig } from '../../agent/outbox/outbox.ts'
import { readTail, Tail, type TailQuery } from '../../agent/outbox/tail.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { groupOf, openOutbox, wholeLane } from '../support/outbox.ts'
import { reading, readings } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const tail = { bytes: 64 * 1024, age: 3_600_000 }
const minute = 60_000

/** Commits a group of which nothing is admitted: all of it is suppressed. */
async function suppress(outbox: Outbox, received: readonly AdmittedReading[]): Promise<void> {
  const counts = { ...groupOf(received).counts, suppressed: received.length }
  await outbox.commit(groupOf([], { raw: Tail.encode(received), counts }))
}

async function inTail(outbox: Outbox, query?: TailQuery): Promise<AdmittedReading[]> {
  assert.ok(outbox.tail)
  return Array.fromAsync(outbox.tail.read(query))
}

/** Bytes of entries beside the tail's own account of itself. */
async function stored(directory: string): Promise<AdmittedReading[]> {
  const store = await openLevel(directory)
  try {
    return await Array.fromAsync(readTail(store))
  } finally {
    await store.close()
  }
}

test('raw readings stay after delivery and suppression, also over a restart', async (t) => {
  const directory = await temporaryDirectory(t)
  const delivered = readings(3)
  const left = readings(2, 4, 'valve-7')
  {
    await using outbox = await openOutbox(directory, { config: { tail } })
    await outbox.commit(groupOf(delivered, { raw: Tail.encode(delivered) }))
    await outbox.release((await outbox.cut('bulk', wholeLane))!)
    await suppress(outbox, left)
    assert.deepEqual(await inTail(outbox), [...delivered, ...left])
  }
  assert.deepEqual(await stored(directory), [...delivered, ...left], 'without an agent')
  await using outbox = await openOutbox(directory, { config: { tail } })
  assert.deepEqual(await inTail(outbox), [...delivered, ...left])
  assert.equal(outbox.tail!.stock.readings, 5)
})

test('a tail is asked by time, device and metric', async (t) => {
  await using outbox = await openOutbox(await temporaryDirectory(t), { config: { tail } })
  const pump = readings(10)
  const valve = readings(10, 1, 'valve-7')
  for (let i = 0; i < 10; i++) await suppress(outbox, [pump[i]!, valve[i]!])
  const { device } = pump[0]!.series
  assert.deepEqual(await inTail(outbox, { match: { device } }), pump)
  assert.deepEqual(await inTail(outbox, { match: { device: 'v*', metric: '*' } }), valve)
  assert.deepEqual(await inTail(outbox, { match: { metric: 'no such' } }), [])
  const [fromMs, toMs] = [valve[3]!.timeMs, valve[7]!.timeMs]
  const some = await inTail(outbox, { fromMs, toMs, match: { device: 'valve-7' } })
  assert.deepEqual(some, valve.slice(3, 7))
})

test('a tail keeps to its bytes, and loses the oldest', async (t) => {
  const directory = await temporaryDirectory(t)
  const all = Array.from({ length: 400 }, (_, i) => readings(50, 1 + i * 50))
  {
    await using outbox = await openOutbox(directory, { config: { tail } })
    for (const group of all) {
      await suppress(outbox, group)
      assert.ok(outbox.tail!.stock.bytes <= tail.bytes)
    }
    assert.ok(outbox.tail!.stock.bytes > tail.bytes * 0.9)
    const kept = await inTail(outbox)
    assert.deepEqual(kept, all.flat().slice(-kept.length))
    assert.equal(outbox.tail!.stock.readings, kept.length)
  }
  await using outbox = await openOutbox(directory, { config: { tail } })
  assert.equal(outbox.tail!.stock.readings, (await inTail(outbox)).length)
})

test('a tail keeps to its age', async (t) => {
  const clock = new ManualClock()
  const options = { config: { tail }, clock }
  await using outbox = await openOutbox(await temporaryDirectory(t), options)
  for (let i = 0; i < 100; i++) {
    await suppress(outbox, readings(1, i + 1))
    await clock.advance(minute)
  }
  await outbox.expire()
  const kept = await inTail(outbox)
  assert.deepEqual(kept, readings(60, 41))
  await clock.advance(2 * tail.age)
  await outbox.expire()
  assert.deepEqual(await inTail(outbox), [])
  assert.deepEqual(
    { ...outbox.tail!.stock, first: 0, next: 0 },
    {
      first: 0,
      next: 0,
      readings: 0,
      bytes: 0,
      oldestMs: null,
    },
  )
})

test('a tail gives way before a lane does', async (t) => {
  const config: Partial<OutboxConfig> = {
    maxBytes: 100_000,
    tail: { bytes: 80_000, age: tail.age },
  }
  await using outbox = await openOutbox(await temporaryDirectory(t), { config })
  let first = 1
  const text = 'x'.repeat(500)
  const more = () => [reading({ timeMs: first++, value: text })]
  while (outbox.tail!.stock.bytes < 70_000) await suppress(outbox, more())
  while (outbox.bytes < 90_000) {
    const group = more()
    await outbox.commit(groupOf(group, { raw: Tail.encode(group) }))
    assert.ok(outbox.bytes + outbox.tail!.stock.bytes <= config.maxBytes!)
  }
  assert.equal(outbox.totals.gaps, 0, 'no lane has lost anything')
  await outbox.reclaim()
  assert.deepEqual(await inTail(outbox), [], 'and where the disk is full it goes whole')
  assert.equal(outbox.totals.gaps, 0)
})

test('a tail that is no longer configured is deleted', async (t) => {
  const directory = await temporaryDirectory(t)
  {
    await using outbox = await openOutbox(directory, { config: { tail } })
    await suppress(outbox, readings(3))
  }
  {
    await using outbox = await openOutbox(directory)
    assert.equal(outbox.tail, undefined)
  }
  assert.deepEqual(await stored(directory), [])
})
