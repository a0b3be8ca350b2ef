import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect } from 'node:tls'
import type { MqttClient } from 'mqtt'
import { addPerson, readManagerFiles } from '../../collector/fleet/files.ts'
import { PacketGuard } from '../../collector/fleet/packet-guard.ts'
import { matches } from '../../collector/fleet/retained.ts'
import { readCommonName } from '../../collector/fleet/who.ts'
import { FleetClient } from '../../collector/fleet-command/client.ts'
import { MqttFleet } from '../../collector/fleet-command/mqtt-fleet.ts'
import { makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { TestFleet } from '../support/fleet.ts'
import { until } from '../support/until.ts'

const status = (agent: string, online = true) => JSON.stringify({ agent, online })

function closeOf(client: MqttClient): Promise<void> {
  return new Promise((resolve) => client.once('close', () => resolve()))
}

/** Topics granted of those asked for. */
async function granted(client: MqttClient, topics: string[]): Promise<string[]> {
  const allowed: string[] = []
  for (const topic of topics) {
    const [grant] = await client.subscribeAsync(topic, { qos: 1 }).catch(() => [])
    if (grant && grant.qos !== 128) allowed.push(topic)
  }
  return allowed
}

/** Whether a PUBLISH is acknowledged; otherwise the broker ends the connection. */
async function published(client: MqttClient, topic: string, payload = 'x'): Promise<boolean> {
  const closed = closeOf(client).then(() => false)
  const sent = client.publishAsync(topic, payload, { qos: 1, retain: true }).then(
    () => true,
    () => false,
  )
  return Promise.race([sent, closed])
}

test('an agent subscribes under its own name only, whatever wildcards it uses', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  await fleet.enrol('gw-0011')
  const client = await fleet.connect(one)
  const own = ['config/desired', 'command/+', '#', '+/desired'].map(
    (rest) => `headgate/v1/gw-001/${rest}`,
  )
  const others = [
    '#',
    '+/#',
    'headgate/#',
    'headgate/v1/#',
    'headgate/v1/+/status',
    'headgate/v1/gw-002/status',
    'headgate/v1/gw-0011/#',
    'headgate/v1/gw-001',
    '$SYS/#',
    '$share/g/headgate/v1/gw-002/status',
    'headgate/v1/gw-00\u0000/status',
  ]
  assert.deepEqual(await granted(client, [...own, ...others]), own)
})

test('an agent publishes what it has to say under its own name, and nothing else', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  await fleet.enrol('gw-002')
  const may = ['status', 'config/reported', 'result/abc'].map(
    (rest) => `headgate/v1/gw-001/${rest}`,
  )
  for (const topic of may)
    assert.equal(await published(await fleet.connect(one), topic), true, topic)
  const mayNot = [
    'headgate/v1/gw-001/config/desired',
    'headgate/v1/gw-001/command/abc',
    'headgate/v1/gw-001/else',
    'headgate/v1/gw-002/status',
    'headgate/v1/gw-001/../gw-002/status',
    'elsewhere',
    '$SYS/x',
  ]
  for (const topic of mayNot)
    assert.equal(await published(await fleet.connect(one), topic), false, topic)
})

test('a client id of one’s own choosing puts nobody else out', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  const two = await fleet.enrol('gw-002')
  const victim = await fleet.connect(two, { clientId: 'gw-002' })
  await fleet.connect(one, { clientId: 'gw-002' })
  await fleet.connect(one, { clientId: 'manager:alice/x' })
  assert.equal(await published(victim, 'headgate/v1/gw-002/status', status('gw-002')), true)
})

test('names with wildcards, slashes, NUL or another’s role are nobody’s', () => {
  for (const name of [
    'gw/1',
    'gw+',
    '#',
    'gw\u00001',
    '',
    'a'.repeat(65),
    'manager:',
    'root:x',
    'manager:a:b',
    'gw 1',
    'gw-é',
  ])
    assert.equal(readCommonName(name), undefined, JSON.stringify(name))
  assert.equal(readCommonName(['gw-001', 'gw-002']), undefined, 'several names in one certificate')
  assert.deepEqual(readCommonName('gw-001'), { role: 'agent', name: 'gw-001' })
})

test('topic filters match as MQTT says', () => {
  const cases: [string, string, boolean][] = [
    ['a/b', 'a/b', true],
    ['a/+', 'a/b', true],
    ['a/+', 'a/b/c', false],
    ['a/#', 'a/b/c', true],
    ['a/#', 'a', true],
    ['a/+/c', 'a/b/c', true],
    ['+', 'a/b', false],
    ['a', 'a/b', false],
  ]
  for (const [filter, topic, expected] of cases)
    assert.equal(matches(filter, topic), expected, `${filter} ${topic}`)
})

test('revocation ends an open connection at once, and what was retained is gone', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  const two = await fleet.enrol('gw-002')
  const will = { topic: 'headgate/v1/gw-001/status', payload: status('gw-001', false) }
  const client = await fleet.connect(one, { will })
  await client.publishAsync('headgate/v1/gw-001/status', status('gw-001'), { qos: 1, retain: true })
  const bystander = await fleet.connect(two)
  const closed = closeOf(client)
  await fleet.client.revoke('gw-001')
  await closed
  await assert.rejects(fleet.connect(one))

  const manager = await fleet.connect(fleet.manager(one.fleetBroker))
  const seen: string[] = []
  manager.on('message', (topic) => seen.push(topic))
  await manager.subscribeAsync('headgate/v1/#')
  await bystander.publishAsync('headgate/v1/gw-002/status', status('gw-002'), {
    qos: 1,
    retain: true,
  })
  await until(() => seen.includes('headgate/v1/gw-002/status'), 'the bystander is heard')
  assert.deepEqual(seen, ['headgate/v1/gw-002/status'], 'neither retained message nor last will')
  const [view] = await fleet.client.agents()
  assert.ok(view!.revokedAt)
  assert.equal(view!.online, false)
})

test('an agent that falls silent is told of by its last will', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  const will = { topic: 'headgate/v1/gw-001/status', payload: status('gw-001', false) }
  const client = await fleet.connect(one, { will })
  await client.publishAsync(will.topic, status('gw-001'), { qos: 1, retain: true })
  assert.equal((await fleet.client.agent('gw-001')).online, true)
  client.stream.destroy()
  const gone = async () => (await fleet.client.agent('gw-001')).status?.online === false
  await until(gone, 'the last will is heard')
  assert.equal((await fleet.client.agent('gw-001')).online, false)
})

test('a certificate that puts its own connection out again and again is told of as a clone', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  for (let i = 0; i < 5; i++) await fleet.connect(one)
  assert.doesNotMatch(await fleet.journal(), /"clone"/)
  await fleet.connect(one)
  await until(async () => /"act":"clone","agent":"gw-001"/.test(await fleet.journal()), 'it is')
})

test('a revoked manager is put out where they are, and may do nothing more', async (t) => {
  const fleet = await TestFleet.start(t)
  const { fleetBroker } = await fleet.enrol('gw-001')
  const folder = join(fleet.folder, 'of-bob')
  await addPerson(join(fleet.folder, 'fleet'), folder, { role: 'manager', name: 'bob' }, Date.now())
  const bob = new FleetClient(fleet.url, await readManagerFiles(folder))
  t.after(() => bob[Symbol.asyncDispose]())
  const watched = (async () => {
    for await (const _ of bob.events(AbortSignal.timeout(30_000)));
  })()
  watched.catch(() => {})
  const { ca, cert, key } = await readManagerFiles(folder)
  const tls = { ca: Buffer.from(ca), cert: Buffer.from(cert), key: Buffer.from(key) }
  const listening = await fleet.connect({ name: 'manager:bob', data: '', fleetBroker, tls })
  const closed = closeOf(listening)
  await bob.label('gw-001', { site: 'here' })
  await fleet.client.revoke('manager:bob')
  await closed
  await assert.rejects(watched, 'what bob watched has ended')
  await assert.rejects(bob.label('gw-001', { site: 'there' }), /revoked/)
})

test('a packet that is too large ends its connection before it is taken in', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  const client = await fleet.connect(one)
  assert.equal(await published(client, 'headgate/v1/gw-001/status', 'x'.repeat(70_000)), false)

  const { port } = new URL(one.fleetBroker)
  const socket = connect({ port: Number(port), host: '127.0.0.1', ...one.tls })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  const closed = once(socket, 'close')
  // CONNECT that announces 256 MiB.
  socket.write(Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4]))
  await closed
})

test('lengths of packets are followed wherever the bytes are cut', () => {
  const packet = (length: number) =>
    Buffer.concat([Buffer.from([0x30, (length & 0x7f) | 0x80, length >> 7]), Buffer.alloc(length)])
  const bytes = Buffer.concat([packet(300), Buffer.from([0xc0, 0]), packet(200), packet(301)])
  for (const step of [1, 2, 3, 7, 100, bytes.length]) {
    const guard = new PacketGuard(300)
    const passed: boolean[] = []
    for (let at = 0; at < bytes.length && !passed.includes(false); at += step)
      passed.push(guard.pass(bytes.subarray(at, at + step)))
    assert.ok(passed.includes(false), 'the last is one byte too long')
    const good = bytes.subarray(0, bytes.length - packet(301).length)
    const again = new PacketGuard(300)
    for (let at = 0; at < good.length; at += step)
      assert.ok(again.pass(good.subarray(at, at + step)))
  }
  assert.equal(
    new PacketGuard(2 ** 30).pass(Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff, 0xff])),
    false,
  )
})

test('the fleet’s MQTT is spoken on the port of HTTPS too, under the same rules', async (t) => {
  const fleet = await TestFleet.start(t)
  const one = await fleet.enrol('gw-001')
  const url = `${fleet.url.replace('https:', 'wss:')}/mqtt`
  const client = await fleet.connect(one, { url })
  assert.deepEqual(await granted(client, ['headgate/v1/gw-001/#', 'headgate/v1/#']), [
    'headgate/v1/gw-001/#',
  ])
  await client.publishAsync('headgate/v1/gw-001/status', status('gw-001'), { qos: 1 })
  assert.equal((await fleet.client.agent('gw-001')).online, true)
  const closed = closeOf(client)
  await fleet.client.revoke('gw-001')
  await closed
  await assert.rejects(fleet.connect(one, { url }))
  await assert.rejects(fleet.connect({ ...one, tls: { ca: one.tls.ca } as never }, { url }))
})

test('of an authority that is itself signed by another one, all get in by every way', async (t) => {
  const certificates = await makeCertificates(t, 'IP:127.0.0.1', { intermediate: true })
  if (!certificates) return
  const [certificate, key] = await Promise.all(
    [certificates.ca, certificates.ca.replace('ca.pem', 'ca.key')].map((file) =>
      readFile(file, 'utf8'),
    ),
  )
  const fleet = await TestFleet.start(t, '', 'port: 0', { certificate: certificate!, key: key! })
  const one = await fleet.enrol('gw-001')
  const client = await fleet.connect(one)
  await client.publishAsync('headgate/v1/gw-001/status', status('gw-001'), { qos: 1, retain: true })
  for (const url of [one.fleetBroker, `${fleet.url.replace('https:', 'wss:')}/mqtt`]) {
    const manager = await MqttFleet.open(url, fleet.files)
    cleanUp(t, () => manager[Symbol.asyncDispose]())
    assert.equal((await manager.agent('gw-001')).online, true, url)
  }
})

test('who asks for WebSocket at an address that is none is told so, and the collector goes on', async (t) => {
  const fleet = await TestFleet.start(t)
  const { hostname, port } = new URL(fleet.url)
  const socket = connect({ host: hostname, port: Number(port), ca: fleet.files.ca })
  socket.setEncoding('utf8')
  socket.write('GET // HTTP/1.1\r\nhost: c\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n')
  const [answer] = await once(socket, 'data')
  socket.destroy()
  assert.match(answer, /^HTTP\/1\.1 400 /)
  assert.deepEqual(await fleet.client.agents(), [])
})
