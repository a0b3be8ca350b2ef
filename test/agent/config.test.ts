// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables in YAML are what is tested
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { z } from 'zod'
import {
  agentSchema,
  agentWarnings,
  describeAgent,
  loadAgentConfig,
  loadAgentSections,
} from '../../agent/config.ts'
import { ConfigFailure } from '../../shared/config.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const asInTheReadme = `
agent: gw-001
data: ./var/gw-001
source:
  url: mqtt://127.0.0.1:1883
  topics: [ 'sensors/+/+' ]
decode:
  - topic: sensors/{device}/{metric}
    format: json            # 21.5, or an object: value and time by JSON Pointer, default /v and /t
uplink:
  url: http://127.0.0.1:7070
  retry: { base: 20s, max: 60s }
`

async function written(t: TestContext, yaml: string) {
  const directory = await temporaryDirectory(t)
  const file = join(directory, 'agent.yaml')
  await writeFile(file, yaml)
  return { directory, file }
}

async function problems(t: TestContext, yaml: string): Promise<string[]> {
  const { file } = await written(t, yaml)
  try {
    await loadAgentConfig(file, {})
  } catch (error) {
    assert.ok(error instanceof ConfigFailure, String(error))
    return error.problems.map(({ path, message }) => `${path}: ${message}`)
  }
  return []
}

test('the example of the README works as written', async (t) => {
  const { file, directory } = await written(t, asInTheReadme)
  const config = await loadAgentConfig(file, {})
  assert.equal(config.agent, 'gw-001')
  assert.equal(config.data, join(directory, 'var/gw-001'))
  assert.equal(config.source.url, 'mqtt://127.0.0.1:1883')
  assert.deepEqual(config.source.topics, ['sensors/+/+'])
  assert.deepEqual(config.decode, [
    { topic: 'sensors/{device}/{metric}', format: 'json', time: '/t' },
  ])
  assert.equal(config.uplink.url, 'http://127.0.0.1:7070')
  assert.deepEqual(config.uplink.retry, { base: 20_000, max: 60_000 })
  assert.equal(config.metrics, undefined)
  assert.deepEqual(agentWarnings(config), [])
  assert.equal(
    describeAgent(config),
    `agent gw-001: sensors/+/+ from mqtt://127.0.0.1:1883, 1 decode rule, ` +
      `to http://127.0.0.1:7070, kept in ${join(directory, 'var/gw-001')}`,
  )
})

test('topics default to what the decode rules ask for', async (t) => {
  const { file } = await written(
    t,
    `
agent: a
data: /var/a
source: { url: 'mqtt://127.0.0.1' }
decode:
  - topic: sensors/{device}/{metric}
  - { topic: 'sensors/{device}/+', values: all }
  - { topic: 'plant/{line}/#', values: { x: /x } }
uplink: { url: 'http://127.0.0.1:7070' }
`,
  )
  const config = await loadAgentConfig(file, {})
  assert.deepEqual(config.source.topics, ['sensors/+/+', 'plant/+/#'])
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.source))
})

test('numbers, files and addresses may come from the environment', async (t) => {
  const { file, directory } = await written(
    t,
    `
agent: '\${AGENT}'
data: '\${DATA:-var}'
source: { url: 'mqtts://\${BROKER:-127.0.0.1}:\${PORT:-8883}', tls: { ca: pki/ca.pem } }
decode: [ { topic: '{device}' } ]
uplink: { url: 'https://127.0.0.1', ca: pki/collector.pem, batch: { maxReadings: '\${MAX}' } }
metrics: { port: '\${METRICS:-9100}' }
`,
  )
  const config = await loadAgentConfig(file, { AGENT: 'gw-7', MAX: '500' })
  assert.equal(config.agent, 'gw-7')
  assert.equal(config.data, join(directory, 'var'))
  assert.equal(config.source.url, 'mqtts://127.0.0.1:8883')
  assert.equal(config.source.tls.ca, join(directory, 'pki/ca.pem'))
  assert.equal(config.uplink.ca, join(directory, 'pki/collector.pem'))
  assert.equal(config.uplink.batch.maxReadings, 500)
  assert.deepEqual(config.metrics, { host: '127.0.0.1', port: 9100 })
})

test('every mistake of a user is told at once, by its path', async (t) => {
  const told = await problems(
    t,
    `
agent: gw/1
dta: x
source: { url: 'mqtt://127.0.0.1:\${PORT}', topics: [] }
decode:
  - { topic: 'a/b{device}' }
  - { topic: 'a/{b}', value: v, timeUnit: min, values: { '': /x } }
  - { topic: '{device}/{line}', device: d, labels: { line: x, '9': y }, unit: '' }
uplink: { url: 7070, retry: { base: 20 } }
metrics: { port: 70000 }
`,
  )
  assert.deepEqual(told, [
    'source.url: environment variable PORT is not set (give a default: ${PORT:-…})',
    'agent: expected 1 to 64 letters (A to Z, a to z), digits, _ or -',
    'data: missing: expected text',
    'source.topics: must have at least 1 item',
    'decode.0.topic: level "b{device}": +, # and {name} (letters, digits, _) must fill a level',
    'decode.1.value: not a JSON Pointer: begins with /, as in /v',
    'decode.1.values.: bad name: is empty',
    'decode.1.timeUnit: expected one of iso, s, ms, us, ns, not "min"',
    'decode.2.unit: is empty',
    'decode.2.labels.9: bad name: expected a letter or _, then letters, digits, _, . or -, 64 at most',
    'uplink.url: expected an http:// or https:// address',
    'uplink.retry.base: expected a duration such as 250ms, 10s, 5m, 1h, not 20',
    'metrics.port: must be at most 65535',
    'dta: unknown key: did you mean data?',
  ])
})

test('contradictions within a decode rule are told', async (t) => {
  const rule = (text: string) =>
    problems(t, asInTheReadme.replace(/decode:.*(?=uplink)/s, `decode:\n  - ${text}\n`))
  assert.deepEqual(await rule('{ topic: a, value: /x, values: all }'), [
    'decode.0.value: either value or values',
  ])
  assert.deepEqual(
    await rule("{ topic: '{device}/{metric}/{line}', device: a, metric: b, labels: { line: c } }"),
    [
      'decode.0.device: the topic names the device already',
      'decode.0.metric: the topic names the metric already',
      'decode.0.labels.line: the topic gives this label already',
    ],
  )
  assert.deepEqual(
    await rule('{ topic: a, values: [ { metric: x, value: /x }, { metric: x, value: /y } ] }'),
    ['decode.0.values.1.metric: named twice'],
  )
  assert.deepEqual(await rule('{ topic: a, values: {} }'), [
    'decode.0.values: names 1 to 1000 values',
  ])
  assert.deepEqual(await rule("{ topic: a, values: { x: 'y~' } }"), [
    'decode.0.values.x: not a JSON Pointer: begins with /, as in /y~',
  ])
})

test('what would run but hardly as meant is a warning', async (t) => {
  const { file } = await written(
    t,
    `
agent: a
data: .
source: { url: 'mqtt://127.0.0.1', topics: [ 'sensors/#', '$share/g/plant/+', 'lost/+', '+/pump' ] }
metrics: { host: 0.0.0.0, port: 9100 }
decode:
  - { topic: 'sensors/{device}/{metric}' }
  - { topic: 'plant/+', values: all }
  - { topic: 'sensors/{a}/{b}' }
  - { topic: other/a }
uplink: { url: 'http://127.0.0.1:7070' }
`,
  )
  const warnings = agentWarnings(await loadAgentConfig(file, {}))
  assert.deepEqual(
    warnings.map(({ path, message }) => `${path}: ${message}`),
    [
      'source.topics.2: no decode rule takes such topics: all of it would go into quarantine',
      'source.topics.3: overlaps source.topics.0: a broker may deliver twice what both take',
      'metrics.host: whoever reaches 0.0.0.0 can read the figures: nobody is asked who he is',
      'decode.1.topic: readings of all its topics fall into one series: write {device} for a level',
      'decode.2.topic: never used: decode.0 takes the same topics first',
      'decode.3.topic: never used: source.topics asks for no such topics',
    ],
  )
})

test('parts of a configuration can be had alone, and are checked all the same', async (t) => {
  const { file } = await written(t, "decode: [ { topic: 'x/{device}' } ]")
  const sections = await loadAgentSections(file, {})
  assert.equal(sections.decode?.[0]?.topic, 'x/{device}')
  assert.equal(sections.source, undefined)
  const bad = await written(t, "decode: [ { topic: 'x/{device' } ]")
  await assert.rejects(loadAgentSections(bad.file, {}), /decode\.0\.topic/)
})

const manual = new URL('../../docs/CONFIGURATION.md', import.meta.url)

test('docs/CONFIGURATION.md has every key, and an example that works', async (t) => {
  const text = await readFile(manual, 'utf8')
  const start = text.indexOf('## agent.yaml')
  const end = text.indexOf('\n## ', start + 1)
  const chapter = text.slice(start, end < 0 ? undefined : end)
  for (const [index, block] of chapter.split('```yaml\n').slice(1).entries()) {
    const yaml = block.slice(0, block.indexOf('```'))
    const { file } = await written(t, yaml)
    await (index === 0 ? loadAgentConfig(file, {}) : loadAgentSections(file, {}))
  }
  const keys = leavesOf(agentSchema)
  assert.ok(keys.length > 40, `only ${keys.length} keys found`)
  const missing = keys.filter((key) => {
    // Within its section a key stands without the section's name.
    const short = key.includes('.') ? key.slice(key.indexOf('.') + 1) : key
    return !chapter.includes(`\`${short}\``)
  })
  assert.deepEqual(missing, [])
})

/** Paths of all keys that hold no mapping of their own. */
function leavesOf(schema: z.ZodType, path = ''): string[] {
  const {
    innerType,
    in: input,
    element,
    shape,
  } = schema.def as unknown as {
    innerType?: z.ZodType
    in?: z.ZodType
    element?: z.ZodType
    shape?: Record<string, z.ZodType>
  }
  const inside = innerType ?? input ?? element
  if (inside) return leavesOf(inside, path)
  if (!shape) return [path]
  return Object.entries(shape).flatMap(([key, value]) =>
    leavesOf(value, path ? `${path}.${key}` : key),
  )
}
