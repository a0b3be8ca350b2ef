import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer as createPlainServer } from 'node:http'
import { createServer } from 'node:https'
import { type AddressInfo, connect, type Server } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { createWebSocketStream, WebSocketServer } from 'ws'
import type { Rehearsal } from '../../agent/fleet/rehearsal.ts'
import { Quality } from '../../shared/reading.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { assertAll, counting } from '../support/counting-publisher.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { FleetWatcher, type MemberOptions, runMember } from '../support/fleet-member.ts'
import { keepsOverKill, keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { device } from '../support/publisher.ts'
import { until } from '../support/until.ts'

const withTls = ({ ca, server }: Certificates) => [
  `cafile ${ca}`,
  `certfile ${server.cert}`,
  `keyfile ${server.key}`,
  'require_certificate true',
  'use_identity_as_username true',
]

/** A plant's broker, a fleet's with TLS, a desk, and somebody who watches. */
async function plant(t: TestContext, lines: readonly string[] = []) {
  const certificates = await makeCertificates(t)
  const broker = certificates && (await Mosquitto.start(t, { lines: keepsQueue }))
  const fleetBroker =
    broker &&
    (await Mosquitto.start(t, { lines: [...withTls(certificates), ...keepsOverKill, ...lines] }))
  if (!fleetBroker) return undefined
  const fleet = `mqtts://127.0.0.1:${fleetBroker.port}`
  const desk = new FleetDesk()
  const watcher = await FleetWatcher.open(t, fleet, certificates, desk)
  const join = (more: Partial<MemberOptions> = {}) =>
    runMember(t, { broker: broker.url, fleet, desk, certificates, ...more })
  return { broker, fleetBroker, fleet, desk, watcher, join, certificates }
}

function documentFor(broker: string, more: Record<string, unknown> = {}) {
  const quick = { base: '50ms', max: '250ms' }
  const { source, uplink, ...rest } = more as Record<string, object>
  return {
    source: { url: broker, retry: quick, ...source },
    decode: [{ topic: 'sensors/{device}/{metric}' }],
    uplink: { url: 'http://collector.test', retry: quick, batch: { maxAge: '0ms' }, ...uplink },
    ...rest,
  } as never
}

test('pushed over mosquitto with readings flowing: applied, good, and none lost or repeated', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent, collector } = await join()
  const sensor = await counting(t, broker.url)
  await watcher.until(0, 'none')
  const since = agent.status!.source.connectedSinceMs
  await watcher.push(
    1,
    documentFor(broker.url, {
      outbox: { maxBytes: '9MiB' },
      filter: [{ check: { range: [0, 1e9] } }],
    }),
  )
  await watcher.until(1, 'probation')
  assert.equal(agent.status!.source.connectedSinceMs, since, 'the session was not dropped')
  await watcher.until(1, 'good')
  // The states, each once, in this order.
  const states = watcher.reported.map(({ state }) => state)
  assert.deepEqual([...new Set(states)], ['none', 'applied', 'probation', 'good'])
  await until(() => watcher.status.at(-1)?.versions?.config === 1, 'the status tells the version')
  const status = watcher.status.at(-1)!
  assert.equal(status.online, true)
  assert.ok(status.ledger!.received! > 0)
  await assertAll(agent, collector, await sensor.stop())
})

test('a bad push takes itself back while the fleet broker is gone, and tells when it is there again', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, fleetBroker, watcher, join } = set
  const { agent, collector, fleet } = await join()
  const sensor = await counting(t, broker.url)
  await watcher.until(0, 'none')
  const bad = documentFor(broker.url, { uplink: { url: 'http://nowhere.test' } })
  await watcher.push(1, bad)
  await watcher.until(1, 'probation')
  await fleetBroker.kill()
  await until(() => fleet.config.uplink.url === 'http://collector.test', 'it goes back', 20_000)
  await fleetBroker.up()
  const { problems } = await watcher.until(0, 'reverted')
  assert.deepEqual(
    problems.map(({ path }) => path),
    ['uplink'],
  )
  await assertAll(agent, collector, await sensor.stop())
})

test('a configuration that cuts its own connection to the fleet is taken back', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join } = set
  await join()
  await watcher.until(0, 'none')
  await watcher.push(1, documentFor(broker.url, { fleet: { url: 'mqtts://127.0.0.1:1' } }))
  const { problems, desired } = await watcher.until(0, 'reverted')
  assert.deepEqual(
    problems.map(({ path }) => path),
    ['fleet'],
  )
  assert.equal(desired, 1)
})

test('hostile bytes on the desired topic are answered, and what runs stays', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join, desk } = set
  const { agent } = await join()
  await watcher.until(0, 'none')
  for (const bytes of [
    Buffer.alloc(10_000_000, 1),
    Buffer.alloc(300_000, 0xd2),
    Buffer.from('{}'),
  ]) {
    const before = watcher.reported.length
    await watcher.publish(bytes)
    await until(() => watcher.reported.length > before, 'an answer')
    const { version, state, desired } = watcher.reported.at(-1)!
    assert.deepEqual({ version, state, desired }, { version: 0, state: 'refused', desired: null })
  }
  await watcher.publish(desk.configuration(1, documentFor(broker.url)))
  await watcher.until(1, 'good')
  assert.equal(agent.status!.source.phase, 'connected')
})

test('an agent that was away gets what it was sent, and tells that it is gone', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const first = await join()
  await watcher.until(0, 'none')
  await first.end()
  await until(() => watcher.status.at(-1)?.online === false, 'it says that it leaves')
  await watcher.push(1, documentFor(broker.url))
  const second = await join({ data: first.data })
  await watcher.until(1, 'good')
  await second.end()
  // The broker gives an old one again, as after a restored backup; also to a new process.
  await watcher.push(2, documentFor(broker.url, { outbox: { maxBytes: '5MiB' } }))
  await join({ data: first.data })
  await watcher.until(2, 'good')
  await watcher.push(1, documentFor(broker.url))
  const { problems } = await watcher.until(2, 'refused')
  assert.match(problems[0]!.message, /older than version 2/)
})

test('the broker tells by the last will of an agent that went without a word', async (t) => {
  const set = await plant(t)
  if (!set) return
  const proxy = await FaultProxy.open(t, set.fleetBroker.port)
  await set.join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  await until(() => set.watcher.status.at(-1)?.online === true, 'it is there')
  proxy.refuse()
  await until(() => set.watcher.status.at(-1)?.online === false, 'it is gone')
})

test('commands: each runs once, and gives its result', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join, desk } = set
  const { agent, collector, restarts } = await join({
    sections: {
      outbox: { tail: {} },
      source: { username: 'gateway', password: 'hunter2-hunter2' },
      filter: [{ match: { metric: 'state' }, reduce: { method: 'deadband', error: 0 } }],
    },
  })
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/state', ['1', '1', '1', '2'])
  await until(() => agent.status!.ledger.received === 4, 'four have come')
  assert.equal((await watcher.ask('flush-1', 'flush')).state, 'done')
  await until(() => agent.status!.ledger.buffered === 0, 'all is decided')

  const { state, result } = await watcher.ask('look-1', 'diagnostics')
  assert.equal(state, 'done')
  assert.equal((result!.status as { agent: string }).agent, 'gw-001')
  assert.doesNotMatch(JSON.stringify(result), /hunter2/)

  // Raw readings once more, those too that were suppressed: marked, and no duplicates.
  const before = collector.readings.length
  const range = { from: '2000-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' }
  const resent = await watcher.ask('resend-1', 'resend', { ...range, device: 'pu*' })
  assert.deepEqual([resent.state, resent.result], ['done', { readings: 4 }])
  await until(() => collector.readings.length === before + 4, 'they arrive')
  const again = collector.readings.slice(before)
  assert.deepEqual(
    again.map(({ value }) => value),
    [1, 1, 1, 2],
  )
  assert.ok(again.every(({ quality }) => quality & Quality.resent))
  assert.equal(agent.status!.ledger.received, 4)

  assert.equal((await watcher.ask('pause-1', 'pause')).state, 'done')
  assert.equal(agent.status!.source.phase, 'closed')
  await publish('sensors/pump/state', ['3'])
  assert.equal((await watcher.ask('resume-1', 'resume')).state, 'done')
  await until(() => agent.status!.ledger.received === 5, 'what came meanwhile comes now')

  // Delivered again, as brokers do, it does not run again.
  const pause = desk.command('pause-2', 'restart')
  await watcher.command('pause-2', pause)
  await until(() => restarts.length === 1, 'it restarts')
  await watcher.command('pause-2', pause)
  await watcher.ask('flush-2', 'flush')
  assert.equal(restarts.length, 1)
})

test('commands that are forged, for others, expired or wrong are refused', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { watcher, join, desk } = set
  const { agent } = await join()
  await until(() => watcher.status.length > 0, 'it is there')
  const stranger = new FleetDesk()
  const now = Date.now()
  const refused: [string, Uint8Array, RegExp][] = [
    ['forged', stranger.command('forged', 'restart'), /not of our fleet/],
    ['others', desk.command('others', 'restart', {}, { agent: 'gw-002' }), /another agent/],
    ['expired', desk.command('expired', 'restart', {}, { expiresMs: now - 1 }), /expired/],
    ['forever', desk.command('forever', 'restart', {}, { expiresMs: now + 1e12 }), /7 days/],
    ['renamed', desk.command('other-id', 'restart'), /its id is not/],
    ['unknown', desk.command('unknown', 'explode'), /expected one of flush/],
    ['arguments', desk.command('arguments', 'resend', { from: 'now' }), /time such as/],
    ['noise', Buffer.alloc(100, 1), /tag 18/],
  ]
  for (const [id, bytes, message] of refused) {
    await watcher.command(id, bytes)
    const { state, problems } = await watcher.result(id)
    assert.equal(state, 'refused', id)
    assert.match(problems.map((problem) => problem.message).join(), message, id)
  }
  const { state, problems } = await watcher.ask('resend', 'resend', {
    from: '2026-01-01T00:00:00Z',
    to: '2026-01-02T00:00:00Z',
  })
  assert.deepEqual([state, problems[0]!.path], ['failed', 'outbox.tail'])
  assert.equal(agent.status!.paused, false)
})

test('a pause lasts over a restart, and a restart is done once the agent is back', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { watcher, join, desk } = set
  const first = await join()
  await watcher.ask('pause', 'pause')
  await watcher.command('restart', desk.command('restart', 'restart'))
  await until(() => first.restarts.length === 1, 'it is asked to restart')
  await first.end()
  watcher.results = []
  const { broker, fleet, certificates } = set
  const second = runMember(t, { broker: broker.url, fleet, desk, certificates, data: first.data })
  assert.equal((await watcher.result('restart')).state, 'done')
  await watcher.ask('resume', 'resume')
  assert.equal((await second).agent.status!.paused, false)
})

test('a rehearsal says what another filter would have done, and applies nothing', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const { agent, local } = await join({ sections: { outbox: { tail: {} } } })
  const { publish } = await device(t, broker.url)
  const beganMs = Date.now() - 3_600_000
  const row = (v: number, i: number) => JSON.stringify({ v, t: beganMs + i * 1_000 })
  const values = [...Array.from({ length: 500 }, (_, i) => 20 + Math.sin(i) / 3), 99]
  await publish('sensors/pump/temp', values.map(row))
  await until(() => agent.status!.ledger.received === 501, 'they have come')
  const { state, result } = await watcher.ask('try-1', 'rehearse', {
    document: documentFor(broker.url, {
      filter: [{ check: { range: [0, 50] }, reduce: { error: 1 } }],
    }),
  })
  assert.equal(state, 'done')
  const { readings, running, candidate, gained, lost } = result as unknown as Rehearsal
  assert.equal(readings, 501)
  assert.equal(running.kept, 501)
  assert.ok(candidate.kept < 50, JSON.stringify(candidate))
  assert.ok(candidate.bytes < running.bytes)
  assert.deepEqual(lost, [])
  assert.equal(gained[0]!.kind, 'range')
  assert.deepEqual(agent.status!.ledger.suppressed, 0)
  assert.deepEqual(local.filter, [])
  const wrong = await watcher.ask('try-2', 'rehearse', { document: { filter: [{ reduce: {} }] } })
  assert.equal(wrong.state, 'failed')
  assert.ok(wrong.problems.some(({ path }) => path === 'filter.0.reduce.error'))
})

test('over WebSocket and TLS, through a proxy, with the certificate', async (t) => {
  const certificates = await makeCertificates(t)
  const broker = certificates && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!broker) return
  const front = await webSocketFront(t, certificates, broker.port)
  const proxy = await connectProxy(t)
  const desk = new FleetDesk()
  const watcher = await FleetWatcher.open(t, broker.url, certificates, desk)
  await runMember(t, {
    broker: broker.url,
    fleet: `wss://127.0.0.1:${front.port}/mqtt`,
    proxy: `http://user:secret@127.0.0.1:${proxy.port}`,
    desk,
    certificates,
  })
  await watcher.until(0, 'none')
  await watcher.push(1, documentFor(broker.url))
  await watcher.until(1, 'good')
  assert.deepEqual(new Set(front.names), new Set(['test-client']))
  assert.equal(proxy.asked[0], `127.0.0.1:${front.port} Basic ${btoa('user:secret')}`)
})

/** Takes WebSocket connections with a certificate, and hands their bytes to a broker. */
async function webSocketFront(t: TestContext, { ca, server: own }: Certificates, target: number) {
  const [caPem, cert, key] = await Promise.all(
    [ca, own.cert, own.key].map((file) => readFile(file)),
  )
  const server = createServer({ ca: caPem!, cert: cert!, key: key!, requestCert: true })
  const names: string[] = []
  const sockets = new WebSocketServer({ server, handleProtocols: () => 'mqtt' })
  sockets.on('connection', (socket, request) => {
    names.push((request.socket as TLSSocket).getPeerCertificate().subject.CN as string)
    const stream = createWebSocketStream(socket)
    const onward = connect(target, '127.0.0.1')
    stream.pipe(onward).pipe(stream)
    stream.on('error', () => onward.destroy())
    onward.on('error', () => stream.destroy())
  })
  return { port: await listen(t, server), names }
}

/** A proxy that connects to wherever it is asked to. */
async function connectProxy(t: TestContext) {
  const asked: string[] = []
  const server = createPlainServer()
  server.on('connect', (request, socket) => {
    asked.push(`${request.url} ${request.headers['proxy-authorization']}`)
    const [host, port] = request.url!.split(':')
    const onward = connect(Number(port), host!, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.pipe(onward).pipe(socket)
    })
    for (const end of [socket, onward]) end.on('error', () => {})
  })
  return { port: await listen(t, server), asked }
}

async function listen(t: TestContext, server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUp(t, () => server.close())
  return (server.address() as AddressInfo).port
}

test('a broker that accepts and drops everything costs the agent nothing', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, fleetBroker, join } = set
  const proxy = await FaultProxy.open(t, fleetBroker.port)
  const { agent, collector } = await join({ fleet: `mqtts://127.0.0.1:${proxy.port}` })
  await until(() => set.watcher.status.length > 0, 'it is there')
  proxy.silence()
  const sensor = await counting(t, broker.url)
  await until(() => sensor.count > 3_000, 'readings flow')
  await assertAll(agent, collector, await sensor.stop())
})

test('a clone of a gateway: both run on, and neither runs what is not signed', async (t) => {
  const set = await plant(t)
  if (!set) return
  const { broker, watcher, join } = set
  const first = await join()
  await watcher.until(0, 'none')
  const clone = await join({ sections: { source: { clientId: 'clone' } } })
  const { publish } = await device(t, broker.url)
  await publish('sensors/pump/count', ['1', '2', '3'])
  for (const { agent, collector } of [first, clone]) await assertAll(agent, collector, 3)
  await watcher.push(1, documentFor(broker.url))
  for (const { fleet, local } of [first, clone])
    await until(() => fleet.config !== local, 'both take it', 20_000)
})
