import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LongNumber, parseExact } from '../../agent/decode/json-exact.ts'
import { FastReader } from '../../agent/decode/json-fast.ts'
import { isContainer, toValue } from '../../agent/decode/json-value.ts'
import { follow, parsePointer } from '../../agent/decode/pointer.ts'
import { readTime, type TimeUnit, timeUnits } from '../../agent/decode/time.ts'
import { Seeded } from '../support/seeded.ts'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const value = parsePointer('/v')
const time = parsePointer('/t')

/** The long way round, or undefined where it refuses. */
function slowly(payload: Uint8Array): { value: unknown; time: unknown } | undefined {
  try {
    const document = parseExact(decoder.decode(payload))
    if (!isContainer(document)) return { value: document, time: undefined }
    const at = follow(time, document)
    return { value: follow(value, document), time: at instanceof LongNumber ? at.text : at }
  } catch {
    return undefined
  }
}

function instantOf(given: unknown, unit: TimeUnit) {
  const instant = { timeMs: 0, timeNanos: 0 }
  return readTime(given, unit, instant) ? instant : undefined
}

function digits(random: Seeded): string {
  return Array.from({ length: 1 + random.below(random.chance(0.1) ? 25 : 10) }, () =>
    random.below(10),
  ).join('')
}

function number(random: Seeded): string {
  const whole = random.chance(0.2) ? '0' : digits(random).replace(/^0+(?=.)/, '')
  const fraction = random.chance(0.5) ? `.${digits(random)}` : ''
  const exponent = random.chance(0.05) ? `e${random.pick(['', '+', '-'])}${random.below(30)}` : ''
  return `${random.chance(0.2) ? '-' : ''}${whole}${fraction}${exponent}`
}

function scalar(random: Seeded): string {
  return random.pick([
    number(random),
    number(random),
    number(random),
    `${1_763_800_000_000 + random.below(1e9)}`,
    '"2025-11-22T12:00:00.123Z"',
    '"open"',
    '"a\\u0041"',
    '"ü"',
    'true',
    'false',
    'null',
    '[1]',
    '{"v":1}',
  ])
}

function payload(random: Seeded): string {
  const space = () => (random.chance(0.2) ? random.pick([' ', '\n', '\t', '\r ', '']) : '')
  if (random.chance(0.3)) return space() + scalar(random) + space()
  const members = Array.from({ length: random.below(5) }, () => {
    const name = random.pick(['v', 't', 'v', 't', 'id', '', 'vv', '\\u0076', 'ä', '__proto__'])
    return `${space()}"${name}"${space()}:${space()}${scalar(random)}${space()}`
  })
  return `${space()}{${members.join(',')}${space()}}${space()}`
}

/** Breaks a payload in one place, so that what only looks like JSON is tried too. */
function broken(random: Seeded, text: string): string {
  const at = random.below(text.length + 1)
  const inserted = random.pick([
    '',
    ',',
    '"',
    '}',
    '0',
    '-',
    '.',
    'e',
    '\\',
    '\u0000',
    ' ',
    '\ufeff',
  ])
  return text.slice(0, at) + inserted + text.slice(at + random.below(2))
}

test('the fast reader agrees with the exact one on all that it takes', () => {
  const fast = FastReader.for(value, time)!
  let taken = 0
  const runs = 60_000
  for (let seed = 1; seed <= runs; seed++) {
    const random = new Seeded(seed)
    const whole = payload(random)
    const text = random.chance(0.3) ? broken(random, whole) : whole
    const bytes = encoder.encode(text)
    if (!fast.read(bytes)) continue
    taken++
    const expected = slowly(bytes)
    assert.ok(expected, `seed ${seed}: took ${text}, which is no JSON`)
    const wanted = expected.value === undefined ? undefined : toValue(expected.value)
    const same = `seed ${seed}: ${text}: ${String(fast.value)} is not ${String(wanted)}`
    assert.ok(Object.is(fast.value, wanted), same)
    for (const unit of [undefined, ...timeUnits])
      assert.deepEqual(
        instantOf(fast.time, unit),
        instantOf(expected.time, unit),
        `seed ${seed}: ${text} in ${unit}`,
      )
  }
  assert.ok(taken > runs / 3, `it took only ${taken} of ${runs}`)
})

test('the fast reader takes what sensors commonly send', () => {
  const fast = FastReader.for(value, time)!
  for (const [text, expected, at] of [
    ['21.5', 21.5, undefined],
    ['{"t":1763800000123,"v":21.5}', 21.5, 1763800000123],
    ['{"v": -3, "t": "2025-11-22T12:00:00Z", "unit": "Cel"}', -3, '2025-11-22T12:00:00Z'],
    ['{"t":1763800000123456789,"v":142.71428571428572}', 142.71428571428572, '1763800000123456789'],
    ['"open"', 'open', undefined],
    ['{"v":null}', null, undefined],
  ] as const) {
    assert.ok(fast.read(encoder.encode(text)), text)
    assert.equal(fast.value, expected)
    assert.equal(fast.time, at)
  }
})

test('pointers beyond a plain member of the document are left to the exact reader', () => {
  for (const [valueAt, timeAt] of [
    ['/a/v', '/t'],
    ['/v', '/a/t'],
    ['', '/t'],
    ['/v', '/v'],
    ['/ü', '/t'],
    ['/"', '/t'],
  ] as const)
    assert.equal(FastReader.for(parsePointer(valueAt), parsePointer(timeAt)), undefined)
  assert.ok(FastReader.for(parsePointer('/a~1b'), undefined)?.read(encoder.encode('{"a/b":1}')))
})
