import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadAgentConfig } from '../../agent/config.ts'
import { applyDocument, documentProblems } from '../../agent/document.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const file = `
agent: gw-001
data: ./data
source:
  url: mqtts://127.0.0.1:8883
  username: gateway
  password: s3cret
  tls: { ca: ca.pem, cert: own.pem, key: own-key.pem }
decode:
  - topic: plant/{device}/{metric}
outbox: { maxBytes: 5MiB }
uplink: { url: 'https://127.0.0.1:7443', ca: collector.pem }
fleet: { probation: 10s, labels: { site: berlin } }
`

/** As it stands in a document. */
const variable = (name: string) => `\${${name}}`

const document: Document = {
  source: { url: 'mqtts://127.0.0.1:8884' },
  decode: [{ topic: `plant/${variable('label.line')}/{device}/{metric}` }],
  uplink: { url: variable('env:COLLECTOR'), batch: { maxReadings: variable('label.batch') } },
}
const variables = {
  labels: { line: 'l3', batch: '500' },
  environment: { COLLECTOR: 'https://collector.example', TOKEN: 'hunter2-hunter2' },
}

test('a document takes the place of the file, less what is the gateway’s own', async (t) => {
  const directory = await temporaryDirectory(t)
  await writeFile(join(directory, 'agent.yaml'), file)
  const local = await loadAgentConfig(join(directory, 'agent.yaml'), {})
  const { config, problems } = applyDocument(document, local, variables)
  assert.deepEqual(problems, undefined)
  assert.equal(config!.agent, 'gw-001')
  assert.equal(config!.data, join(directory, 'data'))
  assert.equal(config!.source.password, 's3cret')
  assert.equal(config!.source.tls.key, join(directory, 'own-key.pem'))
  assert.equal(config!.source.url, 'mqtts://127.0.0.1:8884')
  assert.deepEqual(config!.source.topics, ['plant/l3/+/+'])
  assert.equal(config!.uplink.url, 'https://collector.example')
  assert.equal(config!.uplink.ca, join(directory, 'collector.pem'))
  assert.equal(config!.uplink.batch.maxReadings, 500)
  assert.equal(config!.outbox.maxBytes, 2 ** 30, 'what a document leaves out has its default')
  assert.equal(config!.fleet.probation, 10_000, 'but under fleet the file goes on to hold')
  assert.deepEqual(config!.fleet.labels, { site: 'berlin' })
})

test('every problem is told at once, with its path', () => {
  const problems = documentProblems({
    agent: 'gw-002',
    data: '/elsewhere',
    source: { url: 'http://broker', password: 'x', tls: { key: 'k.pem' } },
    decode: [{ topic: 'plant/{device}', unti: 'Cel' }],
    uplink: { url: 'https://c', batch: { maxReadings: 0 } },
  })
  assert.deepEqual(problems.map(({ path }) => path).sort(), [
    'agent',
    'data',
    'decode.0.unti',
    'source.password',
    'source.tls.key',
    'source.url',
    'uplink.batch.maxReadings',
  ])
})

test('at a desk without labels a variable is taken to be right, a wrong one is not', () => {
  assert.deepEqual(documentProblems(document), [])
  const wrong = { ...document, uplink: { url: `https://${variable('COLLECTOR')}` } }
  assert.match(documentProblems(wrong)[0]!.message, /\$\{label\.name\} or \$\{env:NAME\}/)
})

test('a label or variable that the gateway does not have is refused', () => {
  const problems = documentProblems(document, { labels: {}, environment: {} })
  assert.deepEqual(problems.map(({ path }) => path).sort(), [
    'decode.0.topic',
    'uplink.batch.maxReadings',
    'uplink.url',
  ])
  assert.match(problems[0]!.message, /no label line|not set/)
  assert.equal(
    documentProblems({ ...document, uplink: { url: variable('label.constructor') } }, variables)
      .length,
    1,
  )
})

test('what a variable stands for is in no problem', () => {
  const places: Document[] = [
    { ...document, source: { url: variable('env:TOKEN') } },
    { ...document, source: { url: 'mqtt://h', version: variable('env:TOKEN') } },
    { ...document, uplink: { url: 'https://c', timeout: variable('env:TOKEN') } },
    { ...document, decode: [{ topic: `${variable('env:TOKEN')}/{device}/{device}` }] },
    { ...document, filter: [{ reduce: { method: variable('env:TOKEN'), error: 1 } }] },
  ]
  for (const place of places) {
    const problems = documentProblems(place, variables)
    assert.ok(problems.length > 0, JSON.stringify(place))
    assert.doesNotMatch(JSON.stringify(problems), /hunter2/)
  }
})
