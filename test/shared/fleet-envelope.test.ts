import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  type Configuration,
  type Document,
  type EnvelopeFailureCode,
  maxEnvelopeBytes,
  open,
  sign,
} from '../../shared/fleet/envelope.ts'
import { isMember } from '../../shared/fleet/groups.ts'
import { parseFleetTopic, topicsOf } from '../../shared/fleet/topics.ts'
import { absent } from '../support/needs.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const keys = generateKeyPairSync('ed25519')
const others = generateKeyPairSync('ed25519')

const configuration: Configuration = {
  kind: 'configuration',
  agent: 'gw-001',
  version: 7,
  notBeforeMs: 1_790_000_000_000,
  expiresMs: 1_790_086_400_000,
  document: { decode: [{ topic: 'plant/{device}/{metric}' }], uplink: { url: 'https://c:7443' } },
}

function refuses(code: EnvelopeFailureCode, bytes: Uint8Array, key = keys.publicKey): void {
  assert.throws(() => open('configuration', bytes, key), { code })
}

test('what was signed is what is opened', () => {
  assert.deepEqual(
    open('configuration', sign(configuration, keys.privateKey), keys.publicKey),
    configuration,
  )
  const { agent: _, ...rest } = configuration
  const forGroup = { ...rest, group: 'site=berlin,line=3' }
  assert.deepEqual(open('configuration', sign(forGroup, keys.privateKey), keys.publicKey), forGroup)
  const command = {
    kind: 'command',
    agent: 'gw-001',
    id: 'c-1',
    command: 'flush',
    arguments: {},
    expiresMs: 1_790_086_400_000,
  } as const
  assert.deepEqual(open('command', sign(command, keys.privateKey), keys.publicKey), command)
})

test('with any one bit flipped nothing is opened', () => {
  const bytes = sign(configuration, keys.privateKey)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = bytes.slice()
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    assert.throws(() => open('configuration', flipped, keys.publicKey), /Failure/, `bit ${bit}`)
  }
})

test('with the end cut off, or more behind it, nothing is opened', () => {
  const bytes = sign(configuration, keys.privateKey)
  for (let length = 0; length < bytes.length; length++)
    refuses('ENVELOPE_MALFORMED', bytes.subarray(0, length))
  refuses('ENVELOPE_MALFORMED', Buffer.concat([bytes, Buffer.of(0)]))
})

test('a signature of another key is refused', () => {
  refuses('ENVELOPE_FORGED', sign(configuration, others.privateKey))
})

test('a command is not taken for a configuration', () => {
  const command = {
    kind: 'command',
    agent: 'gw-001',
    id: 'c-1',
    command: 'flush',
    arguments: {},
    expiresMs: 1,
  } as const
  refuses('ENVELOPE_MALFORMED', sign(command, keys.privateKey))
})

test('too large, before and after signing', () => {
  refuses('ENVELOPE_TOO_LARGE', new Uint8Array(10_000_000))
  const document = { text: Array.from({ length: 5 }, () => 'x'.repeat(60_000)) }
  assert.throws(() => sign({ ...configuration, document }, keys.privateKey), {
    code: 'ENVELOPE_TOO_LARGE',
  })
  assert.ok(sign({ ...configuration, document: { text: 'x'.repeat(60_000) } }, keys.privateKey))
  assert.ok(maxEnvelopeBytes === 262_144)
})

test('nesting without end and __proto__ are refused, also with our own signature', () => {
  let deep: Document = {}
  for (let i = 0; i < 20; i++) deep = { deep }
  assert.throws(
    () => sign({ ...configuration, document: deep }, keys.privateKey),
    /nested too deep/,
  )
  const document = { filter: [JSON.parse('{"__proto__":{"polluted":true}}')] }
  assert.throws(() => sign({ ...configuration, document }, keys.privateKey), /__proto__/)
  assert.equal(({} as { polluted?: boolean }).polluted, undefined)
})

test('topics are of one agent, and of nothing else', () => {
  assert.deepEqual(parseFleetTopic(topicsOf('gw-001').desired), {
    agent: 'gw-001',
    kind: 'desired',
  })
  assert.deepEqual(parseFleetTopic(topicsOf('gw-001').result('c-1')), {
    agent: 'gw-001',
    kind: 'result',
    id: 'c-1',
  })
  for (const name of ['', '+', '#', 'a/b', 'a\0', 'ä', 'a'.repeat(65)])
    assert.throws(() => topicsOf(name), RangeError, JSON.stringify(name))
  for (const topic of [
    'headgate/v1/gw-001',
    'headgate/v1/gw-001/config',
    'headgate/v1/gw-001/config/desired/x',
    'headgate/v2/gw-001/status',
    'headgate/v1/+/status',
    'headgate/v1/gw-001/command/#',
    'headgate/v1/gw-001/status/x',
  ])
    assert.equal(parseFleetTopic(topic), undefined, topic)
})

test('groups are asked of labels', () => {
  const labels = { group: 'boilers, pumps', site: 'berlin', line: '3' }
  assert.ok(isMember('boilers', labels))
  assert.ok(isMember('pumps', labels))
  assert.ok(isMember('site=berlin,line=3', labels))
  for (const group of ['ovens', 'site=berlin,line=4', 'constructor=x', '', 'site=', '=berlin', '*'])
    assert.ok(!isMember(group, labels), group)
})

/** Debian's, whatever else is on the path: cbor2 and cryptography come as packages of its. */
const python = '/usr/bin/python3'
const script = fileURLToPath(new URL('./fleet_envelope.py', import.meta.url))

test('Python reads what we sign, and we what Python signs, by docs/FLEET-WIRE.md', async (t) => {
  if (spawnSync(python, ['-c', 'import cbor2, cryptography']).status !== 0)
    return absent(t, 'needs cbor2: apt-get install python3-cbor2 python3-cryptography')
  const directory = await temporaryDirectory(t)
  const [publicFile, privateFile] = [join(directory, 'public.pem'), join(directory, 'private.pem')]
  await writeFile(publicFile, keys.publicKey.export({ type: 'spki', format: 'pem' }))
  await writeFile(privateFile, keys.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const run = (verb: string, file: string, input: string) => {
    const { stdout, stderr, status } = spawnSync(python, [script, verb, file], { input })
    assert.equal(status, 0, stderr.toString())
    return stdout.toString()
  }

  const documents: Document[] = [configuration.document, { a: [0.1, -0, 1e300, -7, 2 ** 52, null] }]
  const times = { notBefore: configuration.notBeforeMs, expires: configuration.expiresMs }
  for (const document of documents) {
    const bytes = sign({ ...configuration, document }, keys.privateKey)
    const { type, ...payload } = JSON.parse(
      run('open', publicFile, Buffer.from(bytes).toString('hex')),
    )
    assert.equal(type, 'application/vnd.headgate.configuration+cbor')
    const expected: object = { agent: 'gw-001', version: 7, ...times, document }
    assert.deepEqual(payload, expected)
    const theirs = Buffer.from(run('sign', privateFile, JSON.stringify(expected)).trim(), 'hex')
    assert.deepEqual(
      open('configuration', theirs, keys.publicKey).document,
      JSON.parse(JSON.stringify(document)),
    )
  }

  // The example of the page, word for word.
  const page = await readFile(new URL('../../docs/FLEET-WIRE.md', import.meta.url), 'utf8')
  const block = (language: string) => page.split(`\`\`\`${language}\n`)[1]!.split('```')[0]!
  const hex = block('hex').replaceAll(/\s/g, '')
  const { document, ...rest } = JSON.parse(block('json'))
  const opened = open('configuration', Buffer.from(hex, 'hex'), createPublicKey(block('pem')))
  assert.deepEqual(opened.document, document)
  assert.deepEqual([opened.version, opened.expiresMs], [rest.version, rest.expires])
  const exampleFile = join(directory, 'example.pem')
  await writeFile(exampleFile, block('pem'))
  const { type: _, ...payload } = JSON.parse(run('open', exampleFile, hex))
  assert.deepEqual(payload, { ...rest, document })
})
