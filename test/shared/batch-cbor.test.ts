import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Decoder, Encoder } from 'cbor-x'
import type { CborValue } from '../../shared/batch/cbor.ts'
import { CborReader } from '../../shared/batch/cbor-reader.ts'
import { CborWriter } from '../../shared/batch/cbor-writer.ts'
import { checkCbor } from '../../shared/batch.ts'
import { Seeded } from '../support/seeded.ts'

test('what is written reads as the same, here and in cbor-x', () => {
  const decoder = new Decoder({ useRecords: false, mapsAsObjects: true })
  const seeded = new Seeded(1)
  for (let round = 0; round < 800; round++) {
    const value = someValue(seeded, 4)
    const bytes = encode(value)
    checkCbor(bytes)
    assert.deepEqual(decode(bytes), value)
    assert.deepEqual(normal(decoder.decode(bytes)), normal(value))
  }
})

test('what cbor-x writes of such values reads as the same', () => {
  const encoder = new Encoder({ useRecords: false, variableMapSize: true })
  const seeded = new Seeded(2)
  for (let round = 0; round < 800; round++) {
    const value = someValue(seeded, 4)
    assert.deepEqual(unsigned(decode(encoder.encode(value))), unsigned(value))
  }
})

/** RFC 8949, appendix A, as far as the profile goes. */
const examples: [CborValue, string][] = [
  [0, '00'],
  [23, '17'],
  [24, '1818'],
  [1000, '1903e8'],
  [1000000, '1a000f4240'],
  [1000000000000, '1b000000e8d4a51000'],
  [2n ** 64n - 1n, '1bffffffffffffffff'],
  [-1, '20'],
  [-1000, '3903e7'],
  [-0, 'f98000'],
  [1.1, 'fb3ff199999999999a'],
  [1.5, 'f93e00'],
  [100000.5, 'fa47c35040'],
  [2 ** -24, 'f90001'],
  [0.00006103515625, 'f90400'],
  [2 ** 128 - 2 ** 104, 'fa7f7fffff'],
  [1e300, 'fb7e37e43c8800759c'],
  [Infinity, 'f97c00'],
  [-Infinity, 'f9fc00'],
  [Number.NaN, 'f97e00'],
  [false, 'f4'],
  [null, 'f6'],
  ['\u6c34', '63e6b0b4'],
  ['\ud800\udd51', '64f0908591'],
  [[1, [2, 3], [4, 5]], '8301820203820405'],
  [{ a: 1, b: [2, 3] }, 'a26161016162820203'],
]

test('the examples of RFC 8949 are written and read as it says', () => {
  for (const [value, expected] of examples) {
    assert.equal(Buffer.from(encode(value)).toString('hex'), expected)
    assert.deepEqual(decode(Buffer.from(expected, 'hex')), value)
  }
})

test('every float that fits into fewer bits is written in them', () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = decode(Uint8Array.of(0xf9, bits >> 8, bits & 0xff)) as number
    const encoded = encode(value)
    assert.ok(Object.is(decode(encoded), value))
    const isInteger = Number.isInteger(value) && !Object.is(value, -0)
    if (!isInteger && !Number.isNaN(value))
      assert.deepEqual(encoded, Uint8Array.of(0xf9, bits >> 8, bits & 0xff))
  }
})

test('keys are sorted as the deterministic encoding wants', () => {
  const encoded = encode({ bb: 1, a: 2, aa: 3, é: 4, '': 5 })
  assert.equal(Buffer.from(encoded).toString('hex'), 'a56005616102626161036262620162c3a904')
})

function someValue(seeded: Seeded, depth: number): CborValue {
  const kind = seeded.below(depth > 0 ? 8 : 6)
  if (kind === 0) return seeded.pick([true, false, null])
  if (kind === 1) return seeded.pick(['', 'text', 'ü', '🌡', 'x'.repeat(300), '__proto__', '17'])
  if (kind === 2) return (seeded.below(2 ** seeded.below(32)) - seeded.below(2 ** 31)) * 2 ** 21
  if (kind === 3) return seeded.pick([0.5, -0, 1e300, 0.1, Math.fround(0.1), 65504.5, 5e-324])
  if (kind === 4) return seeded.pick([2n ** 53n, 2n ** 64n - 1n, -(2n ** 63n), -(2n ** 53n)])
  if (kind === 5) return seeded.below(2 ** seeded.below(17)) - seeded.below(300)
  const size = seeded.below(30)
  if (kind === 6) return Array.from({ length: size }, () => someValue(seeded, depth - 1))
  return Object.fromEntries(
    Array.from({ length: size }, (_, i) => [`key ${i}`, someValue(seeded, depth - 1)]),
  )
}

/** cbor-x gives 64-bit integers as bigint whatever their size. */
function normal(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value
  if (Array.isArray(value)) return value.map(normal)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, normal(member)]))
}

/** cbor-x does not write the sign of −0. */
function unsigned(value: CborValue): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, member) => (typeof member === 'bigint' ? `${member}` : member)),
  )
}

function encode(value: CborValue): Uint8Array {
  const writer = new CborWriter()
  writer.value(value)
  return writer.take()
}

function decode(bytes: Uint8Array): CborValue {
  const reader = new CborReader(bytes)
  const value = reader.value()
  reader.end()
  return value
}
