import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LongNumber, parseExact } from '../../agent/decode/json-exact.ts'
import { Seeded } from '../support/seeded.ts'

/** A random document as text, with numbers of any length. */
function document(random: Seeded, depth = 0): string {
  const space = random.chance(0.2) ? random.pick([' ', '\n', '\t\r']) : ''
  const items = (make: () => string) =>
    Array.from({ length: random.below(4) }, () => space + make()).join(`${space},`)
  const kind = random.below(depth > 4 ? 6 : 9)
  if (kind < 3) {
    const digits = Array.from({ length: 1 + random.below(25) }, () => random.below(10)).join('')
    const fraction = random.chance(0.3) ? `.${digits.slice(0, random.below(20))}7` : ''
    const exponent = random.chance(0.2)
      ? `${random.pick(['e', 'E+', 'e-'])}${random.below(40)}`
      : ''
    return `${random.pick(['', '-'])}1${digits}${fraction}${exponent}`
  }
  if (kind === 3) return random.pick(['true', 'false', 'null', '0', '-0'])
  if (kind < 6) return name(random)
  if (kind === 6) return `[${items(() => document(random, depth + 1))}${space}]`
  return `{${items(() => `${name(random)}${space}:${space}${document(random, depth + 1)}`)}${space}}`
}

function name(random: Seeded): string {
  const parts = [
    'a',
    'b',
    '7',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '\\"',
    'x\\\\',
    '\\u0061',
    'ü',
    '\u2028',
  ]
  return `"${random.chance(0.1) ? '__proto__' : Array.from({ length: random.below(4) }, () => random.pick(parts)).join('')}"`
}

/** As `JSON.parse` gives it; the other's objects have no prototype, so that both are taken apart. */
function plain(node: unknown): unknown {
  if (node instanceof LongNumber) return Number(node.text)
  if (Array.isArray(node)) return node.map(plain)
  if (typeof node !== 'object' || node === null) return node
  return Object.entries(node).map(([key, value]) => [key, plain(value)])
}

test('exact numbers change nothing else about a document', () => {
  let exact = 0
  for (let seed = 1; seed <= 20_000; seed++) {
    const text = document(new Seeded(seed))
    const found = parseExact(text)
    if (JSON.stringify(found)?.includes('"text":')) exact++
    assert.deepEqual(plain(found), plain(JSON.parse(text)), `seed ${seed}: ${text}`)
  }
  assert.ok(exact > 2_000, `only ${exact} documents had exact numbers`)
})

test('a publisher cannot change the names in what others send', () => {
  // Without care, V8 then reads the second name of the other document as `\\`.
  parseExact('{"h":1,"\\\\":1}')
  assert.deepEqual(Object.keys(parseExact('{"h":0,"\\u0062":1}') as object), ['h', 'b'])
})
