import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import type { MqttClient } from 'mqtt'
import { Agent, request } from 'undici'
import { ApiRefused } from '../../collector/fleet-command/client.ts'
import { type Document, open, sign, type Target } from '../../shared/fleet/envelope.ts'
import type { Reported } from '../../shared/fleet/reports.ts'
import { type Gateway, TestFleet } from '../support/fleet.ts'
import { until } from '../support/until.ts'

const hourMs = 3_600_000

function seal(
  fleet: TestFleet,
  target: Target,
  version: number,
  document: Document = { n: version },
) {
  const nowMs = Date.now()
  return sign(
    {
      kind: 'configuration',
      ...target,
      version,
      notBeforeMs: nowMs - 1_000,
      expiresMs: nowMs + hourMs,
      document,
    },
    fleet.files.configKey,
  )
}

/** What an agent does with a configuration, in so far as the collector sees it. */
class FakeAgent {
  readonly versions: number[] = []
  readonly #client: MqttClient
  readonly #name: string

  private constructor(client: MqttClient, name: string) {
    this.#client = client
    this.#name = name
  }

  /** @param verdict what it reports of a version */
  static async start(
    fleet: TestFleet,
    gateway: Gateway,
    verdict: (version: number) => Reported['state'] | undefined = () => 'good',
  ): Promise<FakeAgent> {
    const client = await fleet.connect(gateway)
    const agent = new FakeAgent(client, gateway.name)
    client.on('message', (_topic, payload) => {
      const { version } = open('configuration', payload, fleet.files.configPublic)
      agent.versions.push(version)
      const state = verdict(version)
      if (state) agent.report(version, state).catch(() => {}) // The test may be over.
    })
    const status = JSON.stringify({ agent: gateway.name, online: true })
    await client.publishAsync(`headgate/v1/${gateway.name}/status`, status, {
      qos: 1,
      retain: true,
    })
    await client.subscribeAsync(`headgate/v1/${gateway.name}/config/desired`, { qos: 1 })
    return agent
  }

  async report(desired: number, state: Reported['state']): Promise<void> {
    const reported: Reported = {
      version: state === 'good' ? desired : 0,
      since: new Date().toISOString(),
      state,
      desired,
      problems: state === 'good' ? [] : [{ path: 'filter.0', message: 'too strict' }],
    }
    const topic = `headgate/v1/${this.#name}/config/reported`
    await this.#client.publishAsync(topic, JSON.stringify(reported), { qos: 1, retain: true })
  }
}

async function group(t: Parameters<typeof TestFleet.start>[0], count: number) {
  const fleet = await TestFleet.start(t)
  const gateways: Gateway[] = []
  for (let i = 1; i <= count; i++) gateways.push(await fleet.enrol(`gw-${i}`, { group: 'boilers' }))
  return { fleet, gateways }
}
const plan = {
  waves: [{ count: 1 }, { percent: 100 }],
  pauseMs: 0,
  maxFailures: { count: 0 },
  minGoodPercent: 100,
  timeoutMs: hourMs,
}

test('a configuration reaches its agent, also one that was away, and what became of it is known', async (t) => {
  const { fleet, gateways } = await group(t, 2)
  const one = await FakeAgent.start(fleet, gateways[0]!)
  assert.deepEqual(await fleet.client.push(seal(fleet, { group: 'boilers' }, 1)), {
    version: 1,
    agents: ['gw-1', 'gw-2'],
  })
  await until(() => one.versions.length === 1, 'it has come')
  await until(async () => (await fleet.client.agent('gw-1')).history?.[0]?.state === 'good', 'good')

  await fleet.down()
  await fleet.up()
  assert.equal((await fleet.client.agent('gw-1')).history?.[0]?.state, 'good')
  const two = await FakeAgent.start(fleet, await moved(fleet, gateways[1]!))
  await until(() => two.versions.includes(1), 'it is there after a restart of the collector')

  const late = await fleet.enrol('gw-3', { group: 'pumps,boilers' })
  const three = await FakeAgent.start(fleet, late)
  await until(() => three.versions.includes(1), 'who joins the group later gets it too')
})

/** The broker has another port after a restart, for it took a free one. */
async function moved(fleet: TestFleet, gateway: Gateway): Promise<Gateway> {
  const { fleetBroker } = await fleet.enrol('probe')
  return { ...gateway, fleetBroker }
}

test('only what is signed with the fleet’s key, newer than all before, and for somebody goes out', async (t) => {
  const { fleet } = await group(t, 1)
  const refused = (envelope: Uint8Array, code: string) =>
    assert.rejects(
      fleet.client.push(envelope),
      (error) => error instanceof ApiRefused && error.code === code,
    )
  const good = seal(fleet, { agent: 'gw-1' }, 5)
  await refused(good.with(good.length - 1, good.at(-1)! ^ 1), 'ENVELOPE_FORGED')
  const { privateKey } = generateKeyPairSync('ed25519')
  const foreign = { ...fleet, files: { ...fleet.files, configKey: privateKey } } as TestFleet
  await refused(seal(foreign, { agent: 'gw-1' }, 5), 'ENVELOPE_FORGED')
  await refused(seal(fleet, { agent: 'gw-9' }, 5), 'agent')
  await refused(seal(fleet, { group: 'pumps' }, 5), 'group')
  await refused(new Uint8Array(300_000), 'ENVELOPE_TOO_LARGE')
  await fleet.client.push(good)
  await refused(seal(fleet, { agent: 'gw-1' }, 5), 'version')
  await refused(seal(fleet, { agent: 'gw-1' }, 4), 'version')
})

test('a collector that has lost what it knew of versions lets a manager go on all the same', async (t) => {
  const { fleet, gateways } = await group(t, 1)
  const agent = await FakeAgent.start(fleet, gateways[0]!)
  await agent.report(7, 'good')
  assert.deepEqual([await fleet.client.version(), await fleet.client.version('gw-1')], [0, 7])
  assert.equal(await fleet.client.envelope(7), undefined)
  await fleet.client.push(seal(fleet, { agent: 'gw-1' }, 8))
  assert.equal(await fleet.client.version(), 8)
})

test('of two managers at once one gets the version, and the other is told', async (t) => {
  const { fleet } = await group(t, 2)
  const pushes = await Promise.allSettled([
    fleet.client.push(seal(fleet, { agent: 'gw-1' }, 1)),
    fleet.client.push(seal(fleet, { agent: 'gw-2' }, 1)),
  ])
  assert.deepEqual(pushes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  const rejected = pushes.find(({ status }) => status === 'rejected') as PromiseRejectedResult
  assert.match(rejected.reason.message, /somebody else has pushed/)
})

test('a rollout goes wave by wave to the end, over a restart of the collector', async (t) => {
  const { fleet, gateways } = await group(t, 3)
  const before: FakeAgent[] = []
  for (const gateway of gateways)
    before.push(await FakeAgent.start(fleet, gateway, () => undefined))
  const { id } = await fleet.client.rollout({
    ...plan,
    envelope: seal(fleet, { group: 'boilers' }, 1),
    reverts: [],
  })
  await until(() => before[0]!.versions.length === 1, 'the first wave')
  await fleet.down()
  await fleet.up()
  const again: FakeAgent[] = []
  for (const gateway of gateways)
    again.push(await FakeAgent.start(fleet, await moved(fleet, gateway)))
  await until(
    async () => (await fleet.client.rolloutOf(id)).phase === 'finished',
    'it ends',
    20_000,
  )
  const view = await fleet.client.rolloutOf(id)
  assert.equal(view.good, 3)
  assert.deepEqual(
    view.waves.map(({ agents }) => agents),
    [1, 2],
  )
})

test('a rollout that meets a bad wave halts, and sends those that have it what they had before', async (t) => {
  const { fleet, gateways } = await group(t, 3)
  const agents: FakeAgent[] = []
  for (const gateway of gateways)
    agents.push(
      await FakeAgent.start(fleet, gateway, (version) =>
        version === 2 && gateway.name === 'gw-2' ? 'reverted' : 'good',
      ),
    )
  await fleet.client.push(seal(fleet, { group: 'boilers' }, 1))
  await until(() => agents.every(({ versions }) => versions.includes(1)), 'all have the first')
  const { id } = await fleet.client.rollout({
    ...plan,
    waves: [{ count: 1 }, { count: 2 }, { percent: 100 }],
    envelope: seal(fleet, { group: 'boilers' }, 2),
    reverts: [{ envelope: seal(fleet, { group: 'boilers' }, 3), agents: ['gw-1', 'gw-2', 'gw-3'] }],
  })
  await until(async () => (await fleet.client.rolloutOf(id)).phase === 'halted', 'it halts', 20_000)
  await until(() => agents[1]!.versions.includes(3), 'and goes back')
  const view = await fleet.client.rolloutOf(id)
  assert.match(view.why!, /1 of 2 agents failed/)
  assert.equal(view.reverted, 2)
  assert.deepEqual(agents[0]!.versions, [1, 2, 3])
  assert.deepEqual(agents[2]!.versions, [1], 'the third never saw it')
})

test('a command reaches its agent and its result the manager; to one that is away it is refused', async (t) => {
  const { fleet, gateways } = await group(t, 1)
  const command = (id: string) =>
    sign(
      {
        kind: 'command',
        agent: 'gw-1',
        id,
        command: 'flush',
        arguments: {},
        expiresMs: Date.now() + hourMs,
      },
      fleet.files.configKey,
    )
  await assert.rejects(fleet.client.command(command('c0')), /offline/)
  const client = await fleet.connect(gateways[0]!)
  await client.subscribeAsync('headgate/v1/gw-1/command/+', { qos: 1 })
  const came = once(client as never, 'message')
  await fleet.client.command(command('c1'))
  const [topic, payload] = await came
  assert.equal(topic, 'headgate/v1/gw-1/command/c1')
  assert.equal(open('command', payload, fleet.files.configPublic).command, 'flush')
  assert.equal(await fleet.client.result('gw-1', 'c1'), undefined)
  const result = {
    id: 'c1',
    command: 'flush',
    state: 'done',
    at: new Date().toISOString(),
    problems: [],
  }
  await client.publishAsync('headgate/v1/gw-1/result/c1', JSON.stringify(result), { qos: 1 })
  assert.equal((await fleet.client.result('gw-1', 'c1'))?.state, 'done')
})

test('a result that is nested without end is none, and ends neither the collector nor who watches', async (t) => {
  const { fleet, gateways } = await group(t, 1)
  const client = await fleet.connect(gateways[0]!)
  const watching = fleet.client.events(AbortSignal.timeout(30_000))[Symbol.asyncIterator]()
  const next = watching.next()
  await fleet.client.label('gw-1', { site: 'berlin' })
  assert.equal((await next).value.kind, 'fleet')
  const nowMs = Date.now()
  const about = { agent: 'gw-1', command: 'diagnostics', arguments: {}, expiresMs: nowMs + hourMs }
  for (const id of ['c1', 'c2'])
    await fleet.client.command(sign({ kind: 'command', id, ...about }, fleet.files.configKey))
  const answer = (id: string, result: string) =>
    client.publishAsync(
      `headgate/v1/gw-1/result/${id}`,
      `{"id":"${id}","command":"diagnostics","state":"done","at":"2026-01-01T00:00:00Z","problems":[],"result":{"a":${result}}}`,
      { qos: 1 },
    )
  await answer('c1', `${'['.repeat(30_000)}${']'.repeat(30_000)}`)
  await answer('c2', '[[1]]')
  await until(
    async () => (await fleet.client.result('gw-1', 'c2'))?.state === 'done',
    'what makes sense is heard',
  )
  assert.equal(await fleet.client.result('gw-1', 'c1'), undefined)
})

test('what makes no sense is answered, and changes nothing', async (t) => {
  const { fleet } = await group(t, 1)
  const { ca, cert, key } = fleet.files
  const dispatcher = new Agent({ connect: { ca, cert, key } })
  t.after(() => dispatcher.destroy())
  const before = await fleet.journal()
  const ask = async (method: 'GET' | 'POST' | 'PUT', path: string, body?: string) => {
    const answer = await request(`${fleet.url}/v1/fleet/${path}`, {
      method,
      dispatcher,
      ...(body !== undefined && { body }),
    })
    await answer.body.dump()
    return answer.statusCode
  }
  const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`
  const cases: [number, 'GET' | 'POST' | 'PUT', string, string?][] = [
    [404, 'GET', 'agents/%'],
    [404, 'GET', 'agents/__proto__'],
    [404, 'GET', 'agents/gw-9'],
    [404, 'GET', 'versions/9'],
    [404, 'GET', 'rollouts/9'],
    [404, 'GET', 'elsewhere'],
    [400, 'POST', 'desired', '{"envelope":"AAAA"}'],
    [400, 'POST', 'desired', '{"envelope":1}'],
    [400, 'POST', 'desired', 'no json'],
    [400, 'POST', 'desired', deep],
    [400, 'POST', 'desired', ''],
    [400, 'POST', 'invitations', '{"invitations":[{"agent":"a/b","hash":"x"}],"ttlMs":1000}'],
    [400, 'PUT', 'agents/gw-1/labels', '{"labels":{"__proto__x y":"1"}}'],
    [413, 'POST', 'desired', 'x'.repeat(9 * 2 ** 20)],
    [413, 'POST', 'enrol', 'x'.repeat(20_000)],
    [400, 'POST', 'enrol', '{"token":"AA","request":"no request"}'],
  ]
  for (const [status, method, path, body] of cases)
    assert.equal(await ask(method, path, body), status, `${method} ${path} ${body?.slice(0, 40)}`)
  const facts = (await fleet.journal()).slice(before.length).trim().split('\n')
  assert.deepEqual(
    facts.map((line) => JSON.parse(line).fact.act),
    ['refuse'],
    'only the refused enrolment is written down',
  )
})
