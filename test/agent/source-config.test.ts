import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sourceSchema } from '../../agent/source/source.ts'
import { covers, filterProblem, leastFilters } from '../../agent/source/topic-filter.ts'
import { parseConfig } from '../../shared/config.ts'

function problems(yaml: string): string {
  try {
    parseConfig(sourceSchema, yaml, { file: '/etc/headgate/agent.yaml' })
  } catch (error) {
    return (error as Error).message
  }
  return ''
}

const url = 'url: mqtt://127.0.0.1:1883'

test('a URL is enough', () => {
  const config = parseConfig(sourceSchema, url, { file: '/etc/agent.yaml' })
  assert.equal(config.version, '3.1.1')
  assert.equal(config.maxMessageBytes, 256 * 1024)
  assert.deepEqual(config.retry, { base: 1_000, max: 60_000 })
  assert.equal(config.tls.insecure, false)
})

test('files are relative to the configuration, versions are written as users write them', () => {
  const yaml = `
url: mqtts://broker.plant
version: 5
username: gw
passwordFile: secret.txt
tls: { ca: certs/ca.pem }`
  const config = parseConfig(sourceSchema, yaml, { file: '/etc/headgate/agent.yaml' })
  assert.equal(config.version, '5')
  assert.equal(config.passwordFile, '/etc/headgate/secret.txt')
  assert.equal(config.tls.ca, '/etc/headgate/certs/ca.pem')
})

for (const [yaml, problem] of [
  ['url: http://x', /mqtt:\/\/ or mqtts:\/\//],
  ['url: ws://x', /WebSocket is not supported/],
  ['url: mqtt://u:p@x', /source\.username and source\.password/],
  ['url: mqtt://x/topic', /topics go into source\.topics/],
  ['url: mqtt://x:0', /port 0/],
  ['url: 127.0.0.1', /expected a URL such as/],
  [`${url}\nqos: 2`, /QoS 2 messages are lost when the agent dies .* use 1/],
  [`${url}\nqos: 0`, /QoS 0 messages are lost while the agent is away/],
  [`${url}\nversion: 4`, /expected 3\.1\.1 or 5/],
  [`${url}\ntopics: [ 'a/#/b' ]`, /# stands alone, as the last level/],
  [`${url}\ntopics: [ 'a/b+' ]`, /\+ stands alone/],
  [`${url}\npassword: x`, /a password goes with a user name/],
  [`${url}\nusername: u\npassword: x\npasswordFile: y`, /not both/],
  [`${url}\ntls: { ca: x }`, /write mqtts:\/\//],
  ['url: mqtts://x\ntls: { cert: x }', /cert and key go together/],
  [`${url}\nretry: { base: 2m }`, /is more than max/],
  [`${url}\nclientID: x`, /unknown key: did you mean clientId/],
] as const)
  test(`refused with a reason: ${yaml.replace(/\n/g, ', ')}`, () => {
    assert.match(problems(yaml), problem)
  })

test('topic filters are what MQTT allows', () => {
  for (const good of ['#', '+', 'a/+/b', 'a/#', '/', 'a//b', '$SYS/#', '$share/g/a/+'])
    assert.equal(filterProblem(good), undefined, good)
  for (const bad of ['', 'a#', '#/a', 'a+/b', '$share/g', '$share//a', '$share/+/a', 'a\0'])
    assert.notEqual(filterProblem(bad), undefined, bad)
})

test('a filter covers what MQTT says', () => {
  const does = (wide: string, narrow: string) => covers(wide.split('/'), narrow.split('/'))
  for (const [wide, narrow] of [
    ['#', 'a/b'],
    ['a/#', 'a'],
    ['a/#', 'a/b/#'],
    ['a/+', 'a/b'],
    ['a/+', 'a/+'],
    ['+/+', '/b'],
    ['$SYS/#', '$SYS/broker'],
  ] as const)
    assert.ok(does(wide, narrow), `${wide} ${narrow}`)
  for (const [wide, narrow] of [
    ['#', '$SYS/broker'],
    ['+/a', '$SYS/a'],
    ['a/+', 'a'],
    ['a/+', 'a/b/c'],
    ['a/+', 'a/#'],
    ['a/b', 'a/+'],
    ['a', 'a/b'],
  ] as const)
    assert.ok(!does(wide, narrow), `${wide} ${narrow}`)
})

test('what another filter covers is not subscribed to', () => {
  assert.deepEqual(leastFilters(['a/b/c', 'a/+/c', 'x/#', 'a/+/c', 'x', 'y']), [
    'a/+/c',
    'x/#',
    'y',
  ])
  assert.deepEqual(leastFilters(['#', '$share/g/a', 'a', '$SYS/#']), ['#', '$share/g/a', '$SYS/#'])
})
