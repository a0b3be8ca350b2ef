import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { ByteWriter } from '../../shared/batch/bytes.ts'
import { CborWriter } from '../../shared/batch/cbor-writer.ts'
import {
  checkCbor,
  compress,
  decodeBatch,
  encodeBatch,
  encodeItem,
  encodings,
  type Item,
  inflate,
  inspectBatch,
  itemCount,
  outlineBatch,
  WireFailure,
  type WireFailureCode,
} from '../../shared/batch.ts'
import { reading } from '../support/readings.ts'
import { Seeded } from '../support/seeded.ts'
import { BatchGenerator } from './batch-generator.ts'

const body = 8 * 2 ** 20

test('a batch cut anywhere is refused', () => {
  const bytes = sampleBatch(1)
  for (let length = 0; length < bytes.length; length++) refused(bytes.subarray(0, length))
})

test('a batch with any bit flipped is refused, or is another valid batch', () => {
  const slowest = { ms: 0, bit: 0 }
  const bytes = sampleBatch(2)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const mask = 1 << (bit & 7)
    bytes[bit >> 3]! ^= mask
    const started = process.cpuUsage()
    agree(bytes)
    const ms = cpuMs(started)
    if (ms > slowest.ms) Object.assign(slowest, { ms, bit })
    bytes[bit >> 3]! ^= mask
  }
  assert.ok(slowest.ms < 1000, `${slowest.ms} ms with bit ${slowest.bit} flipped`)
})

test('a batch with bytes replaced, removed, doubled or inserted is refused or valid', () => {
  const seeded = new Seeded(42)
  const samples = [3, 4, 5, 6].map(sampleBatch)
  for (let round = 0; round < 5000; round++) {
    const bytes = [...seeded.pick(samples)]
    for (let change = seeded.below(4); change >= 0; change--) {
      const at = seeded.below(bytes.length)
      const length = seeded.below(9)
      const action = seeded.below(4)
      if (action === 0) bytes[at] = seeded.pick([0, 0x1b, 0x5b, 0x7b, 0x9b, 0xbb, 0xff, 0x80])
      else if (action === 1) bytes.splice(at, length)
      else if (action === 2) bytes.splice(at, 0, ...bytes.slice(at, at + length))
      else bytes.splice(at, 0, ...Array.from({ length }, () => seeded.below(256)))
    }
    agree(Uint8Array.from(bytes))
  }
})

const malformed: Record<string, string | Uint8Array> = {
  nothing: '',
  'two items': '00 00',
  'a bignum': 'c2 41 ff',
  'a bignum of 120 kB': concat('c2 5a 0001d4c0', new Uint8Array(120_000).fill(255)),
  'a date': 'c1 00',
  'a record definition of cbor-x': 'd9dfff 83 81 6161 199000 01',
  'a regular expression of cbor-x': 'd81b 82 66526567457870 82 65 28612b2b29 60',
  'a shared reference': 'd81c 81 d81d 00',
  'arrays nested 17 deep': concat(new Uint8Array(17).fill(0x81), '00'),
  'arrays nested a million deep': concat(new Uint8Array(1e6).fill(0x81), '00'),
  'maps nested a million deep': concat(
    new Uint8Array(2e6).map((_, i) => (i & 1 ? 0 : 0xa1)),
    '00',
  ),
  'an array of 2^32 − 1': '9a ffffffff',
  'an array of 2^53': '9b 0020000000000000 00',
  'an array of 2^64 − 1': '9b ffffffffffffffff 00',
  'a map of 2^31': 'ba 80000000 00',
  'bytes of 2^32 − 1': '5a ffffffff 00',
  'a text of 2^63': '7b 8000000000000000 00',
  'an array one short': '83 00 00',
  'an array without end': '9f 00 ff',
  'bytes without end': '5f 41 00 ff',
  'a text without end': '7f 61 61 ff',
  'a map without end': 'bf 00 00 ff',
  'a break': 'ff',
  'a reserved length': '1c',
  'a reserved simple value': 'f0',
  'a simple value in two bytes': 'f8 18',
  undefined: 'f7',
  'a text that is not UTF-8': '62 c328',
  'a text with an overlong slash': '62 c0af',
  'a text with half a pair': '63 eda080',
  'a key twice': 'a2 6161 01 6161 02',
  'a key twice, in two lengths': 'a2 6161 01 780161 02',
  'a number as a key twice': 'a2 01 01 1801 02',
  'a key that is an array': 'a1 80 00',
  'a key that is a float': 'a1 f93c00 00',
  'a key that is a large number': 'a1 190100 00',
  'an integer below −2^63': '3b 8000000000000000',
  'a text of 64 KiB and one': concat('7a 00010001', new Uint8Array(65_537).fill(97)),
}

for (const [name, input] of Object.entries(malformed))
  test(`the profile refuses ${name}, fast`, () => {
    const bytes = typeof input === 'string' ? hex(input) : input
    const started = process.cpuUsage()
    assert.throws(() => checkCbor(bytes), isFailure('WIRE_MALFORMED'))
    // Where a batch may have anything, in the content of an alert, the same is refused.
    assert.throws(() => inspectBatch(alertWith(bytes)), isFailure('WIRE_MALFORMED'))
    refused(alertWith(bytes))
    assert.ok(cpuMs(started) < 1000)
  })

test('the profile passes what other encoders write: longer lengths, unsorted keys, any float', () => {
  for (const input of [
    '1b 0000000000000001',
    '3b 7fffffffffffffff',
    '1b ffffffffffffffff',
    '9b 0000000000000001 00',
    'a2 6162 01 6161 02',
    'f9 7e00',
    'fa 7fc00000',
    'fb 7ff8000000000000',
    '69 5f5f70726f746f5f5f',
    '64 f09f8ca1',
  ])
    checkCbor(hex(input))
})

test('a member called __proto__ is a member like any other', () => {
  const content = concat('a1', text('__proto__'), 'a1', text('isAdmin'), 'f5')
  const { items } = decodeBatch(alertWith(content, false))
  const record = items[0]!.kind === 'records' ? items[0]!.records[0]! : undefined
  assert.ok(record?.type === 'alert')
  assert.deepEqual(Object.keys(record.content), ['__proto__'])
  assert.equal('isAdmin' in record.content, false)
  assert.equal('isAdmin' in {}, false)
})

test('more CBOR items than a batch may have are too many', () => {
  const bytes = concat('9a 00100000', new Uint8Array(2 ** 20))
  assert.throws(() => checkCbor(bytes), isFailure('WIRE_TOO_LARGE'))
  checkCbor(bytes, { maxItems: 2 ** 21 })
})

test('many small items that claim many readings each are too many readings', () => {
  const item = encodeItem(itemOf(50_000, null))
  assert.ok(item.length < 100, 'the item is small')
  const items = Array.from({ length: 4000 }, () => item)
  const started = process.cpuUsage()
  refused(batchOf(items, 4000 * 50_000), 'WIRE_TOO_LARGE')
  assert.ok(cpuMs(started) < 1000)
})

test('a batch of as many items as it may have is read in bounded time', () => {
  const item = encodeItem(itemOf(1, 21.5))
  const count = 10_000
  const started = process.cpuUsage()
  inspectBatch(batchOf(Array(count).fill(item), count))
  assert.ok(cpuMs(started) < 2000)

  assert.throws(() => batchOf(Array(count + 1).fill(item), count + 1), RangeError)
  const [head] = encodeBatch(new BatchGenerator(1).header(count + 1), [item])
  const items = concat(head!.subarray(0, -1), '99 2711', ...Array(count + 1).fill(item))
  refused(items, 'WIRE_INVALID')
})

const columns: Record<string, [key: number, column: Uint8Array]> = {
  'an order that claims a run of 2^53 − 1': [5, varints(Number.MAX_SAFE_INTEGER)],
  'an order that names a series beyond the last': [5, varints(0, 7)],
  'a series beyond the sources': [4, varints(2, 0)],
  'a series beyond the channels': [4, varints(0, 1)],
  'more series than readings': [4, varints(0, 0, 0, 0, 0, 0, 0, 0)],
  'steps that leave all time': [10, varints(Number.MAX_SAFE_INTEGER - 1, 0, 0)],
  'a step too many': [10, varints(0, 2000, 2000, 0)],
  'a step too few': [10, varints(0, 2000)],
  'sharing beyond the readings': [9, varints(9, 9)],
  'a varint of 2^53': [14, hex('8080808080808010')],
  'a varint of nine bytes': [14, hex('808080808080808000 02 02')],
  'a varint without end': [14, hex('ffffff')],
  'decimals that add up beyond 2^52': [14, varints(2 ** 52, 2 ** 52, 2 ** 52)],
  'an unknown form': [13, hex('0f')],
  'an exponent of 23': [13, hex('47')],
  'a form too many': [13, hex('3131')],
  'nudges at no decimal': [15, varints(3, 2)],
  'a nudge of 2^31': [15, varints(0, 2 ** 32)],
  'a nudge without its size': [15, varints(0)],
  'half a double': [16, hex('00000000')],
  'a double too many': [16, hex('0000000000000000')],
  'a single too many': [17, hex('00000000')],
  'a quality of 2^31': [20, varints(2 ** 31, 3)],
  'qualities beyond the readings': [20, varints(1, 4)],
  'a run of no qualities': [20, varints(1, 0)],
  'arrivals beyond the readings': [22, varints(4, 0, 0)],
  'arrivals too few': [22, varints(2, 0, 0)],
  'arrivals in the far future': [22, varints(3, 0, 2 ** 52)],
}

for (const [name, [key, column]] of Object.entries(columns))
  test(`a readings item is refused for ${name}`, () => {
    assert.doesNotThrow(() => inspectBatch(threeReadings()), 'the item that is changed is valid')
    const started = process.cpuUsage()
    refused(threeReadings(new Map([[key, column]])), 'WIRE_INVALID')
    assert.ok(cpuMs(started) < 500)
  })

test('a time range that is not that of the readings is refused', () => {
  refused(threeReadings(new Map(), 2001), 'WIRE_INVALID')
  refused(threeReadings(new Map(), 1999), 'WIRE_INVALID')
})

test('a difference of 64-bit integers beyond 2^53 is refused, not rounded', () => {
  const item = (numbers: string) =>
    threeReadings(new Map([[13, hex('05')]]).set(14, hex(`${numbers} 02 02`)))
  assert.doesNotThrow(() => inspectBatch(item('feffffffffffff0f')))
  refused(item('8080808080808010'), 'WIRE_INVALID')
})

test('monotonic times in another unit than milliseconds or microseconds are refused', () => {
  assert.doesNotThrow(() => inspectBatch(threeReadings(new Map([[21, 1000]]))))
  refused(threeReadings(new Map([[21, 7]])), 'WIRE_INVALID')
})

test('sequences that the items do not cover are refused', () => {
  const item = encodeItem(itemOf(3, 1))
  refused(batchOf([item], 4), 'WIRE_INVALID')
  refused(batchOf([item], 2), 'WIRE_INVALID')
})

test('whatever was compressed comes back, in every encoding', () => {
  const chunks = [new Uint8Array([1, 2, 3]), new Uint8Array(100_000), new Uint8Array([4])]
  for (const encoding of encodings) {
    const inflated = inflate(compress(chunks, encoding), encoding, body)
    assert.deepEqual(Buffer.from(inflated), Buffer.concat(chunks))
  }
})

test('a body that would inflate to more than is allowed is stopped there', () => {
  const size = 10 ** 8
  const zeros = new Uint8Array(size)
  const bombs = {
    gzip: gzipSync(zeros, { level: 9 }),
    zstd: zstdCompressSync(zeros),
    identity: zeros,
  }
  for (const encoding of encodings) {
    const started = process.cpuUsage()
    assert.throws(() => inflate(bombs[encoding], encoding, body), isFailure('WIRE_TOO_LARGE'))
    assert.ok(cpuMs(started) < 1000)
    assert.equal(
      inflate(bombs[encoding], encoding, size).length,
      size,
      'one that is allowed is not',
    )
  }
})

test('a zstd frame may not ask for more memory than a body has', () => {
  const wide = zstdCompressSync(new Uint8Array(10 ** 8), {
    params: { [constants.ZSTD_c_windowLog]: 27 },
  })
  assert.throws(() => inflate(wide, 'zstd', 2 ** 30), isFailure('WIRE_COMPRESSION'))
})

test('compressed bytes that are cut or garbage are refused', () => {
  for (const encoding of ['gzip', 'zstd'] as const) {
    const bytes = compress([sampleBatch(1)], encoding)
    for (const bad of [bytes.subarray(0, -5), bytes.subarray(0, 0), bytes.subarray(3)])
      assert.throws(() => inflate(bad, encoding, body), isFailure('WIRE_COMPRESSION'))
  }
})

function sampleBatch(seed: number): Uint8Array {
  const generator = new BatchGenerator(seed)
  const items = [
    generator.readings(40),
    generator.records(),
    generator.gap(),
    generator.readings(9),
  ]
  const header = generator.header(items.reduce((count, item) => count + itemCount(item), 0))
  return Buffer.concat(encodeBatch(header, items.map(encodeItem)))
}

function itemOf(count: number, value: number | null): Item {
  return { kind: 'readings', readings: Array.from({ length: count }, () => reading({ value })) }
}

function batchOf(items: Uint8Array[], count: number): Uint8Array {
  const header = { ...new BatchGenerator(1).header(count), ledger: undefined }
  return Buffer.concat(encodeBatch(header, items))
}

/** A batch with one alert, whose content is a map with this value in it, or is this. */
function alertWith(content: Uint8Array, wrapped = true): Uint8Array {
  const record = concat('82', text('alert'), ...(wrapped ? ['a1', text('a')] : []), content)
  return batchOf([concat('83 01 01 81', record)], 1)
}

/** Three readings of one series a second apart, spelled out, with columns replaced. */
function threeReadings(
  changes = new Map<number, Uint8Array | number>(),
  spanMs = 2000,
): Uint8Array {
  const writer = new CborWriter()
  const columns = new Map<number, Uint8Array | number>([
    [4, varints(0, 0)],
    [5, new Uint8Array()],
    [10, varints(0, 2000, 2000)],
    [13, hex('31')],
    [14, varints(430, 2, 2)],
    [22, varints(3, 0, 0)],
    ...changes,
  ])
  writer.array(3)
  writer.int(0)
  writer.int(3)
  writer.map(4 + columns.size)
  for (const [key, value] of [
    [0, 1_767_225_600_000],
    [1, spanMs],
  ] as const) {
    writer.int(key)
    writer.int(value)
  }
  for (const [key, name] of [
    [2, 'pump-1'],
    [3, 'temperature'],
  ] as const) {
    writer.int(key)
    writer.array(1)
    writer.text(name)
  }
  for (const [key, column] of columns) {
    writer.int(key)
    if (typeof column === 'number') writer.int(column)
    else writer.bytes(column)
  }
  return batchOf([writer.take()], 3)
}

/** All readers refuse it with a coded failure, or none does and they agree. */
function agree(bytes: Uint8Array): void {
  const inspected = outcome(() =>
    inspectBatch(bytes).items.map(({ kind, count }) => ({ kind, count })),
  )
  const decoded = outcome(() =>
    decodeBatch(bytes).items.map((item) => ({ kind: item.kind, count: itemCount(item) })),
  )
  assert.deepEqual(inspected, decoded)
  const outlined = outcome(() => {
    const { header, items, check } = outlineBatch(bytes)
    check?.()
    return { header, items }
  })
  // What is wrong with it may be seen in another order.
  if (typeof inspected === 'string') assert.equal(typeof outlined, 'string')
  else assert.deepEqual(outlined, inspectBatch(bytes))
}

function outcome(read: () => unknown): unknown {
  try {
    return read()
  } catch (error) {
    if (error instanceof WireFailure) return error.code
    throw error
  }
}

function refused(bytes: Uint8Array, code?: WireFailureCode): void {
  for (const read of [inspectBatch, decodeBatch])
    assert.throws(() => read(bytes), code ? isFailure(code) : WireFailure)
}

function isFailure(code: WireFailureCode) {
  return (error: unknown) => {
    assert.ok(error instanceof WireFailure, String(error))
    assert.equal(error.code, code, error.message)
    return true
  }
}

function cpuMs(started: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(started)
  return (user + system) / 1000
}

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'))
}

function text(value: string): Uint8Array {
  const writer = new CborWriter()
  writer.text(value)
  return writer.take()
}

function varints(...values: number[]): Uint8Array {
  const writer = new ByteWriter()
  for (const value of values) writer.varint(value)
  return writer.take()
}

function concat(...parts: (string | Uint8Array)[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(parts.map((part) => (typeof part === 'string' ? hex(part) : part))),
  )
}
