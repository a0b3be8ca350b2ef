import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Outbox, OutboxConfig } from '../../agent/outbox/outbox.ts'
import { decodeItem, itemCount, readingsOf } from '../../shared/batch.ts'
import { imbalance } from '../../shared/ledger.ts'
import type { Store } from '../../shared/ports.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { MemoryStore } from '../support/memory-store.ts'
import { groupOf, openOutbox, wholeLane } from '../support/outbox.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const full = { maxBytes: 64 * 1024 }
const table = new SeriesTable()
const startMs = 1_767_225_600_000
const devices = 20

/** A smooth signal, a step now and then, a text that hardly changes and noise, each of some devices. */
function plantReadings(count: number, from: number, seeded: Seeded): AdmittedReading[] {
  return Array.from({ length: count }, (_, k): AdmittedReading => {
    const i = from + k
    const device = i % devices
    const round = Math.floor(i / devices)
    const kinds = [
      () => Math.round(2_000 + 500 * Math.sin(round / 50 + device)) / 100,
      () => Math.floor(round / 100 + device) % 5,
      () => (Math.floor(round / 300) % 2 ? 'on' : 'off'),
      () => seeded.below(1_000_000) / 1_000,
    ]
    const kind = device % 20 === 19 ? 3 : device % 3
    return {
      series: table.intern(`d${device}`, 'm', kind === 1 ? { between: 'hold', epsilon: 0.5 } : {}),
      timeMs: startMs + round * 1_000,
      timeNanos: 0,
      value: kinds[kind]!(),
      quality: seeded.chance(0.001) ? 8 : 0,
      arrival: { wallMs: startMs + round * 1_000, monotonicMs: round * 1_000 },
    }
  })
}

async function filled(
  t: TestContext,
  { count = 50_000, config = {} as Partial<OutboxConfig> } = {},
) {
  const directory = await temporaryDirectory(t)
  const seeded = new Seeded(7)
  const outbox = await openOutbox(directory, { config: { ...full, ...config } })
  const sent: AdmittedReading[] = []
  for (let from = 0; from < count; from += 2_000) {
    const readings = plantReadings(2_000, from, seeded)
    sent.push(...readings)
    await outbox.commit(groupOf(readings))
  }
  return { directory, outbox, sent }
}

/** What a collector gets of the bulk lane, by sequence; and every gap's count of what is gone, by reason. */
async function drain(outbox: Outbox, limits = wholeLane) {
  const found = new Map<number, AdmittedReading>()
  const gone: Record<string, number> = {}
  let next = 1
  for (;;) {
    const cut = await outbox.cut('bulk', limits)
    if (!cut) return { found, gone, last: next - 1 }
    assert.equal(cut.first, next)
    let sequence = cut.first
    for (const { bytes } of cut.items) {
      const item = decodeItem(bytes, table)
      const readings = readingsOf(item)
      const places = item.kind === 'gap' ? item.kept?.places : undefined
      for (const [i, reading] of readings.entries())
        found.set(sequence + (places?.[i] ?? i), reading)
      if (item.kind === 'gap')
        gone[item.reason] = (gone[item.reason] ?? 0) + item.count - readings.length
      sequence += itemCount(item)
    }
    assert.equal(sequence, cut.last + 1)
    next = cut.last + 1
    await outbox.release(cut)
  }
}

/** Whether what is gone from `from` on lies where a consumer finds it, by what the readings say of themselves. */
function assertBounded(
  sent: readonly AdmittedReading[],
  found: ReadonlyMap<number, AdmittedReading>,
  from: number,
) {
  const before = new Map<string, AdmittedReading>()
  const pending = new Map<string, AdmittedReading[]>()
  let worst = 0
  for (const [index, truth] of sent.entries()) {
    const { device } = truth.series
    const kept = found.get(index + 1)
    if (!kept) {
      if (index + 1 < from) continue
      const waiting = pending.get(device) ?? []
      waiting.push(truth)
      pending.set(device, waiting)
      continue
    }
    assert.deepEqual(
      [kept.series.device, kept.timeMs, kept.value],
      [device, truth.timeMs, truth.value],
    )
    const start = before.get(device)
    for (const { timeMs, value } of pending.get(device) ?? []) {
      assert.ok(start, 'the first one of a series is kept')
      const { between, epsilon } = start.series
      const share = (timeMs - start.timeMs) / (kept.timeMs - start.timeMs)
      if (between === 'linear') {
        const line = Number(start.value) + share * (Number(kept.value) - Number(start.value))
        assert.ok(Math.abs(line - Number(value)) <= epsilon * (1 + 1e-9), `${line}, not ${value}`)
        worst = Math.max(worst, epsilon)
      } else {
        assert.equal(between, 'hold')
        if (typeof value === 'number') assert.ok(Math.abs(Number(start.value) - value) <= epsilon)
        else assert.equal(start.value, value)
      }
    }
    pending.delete(device)
    before.set(device, kept)
  }
  assert.equal([...pending.values()].flat().length, 0, 'the last one of a series is kept')
  return worst
}

test('a full lane loses resolution within a bound that it names, before it loses anything', async (t) => {
  const { outbox, sent } = await filled(t)
  assert.ok(outbox.bytes <= full.maxBytes)
  const { ledger, totals } = outbox
  assert.equal(imbalance(ledger), 0)
  assert.ok(ledger.evicted > 1_000, `${ledger.evicted}`)
  assert.equal(totals.gaps, ledger.evicted)
  const { found, gone, last } = await drain(outbox)
  await outbox.close()
  assert.equal(last, sent.length)
  assert.deepEqual(gone, { thinned: ledger.evicted })
  assert.equal(found.size, sent.length - ledger.evicted)
  const worst = assertBounded(sent, found, 1)
  t.diagnostic(`${found.size} of ${sent.length} are left, the widest bound is ${worst}`)
})

test('what is thinned stays so over a restart, and arrives in batches of any size', async (t) => {
  const { directory, outbox, sent } = await filled(t, { count: 60_000 })
  const { ledger } = outbox
  await outbox.close()
  await using again = await openOutbox(directory, { config: full })
  assert.deepEqual(again.damage, [])
  assert.deepEqual(again.ledger, ledger)
  const { found } = await drain(again, { maxCount: 777, maxBytes: 256 * 1024 })
  assertBounded(sent, found, 1)
  assert.equal(again.ledger.forwarded, found.size)
  assert.equal(again.ledger.buffered, 0)
  assert.equal(imbalance(again.ledger), 0)
})

test('a lane that is thin throughout loses its oldest', async (t) => {
  const { outbox, sent } = await filled(t, { count: 300_000 })
  const { found, gone } = await drain(outbox)
  const { ledger } = outbox
  await outbox.close()
  assert.ok(gone.evicted! > 0 && gone.thinned! > 0)
  assert.equal(gone.evicted! + gone.thinned!, ledger.evicted)
  const from = Math.min(...found.keys())
  assert.ok(from > 1)
  assertBounded(sent, found, from)
})

test('what may be on its way is not thinned', async (t) => {
  const directory = await temporaryDirectory(t)
  const seeded = new Seeded(7)
  await using outbox = await openOutbox(directory, { config: full })
  await outbox.commit(groupOf(plantReadings(5_000, 0, seeded)))
  const cut = await outbox.cut('bulk', { ...wholeLane, maxCount: 5_000 })
  for (let from = 5_000; outbox.ledger.evicted === 0; from += 5_000)
    await outbox.commit(groupOf(plantReadings(5_000, from, seeded)))
  const same = await outbox.cut('bulk', { ...wholeLane, maxCount: 5_000 })
  assert.deepEqual(same?.items, cut?.items)
})

test('readings without anything to leave out are evicted', async (t) => {
  const directory = await temporaryDirectory(t)
  const seeded = new Seeded(7)
  await using outbox = await openOutbox(directory, { config: full })
  for (let i = 0; outbox.ledger.evicted === 0; i++)
    await outbox.commit(
      groupOf(
        plantReadings(1_000, i * 1_000, seeded).map((reading) => ({
          ...reading,
          series: table.intern('noise', 'm'),
          timeMs: 0,
          value: seeded.below(2 ** 32),
        })),
      ),
    )
  const { gone } = await drain(outbox)
  assert.deepEqual(Object.keys(gone), ['evicted'])
})

test('a write that fails in the middle of thinning, done or not, costs nothing more', async () => {
  for (const applied of [true, false])
    for (const nth of [1, 2, 5]) {
      const content = new MemoryStore()
      let thinnings = 0
      const failing: Store = {
        get: (key) => content.get(key),
        read: (range) => content.read(range),
        async write(changes) {
          // Only where it makes room are entries deleted here: nothing is released.
          const isThinning = changes.some(({ value }) => value === undefined)
          if (isThinning && ++thinnings === nth) {
            if (applied) await content.write(changes)
            throw new Error('EIO')
          }
          await content.write(changes)
        },
        async close() {},
      }
      const seeded = new Seeded(7)
      const before = await openOutbox('', { store: failing, config: full })
      const sent: AdmittedReading[] = []
      for (;;) {
        const readings = plantReadings(2_000, sent.length, seeded)
        sent.push(...readings) // The commit itself is done before room is made.
        const error = await before.commit(groupOf(readings)).catch((error: Error) => error)
        if (error) break
      }
      await before.close()
      await using after = await openOutbox('', { store: content, config: full })
      assert.deepEqual(after.damage, [])
      const { found, gone } = await drain(after)
      assertBounded(sent, found, 1)
      assert.equal(found.size + (gone.thinned ?? 0), sent.length)
      assert.equal(imbalance(after.ledger), 0)
      assert.equal(after.ledger.received, sent.length)
    }
})
