// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables in YAML are what is tested
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { z } from 'zod'
import {
  ConfigFailure,
  duration,
  filePath,
  loadConfig,
  parseConfig,
  parseDuration,
  parseSize,
  size,
  text,
} from '../../shared/config.ts'
import { UserError } from '../../shared/failure.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const schema = z.strictObject({
  name: z.string(),
  port: z.int().min(1).max(65_535).default(1883),
  loud: z.boolean().default(false),
  wait: duration({ min: '1s', max: '1h' }).prefault('10s'),
  room: size({ min: '1KiB', max: '1GiB' }).prefault('1MiB'),
  tls: z.strictObject({ ca: filePath().optional(), verify: z.boolean() }).optional(),
  files: z.array(filePath()).default([]),
  values: z
    .union([
      z.literal('all'),
      z.array(z.strictObject({ at: z.string() })),
      z.record(z.string(), z.strictObject({ at: z.string(), unit: z.string().optional() })),
    ])
    .optional(),
})

function parse(yaml: string, environment: NodeJS.ProcessEnv = {}) {
  return parseConfig(schema, yaml, { file: '/etc/headgate/agent.yaml', environment })
}

/** `path: message` of everything that is wrong. */
function problems(yaml: string, environment: NodeJS.ProcessEnv = {}): string[] {
  try {
    parse(yaml, environment)
  } catch (error) {
    assert.ok(error instanceof ConfigFailure, String(error))
    return error.problems.map(({ path, message }) => `${path}: ${message}`)
  }
  return []
}

test('a configuration is read with its defaults, and cannot be changed afterwards', () => {
  const config = parse('{ name: a, wait: 1.5s, room: 10MiB, tls: { verify: true } }')
  assert.deepEqual(config, {
    name: 'a',
    port: 1883,
    loud: false,
    wait: 1_500,
    room: 10 * 1024 * 1024,
    tls: { verify: true },
    files: [],
  })
  assert.throws(() => {
    config.tls!.verify = false
  }, TypeError)
})

test('every problem is told at once, with its path and in plain words', () => {
  assert.deepEqual(
    problems(`
      nme: a
      port: 0
      loud: 1
      wait: 10
      room: 1TiB
      tls: { verfy: yes }
      files: x
      values: { a: { at: 5, unti: C } }
    `),
    [
      'name: missing: expected text',
      'port: must be at least 1',
      'loud: expected true or false, not a number',
      'wait: expected a duration such as 250ms, 10s, 5m, 1h, not 10',
      'room: must be between 1KiB and 1GiB',
      'tls.verify: missing: expected true or false',
      'tls.verfy: unknown key: did you mean verify?',
      'files: expected a list, not text',
      'values.a.at: expected text, not a number (put it in quotes)',
      'values.a.unti: unknown key: did you mean unit?',
      'nme: unknown key: did you mean name?',
    ],
  )
  assert.deepEqual(problems('name: a\nport: 1.5\nvalues: 5\ntls:'), [
    'port: expected a whole number',
    'tls: empty: expected a mapping',
    'values: expected all or a list or a mapping, not a number',
  ])
  assert.deepEqual(problems('name: a\nvalues: al\nport: 70000\nentirely: other'), [
    'port: must be at most 65535',
    'values: expected all or a list or a mapping, not text',
    'entirely: unknown key',
  ])
  assert.deepEqual(problems('- a'), [': expected a mapping, not a list'])
  assert.deepEqual(problems(''), [': empty: expected a mapping'])
  assert.deepEqual(problems('__proto__: 1\nname: a'), ['__proto__: unknown key'])
})

test('what is not YAML is told by its place', () => {
  assert.deepEqual(problems('name: a\nname: b'), [': Map keys must be unique at line 2, column 1'])
  assert.match(problems('name: a: b')[0]!, /at line 1, column 7$/)
  assert.match(problems('name: "a')[0]!, /at line 1, column 9$/)
  assert.deepEqual(problems('name: &x a\nvalues: *x'), [': an alias (*name) has no place here'])
  assert.deepEqual(problems('name: a\n---\nname: b'), [': more than one YAML document'])
  assert.ok(problems('['.repeat(100_000)).length <= 2)
})

test('environment variables stand in any string, with a default or without', () => {
  const environment = { NAME: 'gw', EMPTY: '', PORT: '8883', YES: 'true', LONG: '2m' }
  const config = parse(
    `{ name: 'a-\${NAME}-\${EMPTY:-x}-\${NONE:-http://[::1]:1}', port: '\${PORT}',
       loud: '\${YES}', wait: '\${LONG}', tls: { verify: '\${NONE:-false}', ca: '\${NONE:-ca.pem}' } }`,
    environment,
  )
  assert.equal(config.name, 'a-gw-x-http://[::1]:1')
  assert.equal(config.port, 8883)
  assert.equal(config.loud, true)
  assert.equal(config.wait, 120_000)
  assert.deepEqual(config.tls, { verify: false, ca: '/etc/headgate/ca.pem' })
})

test('a variable that reads as a number stays text where text is wanted', () => {
  assert.equal(parse("name: '${NAME}'", { NAME: '007' }).name, '007')
})

test('text in quotes is no number, and a variable that is none is told so', () => {
  assert.deepEqual(problems('{ name: a, port: "1883" }'), ['port: expected a number, not text'])
  assert.deepEqual(problems("{ name: a, port: '${PORT}' }", { PORT: 'x' }), [
    'port: expected a number, not text',
  ])
  assert.deepEqual(problems("{ name: a, port: '${PORT}' }", { PORT: '0' }), [
    'port: must be at least 1',
  ])
})

test('a variable that is not set is a problem, and only one', () => {
  assert.deepEqual(problems("{ name: '${NAME}', port: '${PORT}', files: ['${a.b}'] }"), [
    'name: environment variable NAME is not set (give a default: ${NAME:-…})',
    'port: environment variable PORT is not set (give a default: ${PORT:-…})',
    'files.0: ${a.b} is no variable: write ${NAME} or ${NAME:-default}',
  ])
})

test('a value that may be secret is not repeated', () => {
  const secret = 'hunter2'
  const told = problems(`{ name: [${secret}], port: ${secret}, tls: ${secret}, loud: ${secret} }`)
  assert.equal(told.length, 4)
  assert.ok(!told.join().includes(secret), told.join())
})

test('files are relative to the configuration, wherever in it they stand', () => {
  const config = parse('{ name: a, tls: { verify: true, ca: pki/ca.pem }, files: [x, /y, ../z] }')
  assert.equal(config.tls?.ca, '/etc/headgate/pki/ca.pem')
  assert.deepEqual(config.files, ['/etc/headgate/x', '/y', '/etc/z'])
})

test('a text is checked by a function, and its words are used', () => {
  const short = z.strictObject({
    a: text((given) => (given.length > 3 ? 'is too long' : undefined)),
  })
  assert.deepEqual(parseConfig(short, 'a: abc', { file: 'f' }), { a: 'abc' })
  assert.throws(
    () => parseConfig(short, 'a: abcd', { file: 'f' }),
    /^ConfigFailure: f: a: is too long$/,
  )
})

test('a file that cannot be read is told in one line', async (t) => {
  const directory = await temporaryDirectory(t)
  await mkdir(join(directory, 'folder'))
  await writeFile(join(directory, 'large.yaml'), Buffer.alloc(1024 * 1024 + 1, '#'))
  for (const [name, reason] of [
    ['absent.yaml', 'no such file: check --config'],
    ['folder', 'is a folder, not a file'],
    ['large.yaml', 'larger than 1 MiB'],
  ] as const) {
    const file = join(directory, name)
    await assert.rejects(loadConfig(schema, file), (error: Error) => {
      assert.ok(error instanceof UserError)
      assert.equal(error.message, `${file}: ${reason}`)
      return true
    })
  }
})

test('durations and sizes are numbers with a unit', () => {
  for (const [given, ms] of [
    ['250ms', 250],
    ['1.5s', 1_500],
    [' 5m ', 300_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    ['10', undefined],
    ['-1s', undefined],
    ['1 week', undefined],
  ] as const)
    assert.equal(parseDuration(given), ms, given)
  for (const [given, bytes] of [
    ['10GiB', 10 * 2 ** 30],
    ['64 KiB', 65_536],
    ['1.5MB', 1_500_000],
    ['512', 512],
    ['512B', 512],
    ['10GB', 1e10],
    ['1kb', undefined],
    ['-1', undefined],
  ] as const)
    assert.equal(parseSize(given), bytes, given)
})
