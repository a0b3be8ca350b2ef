import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  batchReadings,
  chainItem,
  decodeBatch,
  decodeItem,
  encodeBatch,
  encodeItem,
  type Item,
  inspectBatch,
  itemCount,
  itemSummary,
  mergeItems,
  readingsOf,
  WireFailure,
} from '../../shared/batch.ts'
import { type Chain, chainStart } from '../../shared/chain.ts'
import { type AdmittedReading, SeriesTable, type Value } from '../../shared/reading.ts'
import { reading } from '../support/readings.ts'
import { BatchGenerator, edgeValues } from './batch-generator.ts'

const seeds = Array.from({ length: 400 }, (_, seed) => seed)

test('an item comes back as it went in, whatever is in it', () => {
  for (const seed of seeds) {
    const generator = new BatchGenerator(seed)
    const item = generator.item()
    const bytes = encodeItem(item)
    const decoded = decodeItem(bytes, generator.table)
    assert.deepEqual(decoded, item, `seed ${seed}`)
    assert.deepEqual(encodeItem(decoded), bytes, `seed ${seed}: encoded anew`)
  }
})

test('every value comes back, alone and among all others, and keeps its type', () => {
  const roundTrip = (values: readonly Value[]) => {
    const item = decodeItem(encodeItem(itemOf(values.map((value) => reading({ value })))))
    return item.kind === 'readings' && item.readings.map(({ value }) => value)
  }
  for (const value of edgeValues) assert.deepEqual(roundTrip([value]), [value])
  assert.deepEqual(roundTrip(edgeValues), edgeValues)
  for (const a of edgeValues)
    for (const b of edgeValues) assert.deepEqual(roundTrip([a, b, b, a]), [a, b, b, a])
})

test('decimals compare equal to what was sent, to the last bit', () => {
  const texts = [
    '21.50',
    '-0.07',
    '1e-7',
    '123456.789012',
    '0.1',
    '1013.25',
    '99.99999999',
    '4.35e2',
  ]
  const values = texts.map(Number)
  // One unit in the last place from numbers whose bits end in 32 zeros: the nudge borrows and carries.
  const edges = [
    21.5, 0.9999999999999999, 1.0000000000000002, -0.9999999999999999, 1023.9999999999999,
  ]
  const computed = Array.from({ length: 3000 }, (_, i) => (i - 1500) * 0.1)
  for (const list of [values, edges, computed]) {
    const item = decodeItem(encodeItem(itemOf(list.map((value) => reading({ value })))))
    assert.ok(item.kind === 'readings')
    assert.deepEqual(
      item.readings.map(({ value }) => value),
      list,
    )
  }
})

test('a counter beyond 2^53 costs a byte or two a reading and loses nothing', () => {
  const values = Array.from({ length: 1000 }, (_, i) => 2n ** 63n + BigInt(i * 37))
  const bytes = encodeItem(itemOf(values.map((value) => reading({ value }))))
  const item = decodeItem(bytes)
  assert.ok(item.kind === 'readings')
  assert.deepEqual(
    item.readings.map(({ value }) => value),
    values,
  )
  assert.ok(bytes.length < 1200, `${bytes.length} bytes`)
})

test('times keep their nanoseconds, and qualities and arrivals their readings', () => {
  const table = new SeriesTable()
  const readings = Array.from(
    { length: 5 },
    (_, i): AdmittedReading => ({
      series: table.intern('a', 'b'),
      timeMs: 1_767_225_600_000 - i * 86_400_000,
      timeNanos: 999_999 - i,
      value: i,
      quality: i % 2,
      arrival: { wallMs: 1_767_225_600_000 + i, monotonicMs: 86_400_000.001 + i * 1000 },
    }),
  )
  assert.deepEqual(decodeItem(encodeItem(itemOf(readings)), table), itemOf(readings))
})

test('a text that is no Unicode becomes one, and so does its part of the running hash', () => {
  const item = itemOf([reading({ value: 'broken \ud800 pair' })])
  const decoded = decodeItem(encodeItem(item))
  assert.ok(decoded.kind === 'readings')
  assert.equal(decoded.readings[0]!.value, 'broken \ufffd pair')
  assert.deepEqual(chainItem(decoded, chainStart), chainItem(item, chainStart))
})

test('joining items keeps every reading and record in order, and gaps where they were', () => {
  for (const seed of seeds.slice(0, 150)) {
    const generator = new BatchGenerator(seed)
    const items = Array.from({ length: 12 }, () => generator.item())
    const merged = mergeItems(items.map(encodeItem)).map((bytes) =>
      decodeItem(bytes, generator.table),
    )
    assert.deepEqual(flat(merged, withoutArrival), flat(items, withoutArrival), `seed ${seed}`)
    for (let i = 1; i < merged.length; i++)
      assert.ok(merged[i]!.kind === 'gap' || merged[i]!.kind !== merged[i - 1]!.kind)
    const arrivals = flat(items, arrivalOf)
    flat(merged, arrivalOf).forEach((arrival, i) => {
      assert.ok(
        arrivals[i]!.wallMs - arrival.wallMs >= 0 && arrivals[i]!.wallMs - arrival.wallMs < 100,
      )
      const monotonic = arrivals[i]!.monotonicMs - arrival.monotonicMs
      assert.ok(monotonic >= -2 && monotonic <= 102, `moved by ${monotonic} ms`)
    })
  }
})

test('arrivals of joined items take little room: ten a second, whatever arrived', () => {
  const items = Array.from({ length: 1000 }, (_, i) =>
    encodeItem(
      itemOf([
        {
          ...reading(),
          arrival: { wallMs: 1_767_225_600_000 + i * 7, monotonicMs: 0.123 + i * 7 },
        },
      ]),
    ),
  )
  const [merged] = mergeItems(items).map((bytes) => decodeItem(bytes))
  assert.ok(merged?.kind === 'readings')
  assert.equal(new Set(merged.readings.map(({ arrival }) => arrival)).size, 70)
})

test('an item that has no neighbour of its kind is passed on untouched', () => {
  const generator = new BatchGenerator(7)
  const items = [generator.readings(), generator.gap(), generator.records()].map(encodeItem)
  assert.deepEqual(mergeItems(items), items)
})

test('joined items are no larger than an item may be', () => {
  const items = Array.from({ length: 3 }, (_, i) =>
    encodeItem(itemOf(Array.from({ length: 20_000 }, () => reading({ value: i })))),
  )
  assert.deepEqual(
    mergeItems(items).map((bytes) => itemSummary(bytes).count),
    [40_000, 20_000],
  )
})

test('the running hash does not depend on how the lane is cut', () => {
  for (const seed of seeds.slice(0, 100)) {
    const generator = new BatchGenerator(seed)
    const items = Array.from({ length: 6 }, () => generator.item())
    const whole = chainOf(items)
    const encoded = items.map(encodeItem)
    assert.deepEqual(chainOf(mergeItems(encoded).map((bytes) => decodeItem(bytes))), whole)
    assert.deepEqual(chainOf(items.flatMap(single)), whole)
  }
})

test('the running hash tells histories apart that differ in one reading', () => {
  const base = reading()
  const others: AdmittedReading[] = [
    reading({ value: 21.6 }),
    reading({ value: '21.5' }),
    reading({ value: null }),
    reading({ quality: 1 }),
    reading({ timeMs: base.timeMs + 1 }),
    { ...base, timeNanos: 1 },
    reading({ metric: 'pressure' }),
  ]
  const hashes = [base, ...others].map((one) => JSON.stringify(chainOf([itemOf([one])])))
  assert.equal(new Set(hashes).size, hashes.length)
})

test('a batch carries its header and its items, and inspection agrees with decoding', () => {
  for (const seed of seeds) {
    const generator = new BatchGenerator(seed)
    const items = Array.from({ length: 1 + generator.seeded.below(4) }, () => generator.item())
    const header = generator.header(items.reduce((count, item) => count + itemCount(item), 0))
    const encoded = items.map(encodeItem)
    const bytes = Buffer.concat(encodeBatch(header, encoded))
    assert.deepEqual(decodeBatch(bytes, generator.table), { header, items }, `seed ${seed}`)

    const inspected = inspectBatch(bytes)
    assert.deepEqual(inspected.header, header)
    assert.deepEqual(inspected.items, encoded.map(itemSummary))
    assert.deepEqual(
      inspected.items.map(({ kind, count }) => ({ kind, count })),
      items.map((item) => ({ kind: item.kind, count: itemCount(item) })),
    )
    inspected.items.forEach((summary, i) => {
      const item = items[i]!
      if (item.kind !== 'readings') return
      const times = item.readings.map(({ timeMs }) => timeMs)
      assert.equal(summary.fromMs, Math.min(...times))
      assert.equal(summary.toMs, Math.max(...times))
    })
  }
})

test('the readings of a batch come with the sequences that the header gives them', () => {
  const generator = new BatchGenerator(3)
  const thinned = generator.thinned()
  assert.ok(thinned.kind === 'gap' && thinned.kept)
  const items = [generator.readings(5), thinned, generator.records(), generator.readings(4)]
  const header = generator.header(items.reduce((count, item) => count + itemCount(item), 0))
  const bytes = Buffer.concat(encodeBatch(header, items.map(encodeItem)))
  const numbered = [...batchReadings(bytes, generator.table)]
  const { first, last } = header
  assert.deepEqual(
    numbered.map(({ sequence }) => sequence),
    [
      ...[0, 1, 2, 3, 4].map((i) => first + i),
      ...thinned.kept.places.map((place) => first + 5 + place),
      ...[3, 2, 1, 0].map((i) => last - i),
    ],
  )
  assert.deepEqual(
    numbered.map(({ sequence: _, ...rest }) => rest),
    items.flatMap(readingsOf),
  )
})

test('readings that are kept in a gap stand in their places, within it', () => {
  const thinned = new BatchGenerator(3).thinned()
  assert.ok(thinned.kind === 'gap' && thinned.kept)
  const { places, readings } = thinned.kept
  for (const kept of [
    { places: places.slice(1), readings },
    { places: [...places.slice(0, -1), thinned.count], readings },
    { places: places.toReversed(), readings },
    { places: [], readings: [] },
  ])
    assert.throws(() => encodeItem({ ...thinned, kept }), RangeError)
  assert.throws(() => encodeItem({ ...thinned, reason: 'evicted' }), RangeError)
})

test('a batch of a later version is refused as such', () => {
  const generator = new BatchGenerator(1)
  const item = generator.readings()
  const bytes = Buffer.concat(encodeBatch(generator.header(itemCount(item)), [encodeItem(item)]))
  bytes[1] = 2
  assert.throws(() => inspectBatch(bytes), isFailure('WIRE_VERSION'))
  assert.throws(() => decodeBatch(bytes), isFailure('WIRE_VERSION'))
})

test('what could not be read back is not written', () => {
  const one = reading()
  assert.throws(() => encodeItem(itemOf([])), RangeError)
  assert.throws(() => encodeItem(itemOf(Array(50_001).fill(one))), RangeError)
  assert.throws(() => encodeItem(itemOf([{ ...one, timeMs: 2 ** 49 }])), RangeError)
  assert.throws(() => encodeItem(itemOf([{ ...one, timeMs: Number.NaN }])), RangeError)
  assert.throws(() => encodeItem(itemOf([reading({ value: 'x'.repeat(65_537) })])), RangeError)
  assert.throws(() => encodeItem(itemOf([reading({ value: 2n ** 64n })])), RangeError)
  assert.throws(() => encodeItem(itemOf([reading({ value: -(2n ** 63n) - 1n })])), RangeError)
  const deep = Array.from({ length: 9 }).reduce<object>((inner) => ({ inner }), {})
  const content = deep as { [key: string]: never }
  assert.throws(
    () => encodeItem({ kind: 'records', records: [{ type: 'alert', content }] }),
    RangeError,
  )
})

test('an item of 15,000 readings without anything in common is read back', () => {
  const table = new SeriesTable()
  const readings = Array.from(
    { length: 15_000 },
    (_, i): AdmittedReading => ({
      series: table.intern(`device-${i}`, `metric-${i}`, {
        unit: `u${i}`,
        labels: { site: `s${i}` },
      }),
      timeMs: (i * 7919) % 1_000_003,
      timeNanos: i,
      value: i % 2 === 0 ? `text ${i}` : 2n ** 60n + BigInt(i) ** 3n,
      quality: i,
      arrival: { wallMs: i * 1000, monotonicMs: i },
    }),
  )
  const item = decodeItem(encodeItem(itemOf(readings)))
  assert.ok(item.kind === 'readings')
  assert.deepEqual(item.readings[14_999], readings[14_999])
})

test('items that would be too much for one stay as they are', () => {
  const table = new SeriesTable()
  const labels = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`l${i}`, '']))
  const items = Array.from({ length: 2 }, (_, k) =>
    encodeItem(
      itemOf(
        Array.from(
          { length: 600 },
          (_, i): AdmittedReading => ({
            series: table.intern(`device-${k}-${i}`, 'm', { labels }),
            timeMs: 0,
            timeNanos: 0,
            value: i,
            quality: 0,
            arrival: { wallMs: 0, monotonicMs: 0 },
          }),
        ),
      ),
    ),
  )
  assert.deepEqual(mergeItems(items), items)
})

function itemOf(readings: AdmittedReading[]): Item {
  return { kind: 'readings', readings }
}

function isFailure(code: string) {
  return (error: unknown) => error instanceof WireFailure && error.code === code
}

type Part = AdmittedReading | Item

/** Readings and records one by one, gaps as they are. */
function flat<Result = unknown>(
  items: readonly Item[],
  map: (part: never) => Result = (part) => part as Result,
): Result[] {
  return items
    .flatMap((item): unknown[] =>
      item.kind === 'readings' ? item.readings : item.kind === 'records' ? item.records : [item],
    )
    .map((part) => map(part as never))
}

function withoutArrival(part: Part): unknown {
  return 'series' in part && 'value' in part ? { ...part, arrival: undefined } : part
}

function arrivalOf(part: Part): { wallMs: number; monotonicMs: number } {
  return 'arrival' in part ? part.arrival : { wallMs: 0, monotonicMs: 0 }
}

function chainOf(items: readonly Item[]): Chain {
  return items.reduce((chain, item) => chainItem(item, chain), chainStart)
}

/** The item cut into items of one reading or record. */
function single(item: Item): Item[] {
  if (item.kind === 'readings') return item.readings.map((one) => itemOf([one]))
  if (item.kind === 'records')
    return item.records.map((record) => ({ kind: 'records', records: [record] }))
  return [item]
}
