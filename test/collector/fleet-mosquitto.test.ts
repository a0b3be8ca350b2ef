import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { MqttClient } from 'mqtt'
import { makeBrokerCertificate } from '../../collector/fleet/files.ts'
import { mosquittoFiles } from '../../collector/fleet/mosquitto.ts'
import { MqttFleet } from '../../collector/fleet-command/mqtt-fleet.ts'
import { sign } from '../../shared/fleet/envelope.ts'
import { cleanUp } from '../support/clean-up.ts'
import { TestFleet } from '../support/fleet.ts'
import { freePort } from '../support/free-port.ts'
import { needs } from '../support/needs.ts'
import { poll } from '../support/poll.ts'
import { until } from '../support/until.ts'

/** A mosquitto that runs on what `fleet acl` writes; undefined when it is not installed. */
async function startMosquitto(
  t: TestContext,
  fleet: TestFleet,
  port: number,
  change = (rules: string) => rules,
) {
  const binary = needs(t, 'mosquitto')
  if (!binary) return undefined
  const folder = join(fleet.folder, 'mosquitto')
  await mkdir(join(folder, 'data'), { recursive: true })
  const files = mosquittoFiles(folder, port, ['manager:alice'])
  const write = async () => {
    const all = {
      ...files,
      'headgate.acl': change(files['headgate.acl']),
      'ca.pem': fleet.files.ca,
      'crl.pem': await fleet.client.revocationList(),
    }
    for (const [name, text] of Object.entries(all)) await writeFile(join(folder, name), text)
  }
  await write()
  const made = await makeBrokerCertificate(join(fleet.folder, 'fleet'), ['127.0.0.1'], Date.now())
  await writeFile(join(folder, 'server.pem'), made.pem)
  await writeFile(join(folder, 'server-key.pem'), made.keyPem)
  const conf = join(folder, 'headgate.conf')
  const own = join(folder, 'test.conf')
  await writeFile(
    own,
    `${process.getuid?.() === 0 ? 'user root\n' : ''}include_dir ${folder}/conf.d\n`,
  )
  await mkdir(join(folder, 'conf.d'))
  const { symlink } = await import('node:fs/promises')
  await symlink(conf, join(folder, 'conf.d', 'headgate.conf'))
  const child = spawn(binary, ['-c', own], { stdio: 'ignore' })
  cleanUp(t, () => child.kill('SIGKILL'))
  await poll(() => listens(port), 'mosquitto listens')
  return { url: `mqtts://127.0.0.1:${port}`, child, write }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

/** What of the topics a subscriber with all rights gets to see when somebody publishes to each. */
async function through(manager: MqttClient, client: MqttClient, topics: string[], last: string) {
  const seen: string[] = []
  const take = (topic: string) => seen.push(topic)
  manager.on('message', take)
  for (const topic of [...topics, last])
    await client.publishAsync(topic, topic, { qos: 1 }).catch(() => {})
  await until(() => seen.includes(last), 'the last one has come through')
  manager.off('message', take)
  return seen.filter((topic) => topic !== last)
}

test('a real mosquitto under the rules of `fleet acl` lets through what the built-in broker does', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t, '')
  const mosquitto = await startMosquitto(t, fleet, port)
  if (!mosquitto) return
  const { url } = mosquitto
  const one = await fleet.enrol('gw-001')
  const two = await fleet.enrol('gw-002')
  const manager = await fleet.connect(fleet.manager(url), { url })
  await manager.subscribeAsync('headgate/v1/#', { qos: 1 })
  const client = await fleet.connect(one, { url })
  const own = 'headgate/v1/gw-001'
  const may = [`${own}/status`, `${own}/config/reported`, `${own}/result/abc`]
  const mayNot = [
    `${own}/config/desired`,
    `${own}/command/abc`,
    'headgate/v1/gw-002/status',
    'headgate/v1/gw-0011/status',
    'elsewhere',
  ]
  assert.deepEqual(await through(manager, client, [...may, ...mayNot], `${own}/result/last`), may)

  const desired = ['headgate/v1/gw-001/config/desired', 'headgate/v1/gw-002/command/c1']
  const got: string[] = []
  client.on('message', (topic) => got.push(topic))
  await client.subscribeAsync(['headgate/v1/gw-001/#', '#', 'headgate/v1/+/command/+'], { qos: 1 })
  for (const topic of desired) await manager.publishAsync(topic, 'x', { qos: 1 })
  await manager.publishAsync('headgate/v1/gw-001/command/last', 'x', { qos: 1 })
  await until(() => got.includes('headgate/v1/gw-001/command/last'), 'its own comes')
  assert.ok(!got.some((topic) => !topic.startsWith('headgate/v1/gw-001/')), got.join())

  // A client id of one's own choosing does not put the other out.
  const victim = await fleet.connect(two, { url, clientId: 'gw-002' })
  await fleet.connect(one, { url, clientId: 'gw-002' })
  await victim.publishAsync('headgate/v1/gw-002/status', 'x', { qos: 1 })
  assert.equal(victim.connected, true)

  await assert.rejects(fleet.connect({ ...one, tls: { ca: one.tls.ca } as never }, { url }))
  await fleet.client.revoke('gw-001')
  await mosquitto.write()
  mosquitto.child.kill('SIGHUP')
  const shutOut = async () =>
    fleet.connect(one, { url }).then(
      (again) => again.endAsync(true).then(() => false),
      () => true,
    )
  await poll(shutOut, 'the revoked agent is shut out once mosquitto has read the list')
})

test('with a stock broker the collector sends and hears as with its own', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t, '', `url: mqtts://127.0.0.1:${port}`)
  const mosquitto = await startMosquitto(t, fleet, port)
  if (!mosquitto) return
  const gateway = await fleet.enrol('gw-001')
  assert.equal(gateway.fleetBroker, `mqtts://127.0.0.1:${port}`)
  const nowMs = Date.now()
  const envelope = sign(
    {
      kind: 'configuration',
      agent: 'gw-001',
      version: 1,
      notBeforeMs: nowMs,
      expiresMs: nowMs + 60_000,
      document: {},
    },
    fleet.files.configKey,
  )
  await fleet.client.push(envelope)
  const agent = await fleet.connect(gateway)
  const came = new Promise<Buffer>((resolve) =>
    agent.once('message', (_, payload) => resolve(payload)),
  )
  await agent.subscribeAsync('headgate/v1/gw-001/config/desired', { qos: 1 })
  assert.deepEqual(new Uint8Array(await came), new Uint8Array(envelope))
  const status = { agent: 'gw-001', online: true }
  await agent.publishAsync('headgate/v1/gw-001/status', JSON.stringify(status), {
    qos: 1,
    retain: true,
  })
  await until(async () => (await fleet.client.agent('gw-001')).online, 'it is heard', 20_000)

  await fleet.client.revoke('gw-001')
  const manager = await MqttFleet.open(gateway.fleetBroker, fleet.files)
  cleanUp(t, () => manager[Symbol.asyncDispose]())
  assert.deepEqual(await manager.agents(), [], 'what a revoked agent has left behind is gone')
})

test('what a manager sends straight over the broker is known to the collector, also where it was away', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t, '', `url: mqtts://127.0.0.1:${port}`)
  const mosquitto = await startMosquitto(t, fleet, port)
  if (!mosquitto) return
  await fleet.enrol('gw-001')
  const manager = await MqttFleet.open(mosquitto.url, fleet.files)
  cleanUp(t, () => manager[Symbol.asyncDispose]())
  const known = (version: number) => async () => (await fleet.client.version()) === version
  await manager.push(sealed(fleet, 7))
  await until(known(7), 'it is heard', 20_000)
  assert.equal((await fleet.client.agent('gw-001')).desired, 7)
  await fleet.down()
  await manager.push(sealed(fleet, 8))
  await fleet.up()
  await until(known(8), 'it is heard once the collector is back', 20_000)
  // The collector has given the broker what it knew, and then what it learnt.
  const retained = async () => {
    const later = await MqttFleet.open(mosquitto.url, fleet.files)
    try {
      return (await later.version()) === 8
    } finally {
      await later[Symbol.asyncDispose]()
    }
  }
  await poll(retained, 'the broker keeps the newest')
})

function sealed(fleet: TestFleet, version: number): Uint8Array {
  const nowMs = Date.now()
  const times = { notBeforeMs: nowMs, expiresMs: nowMs + 60_000 }
  return sign(
    { kind: 'configuration', agent: 'gw-001', version, ...times, document: { n: version } },
    fleet.files.configKey,
  )
}

test('a manager does without the collector, straight over the broker', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t)
  const mosquitto = await startMosquitto(t, fleet, port)
  if (!mosquitto) return
  const { url } = mosquitto
  const gateway = { ...(await fleet.enrol('gw-001')), fleetBroker: url }
  const agent = await fleet.connect(gateway)
  const desired: Buffer[] = []
  agent.on('message', (_, payload) => desired.push(payload))
  await agent.subscribeAsync('headgate/v1/gw-001/config/desired', { qos: 1 })
  const status = { agent: 'gw-001', online: true }
  await agent.publishAsync('headgate/v1/gw-001/status', JSON.stringify(status), {
    qos: 1,
    retain: true,
  })

  const first = await MqttFleet.open(url, fleet.files)
  cleanUp(t, () => first[Symbol.asyncDispose]())
  assert.equal(await first.version(), 0)
  assert.deepEqual(
    (await first.agents()).map(({ agent, online }) => [agent, online]),
    [['gw-001', true]],
  )
  const commandTo = (agent: string) =>
    sign(
      {
        ...{ kind: 'command', agent, id: 'c1', command: 'flush', arguments: {} },
        expiresMs: Date.now() + 60_000,
      },
      fleet.files.configKey,
    )
  await first.command(commandTo('gw-001'))
  await assert.rejects(first.command(commandTo('gw-002')), /gw-002 is offline/)
  await assert.rejects(first.agent('gw-002'), /gw-002 has never been heard of/)
  await first.push(sealed(fleet, 7))
  await until(() => desired.length === 1, 'the agent gets it')
  await first[Symbol.asyncDispose]()

  const second = await MqttFleet.open(url, fleet.files)
  cleanUp(t, () => second[Symbol.asyncDispose]())
  assert.equal(await second.version(), 7)
  assert.deepEqual(await second.envelope(7), new Uint8Array(desired[0]!))

  // What an agent makes up is nothing to the others, and burns no versions.
  const report = async (version: number) => {
    const since = '2026-01-01T00:00:00Z'
    const reported = { version, since, state: 'good', desired: version, problems: [] }
    const topic = 'headgate/v1/gw-001/config/reported'
    await agent.publishAsync(topic, JSON.stringify(reported), { qos: 1, retain: true })
    const heard = async () => (await second.agent('gw-001')).reported?.version === version
    await until(heard, 'the manager hears it')
  }
  await report(9)
  assert.deepEqual([await second.version('gw-001'), await second.version('gw-002')], [9, 7])
  await report(Number.MAX_SAFE_INTEGER)
  assert.equal(await second.version('gw-002'), 7)
  await assert.rejects(second.version('gw-001'), /gw-001 reports version .*far above 7/)
})

test('a manager whom the broker has put out is told so, whatever they wait for', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t)
  const mosquitto = await startMosquitto(t, fleet, port)
  if (!mosquitto) return
  const first = await MqttFleet.open(mosquitto.url, fleet.files)
  cleanUp(t, () => first[Symbol.asyncDispose]())
  const hungUp = { name: 'UserError', message: /the broker has hung up/ }
  const watching = first.events(AbortSignal.timeout(30_000))[Symbol.asyncIterator]().next()
  const told = assert.rejects(watching, hungUp)
  // It lets a name in once: the second puts the first out.
  const second = await MqttFleet.open(mosquitto.url, fleet.files)
  cleanUp(t, () => second[Symbol.asyncDispose]())
  await told
  await assert.rejects(first.agents(), hungUp)
  await assert.rejects(first.result('gw-001', 'c1'), hungUp)
  await assert.rejects(first.push(sealed(fleet, 1)), hungUp)
  await second.push(sealed(fleet, 1))
})

test('a broker that takes everything and drops it is told of', async (t) => {
  const port = await freePort()
  const fleet = await TestFleet.start(t)
  const drops = (rules: string) => rules.replaceAll(/^topic write .*$/gm, '')
  const mosquitto = await startMosquitto(t, fleet, port, drops)
  if (!mosquitto) return
  const manager = await MqttFleet.open(mosquitto.url, fleet.files)
  cleanUp(t, () => manager[Symbol.asyncDispose]())
  await assert.rejects(manager.push(sealed(fleet, 1)), /has taken what was sent .*, and dropped it/)
})
