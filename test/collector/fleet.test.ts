import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { certificateRequest } from '../../agent/enrol/request.ts'
import type { BusHandler, FleetBus } from '../../collector/fleet/bus.ts'
import {
  type CollectorFiles,
  initFleet,
  readCollectorFiles,
  readManagerFiles,
} from '../../collector/fleet/files.ts'
import { Fleet } from '../../collector/fleet/fleet.ts'
import { type Configuration, sign } from '../../shared/fleet/envelope.ts'
import { cleanUp } from '../support/clean-up.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

/** Takes what is published and says what it is told to. */
class FakeBus implements FleetBus {
  readonly published: { topic: string; bytes: number }[] = []
  hear: BusHandler = () => {}

  async publish(topic: string, payload: Uint8Array): Promise<void> {
    this.published.push({ topic, bytes: payload.length })
  }

  isConnected(): boolean {
    return true
  }

  drop(): void {}

  async [Symbol.asyncDispose](): Promise<void> {}
}

interface Bench {
  fleet: Fleet
  bus: FakeBus
  files: CollectorFiles
  configKey: KeyObject
  clock: ManualClock
  /** Lets a gateway in, with another key each time. */
  enrol(agent: string): Promise<void>
}

/** A fleet without its collector. */
async function openFleet(t: TestContext): Promise<Bench> {
  const folder = await temporaryDirectory(t)
  const clock = new ManualClock()
  const nowMs = clock.wallMs()
  const url = 'https://c.example:7443'
  await initFleet({ folder: join(folder, 'fleet'), url, hosts: [], manager: 'alice', nowMs })
  const files = await readCollectorFiles(join(folder, 'fleet'), nowMs)
  const fleet = await Fleet.open({
    folder: join(folder, 'data'),
    files,
    lifetimeMs: 86_400_000,
    clock,
    logger: silentLog,
  })
  cleanUp(t, () => fleet[Symbol.asyncDispose]())
  const { configKey } = await readManagerFiles(join(folder, 'fleet'))
  const bus = new FakeBus()
  await fleet.start(async (handler) => {
    bus.hear = handler
    return bus
  })
  const enrol = async (agent: string) => {
    await fleet.enrol(await invited(fleet, agent), request(agent), '127.0.0.1')
  }
  return { fleet, bus, files, configKey, clock, enrol }
}

/** @returns the token’s secret */
async function invited(fleet: Fleet, agent: string): Promise<Uint8Array> {
  const secret = new TextEncoder().encode(`secret of ${agent}`)
  const hash = createHash('sha256').update(secret).digest('hex')
  const expiresMs = Date.UTC(2027, 0, 1)
  await fleet.invite('manager:alice', [{ agent, labels: { group: 'boilers' }, hash, expiresMs }])
  return secret
}

function request(agent: string): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return certificateRequest(privateKey, agent)
}

function say(bus: FakeBus, topic: string, what: object): void {
  bus.hear(`headgate/v1/${topic}`, new TextEncoder().encode(JSON.stringify(what)))
}

function configuration({ configKey, clock }: Bench, version: number): Uint8Array {
  const notBeforeMs = clock.wallMs()
  const times = { notBeforeMs, expiresMs: notBeforeMs + 3_600_000 }
  const what = { group: 'boilers', version, ...times, document: { n: version } }
  return sign({ kind: 'configuration', ...what }, configKey)
}

function command({ configKey, clock }: Bench, id: string): Uint8Array {
  const what = { agent: 'gw-001', id, command: 'flush', arguments: {} }
  return sign({ kind: 'command', ...what, expiresMs: clock.wallMs() + 3_600_000 }, configKey)
}

function resultOf(id: string) {
  return { id, command: 'flush', state: 'done', at: '2026-01-01T00:00:00Z', problems: [] }
}

test('a journal that cannot be written any more ends nothing', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  await fleet.command('manager:alice', command(bench, 'c1'))
  t.mock.method(fleet.journal, 'append', () => {
    throw new Error('ENOSPC')
  })
  fleet.cloned('gw-001')
  say(bus, 'gw-001/result/c1', resultOf('c1'))
  await assert.rejects(fleet.label('manager:alice', 'gw-001', {}), /ENOSPC/)
})

test('whom nobody can be is not revoked', async (t) => {
  const { fleet } = await openFleet(t)
  for (const name of ['manger:bob', 'manager:', 'manager:a:b', 'gw-001'])
    await assert.rejects(fleet.revoke('manager:alice', name), /no agent/, name)
  await fleet.revoke('manager:alice', 'manager:bob')
  assert.deepEqual([...fleet.state.revokedNames.keys()], ['manager:bob'])
})

test('a revoked agent is not listened to, though its broker still lets it talk', async (t) => {
  const { fleet, bus, enrol } = await openFleet(t)
  await enrol('gw-001')
  await fleet.revoke('manager:alice', 'gw-001')
  say(bus, 'gw-001/status', { agent: 'gw-001', online: true })
  say(bus, 'gw-002/status', { agent: 'gw-002', online: true })
  assert.deepEqual([...fleet.reports.heard.keys()], [], 'nor is somebody unknown')
})

/** Revokes an agent just when a certificate has been signed for it. */
function revokeWhileSigning(t: TestContext, { fleet, files }: Bench): void {
  const { authority } = files
  const sign = authority.sign.bind(authority)
  t.mock.method(authority, 'sign', async (...args: Parameters<typeof sign>) => {
    const issued = await sign(...args)
    await fleet.revoke('manager:alice', args[1])
    return issued
  })
}

test('an agent that is revoked while it enrols stays out', async (t) => {
  const bench = await openFleet(t)
  revokeWhileSigning(t, bench)
  await assert.rejects(bench.enrol('gw-001'), { code: 'token' })
  assert.equal(bench.fleet.state.members.size, 0)
})

test('an agent that is revoked while it renews gets no certificate that no list names', async (t) => {
  const bench = await openFleet(t)
  const { fleet, clock } = bench
  const asked = request('gw-001')
  const secret = await invited(fleet, 'gw-001')
  const { certificate } = await fleet.enrol(secret, asked, '127.0.0.1')
  clock.setWall(clock.wallMs() + 43_200_000)
  revokeWhileSigning(t, bench)
  const renewed = fleet.registry.renew(new X509Certificate(certificate), asked, '127.0.0.1')
  await assert.rejects(renewed, { code: 'revoked' })
  assert.deepEqual(fleet.state.members.get('gw-001')?.certificates, [])
})

test('an agent that was revoked and is let in again is sent what it had before', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  await fleet.push('manager:alice', configuration(bench, 1))
  await fleet.revoke('manager:alice', 'gw-001')
  await enrol('gw-001')
  const desired = bus.published.filter(({ topic }) => topic.endsWith('/gw-001/config/desired'))
  assert.deepEqual(
    desired.map(({ bytes }) => bytes > 0),
    [true, false, true],
  )
})

test('the result of a command is taken once, and none that nobody has asked for', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  await enrol('gw-002')
  await fleet.command('manager:alice', command(bench, 'c1'))
  const before = fleet.journal.length
  for (const topic of ['gw-001/result/c2', 'gw-002/result/c1', 'gw-001/result/c1'])
    for (let i = 0; i < 3; i++) say(bus, topic, resultOf(topic.split('/')[2]!))
  assert.equal(fleet.journal.length, before + 1)
  assert.equal(fleet.reports.results.size, 1)
  assert.equal(fleet.reports.results.get('gw-001 c1')?.state, 'done')
})

test('what a manager sends straight over the broker is written down, and nothing else is', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, clock, enrol } = bench
  await enrol('gw-001')
  await fleet.push('manager:alice', configuration(bench, 4))
  const send = (rest: string, envelope: Uint8Array, by?: string) =>
    bus.hear(`headgate/v1/gw-001/${rest}`, envelope, by)
  const before = fleet.journal.length
  const notBeforeMs = clock.wallMs()
  const seal = (what: object) =>
    sign(
      {
        ...{ kind: 'configuration', version: 5, notBeforeMs, expiresMs: notBeforeMs + 60_000 },
        ...{ document: {}, ...what },
      } as Configuration,
      bench.configKey,
    )
  const forged = seal({ agent: 'gw-001' })
  forged[forged.length - 1]! ^= 1
  for (const envelope of [
    forged,
    seal({ agent: 'gw-002' }),
    seal({ group: 'pumps' }),
    seal({ agent: 'gw-001', expiresMs: notBeforeMs }),
    seal({ agent: 'gw-001', version: 4 }),
    configuration(bench, 4),
    new Uint8Array(0),
  ])
    send('config/desired', envelope)
  send('command/other', command(bench, 'c1'))
  const straight = seal({ agent: 'gw-001' })
  send('config/desired', straight, 'manager:bob')
  await until(() => fleet.state.version === 5, 'it is known')
  send('command/c1', command(bench, 'c1'))
  send('command/c1', command(bench, 'c1'))
  say(bus, 'gw-001/result/c1', resultOf('c1'))
  await until(() => fleet.journal.length === before + 3, 'all is written down')

  const entries = (await text(await fleet.journal.lines())).trim().split('\n').slice(before)
  assert.deepEqual(
    entries.map((line) => JSON.parse(line)).map(({ by, fact }) => [by, fact.act]),
    [
      ['manager:bob', 'desire'],
      ['broker', 'command'],
      ['gw-001', 'result'],
    ],
  )
  assert.deepEqual(await fleet.envelope(5), straight)
  await assert.rejects(fleet.push('manager:alice', configuration(bench, 5)), /version 5 is used/)
  await fleet.push('manager:alice', configuration(bench, 6))
})

test('an agent that takes back what it says again and again does not fill the journal', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  for (let version = 1; version <= 60; version++)
    await fleet.push('manager:alice', configuration(bench, version))
  const before = fleet.journal.length
  for (let i = 0; i < 3_000; i++) {
    const state = Math.floor(i / 60) % 2 === 0 ? 'good' : 'reverted'
    const reported = { version: 0, since: '2026-01-01T00:00:00Z', problems: [] }
    say(bus, 'gw-001/config/reported', { ...reported, state, desired: (i % 60) + 1 })
  }
  const added = fleet.journal.length - before
  assert.ok(added >= 60 && added <= 600, `${added} entries`)
})

test('a gateway that lost the answer to its renewal gets another a minute later', async (t) => {
  const { fleet, clock } = await openFleet(t)
  const asked = request('gw-001')
  const { certificate } = await fleet.enrol(await invited(fleet, 'gw-001'), asked, '127.0.0.1')
  const renew = (shown: string) =>
    fleet.registry.renew(new X509Certificate(shown), asked, '127.0.0.1')
  clock.setWall(clock.wallMs() + 2 * 86_400_000)
  await renew(certificate) // Lost.
  await assert.rejects(renew(certificate), { code: 'early' })
  clock.setWall(clock.wallMs() + 60_000)
  const { certificate: newest } = await renew(certificate)
  clock.setWall(clock.wallMs() + 60_000)
  await assert.rejects(renew(newest), { code: 'early' }, 'it has the newest')
})

test('a configuration that was read for too long is not sent after a newer one', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  await fleet.push('manager:alice', configuration(bench, 1))
  const before = bus.published.length
  const published = fleet.republish()
  await fleet.revoke('manager:alice', 'gw-001')
  await published
  const after = bus.published.slice(before).filter(({ bytes }) => bytes > 0)
  assert.deepEqual(after, [])
})

test('what an agent says steers no terminal', async (t) => {
  const bench = await openFleet(t)
  const { fleet, bus, enrol } = bench
  await enrol('gw-001')
  await fleet.command('manager:alice', command(bench, 'c1'))
  const problems = [{ path: 'a\u009bb', message: 'no \u001b[2J\r\nway' }]
  const plain = [{ path: 'a b', message: 'no  [2J way' }]
  const since = '2026-01-01T00:00:00Z'
  say(bus, 'gw-001/config/reported', { version: 0, since, state: 'refused', desired: 1, problems })
  say(bus, 'gw-001/status', { agent: 'gw-001', online: true, source: 'up\u0007' })
  const result = { from: 'now\u001b[2J', gained: [{ 'k\u009b': 'a\u009bb' }] }
  say(bus, 'gw-001/result/c1', { ...resultOf('c1'), state: 'failed', problems, result })
  const { reported, status } = fleet.reports.heard.get('gw-001')!
  assert.deepEqual(reported?.problems, plain)
  assert.equal(status?.source, 'up ')
  const told = fleet.reports.results.get('gw-001 c1')
  assert.deepEqual(told?.problems, plain)
  assert.deepEqual(told?.result, { from: 'now [2J', gained: [{ 'k ': 'a b' }] })
})

test('of two gateways with one token at once one gets in, and the other is told why not', async (t) => {
  const { fleet } = await openFleet(t)
  const secret = await invited(fleet, 'gw-001')
  const both = await Promise.allSettled(
    [1, 2].map(() => fleet.enrol(secret, request('gw-001'), '127.0.0.1')),
  )
  assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const [refused] = both.filter((each) => each.status === 'rejected')
  assert.equal(refused!.reason.code, 'token_taken')
  assert.equal(fleet.member('gw-001').certificates.length, 1)
})
