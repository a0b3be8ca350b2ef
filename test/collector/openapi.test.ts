import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { Agent, fetch } from 'undici'
import { certificateRequest } from '../../agent/enrol/request.ts'
import { hashToken } from '../../collector/auth.ts'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import { openapi } from '../../collector/openapi.ts'
import { sign } from '../../shared/fleet/envelope.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { TestFleet } from '../support/fleet.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

interface Operation {
  parameters?: { name: string; in: string; required?: boolean; schema: object }[]
  requestBody?: { content: Record<string, { schema: object }> }
  responses: Record<string, { content: Record<string, { schema: object }> }>
}
const paths = openapi.paths as unknown as Record<string, Record<string, Operation>>
/** What only a full disk, a crowd or another engine brings about. */
const elsewhere = new Set(['503', '501', '429'])

/** Who asks, and how a request shows it. */
type Knock = (who: Who) => { headers?: Record<string, string>; dispatcher?: Agent }
type Who = Name | 'nobody'

const names = { agent: 'gw-001', reader: 'reader:one', some: 'reader:some', manager: 'manager:m' }
type Name = keyof typeof names
const token = (who: Name) => `${names[who]}.c2VjcmV0`

async function start(t: TestContext): Promise<string> {
  const folder = await temporaryDirectory(t)
  const lines = Object.keys(names).map((who) => {
    const hash = hashToken(token(who as Name)).toString('hex')
    return `${names[who as Name]} ${hash}${who === 'some' ? ' alerts' : ''}\n`
  })
  await writeFile(join(folder, 'tokens'), lines.join(''))
  const file = join(folder, 'collector.yaml')
  const auth = 'auth: { mode: token, tokens: ./tokens }'
  const sinks = 'sinks: [{ name: lake, parquet: { folder: ./lake } }]'
  await writeFile(file, `data: ./data\nhttp: { port: 0 }\n${auth}\n${sinks}\n`)
  const collector = await Collector.open(await loadCollectorConfig(file, {}), silentLog)
  cleanUp(t, () => collector.close())
  return collector.url
}

/** Asks a collector, and holds each answer to what the description says of it. */
class Examiner {
  /** `get /v1/streams 200`, `get /v1/streams/{stream}/records ?device`, `… text/csv` */
  readonly met = new Set<string>()
  readonly #url: string
  readonly #knock: Knock
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false })

  constructor(url: string, knock: Knock) {
    this.#url = url
    this.#knock = knock
    this.#ajv.addSchema({ $id: 'doc', components: openapi.components })
  }

  async ask(
    method: string,
    path: string,
    given: {
      status: number
      who?: Who
      path?: Record<string, string>
      query?: Record<string, string>
      headers?: Record<string, string>
      body?: string | Uint8Array
    },
  ): Promise<unknown> {
    const { status, who = 'manager', query = {}, headers = {}, body } = given
    const { headers: shown, dispatcher } = this.#knock(who)
    const operation = paths[path]?.[method]
    assert.ok(operation, `${method} ${path} is not described`)
    const known = (operation.parameters ?? []).map((each) => `${each.in} ${each.name}`)
    for (const name of Object.keys(query))
      if (status === 200) assert.ok(known.includes(`query ${name}`), `?${name} of ${path}`)
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => given.path?.[name] ?? name)
    const stop = new AbortController()
    const answer = await fetch(`${this.#url}${filled}?${new URLSearchParams(query)}`, {
      method: method.toUpperCase(),
      signal: stop.signal,
      ...(dispatcher && { dispatcher }),
      headers: {
        ...shown,
        ...(path !== '/v1/batches' && body ? { 'content-type': 'application/json' } : {}),
        ...headers,
      },
      ...(body && { body }),
    })
    const where = `${method} ${path} ${answer.status}`
    assert.equal(answer.status, status, where)
    const described = operation.responses[status]
    assert.ok(described, `${where} is not described`)
    const type = (answer.headers.get('content-type') ?? '').split(';')[0]!
    const content = described.content[type]
    assert.ok(content, `${where}: ${type} is not described`)
    for (const each of [where, ...Object.keys(query).map((name) => `${method} ${path} ?${name}`)])
      this.met.add(each)
    this.met.add(`${where} ${type}`)
    const asked = operation.requestBody?.content['application/json']
    if (asked && status === 200)
      this.#holds(asked.schema, JSON.parse(String(body)), `${where} asked`)
    if (/\/(tail|events)$/.test(path) && status === 200) {
      stop.abort()
      return undefined
    }
    if (type !== 'application/json') return answer.text()
    const document: unknown = await answer.json()
    this.#holds(content.schema, document, where)
    return document
  }

  /** What is described of some paths and was not asked for. */
  missed(isOurs: (path: string) => boolean): string[] {
    const missed: string[] = []
    for (const [path, operations] of Object.entries(paths).filter(([path]) => isOurs(path)))
      for (const [method, { parameters = [], responses }] of Object.entries(operations)) {
        const all = [
          ...parameters.filter((each) => each.in === 'query').map(({ name }) => `?${name}`),
          ...Object.entries(responses).flatMap(([status, { content }]) =>
            Object.keys(content).map((type) => `${status} ${type}`),
          ),
        ]
        for (const each of all)
          if (!this.met.has(`${method} ${path} ${each}`) && !elsewhere.has(each.slice(0, 3)))
            missed.push(`${method} ${path} ${each}`)
      }
    return missed
  }

  #holds(described: object, document: unknown, where: string): void {
    const schema = JSON.parse(JSON.stringify(described).replaceAll('"#/', '"doc#/'))
    const validate = this.#ajv.compile(schema)
    assert.ok(validate(document), `${where}: ${JSON.stringify(validate.errors)}`)
  }
}

test('every path, parameter, format and status that is described is so, on a running collector', async (t) => {
  const examiner = new Examiner(await start(t), (who) =>
    who === 'nobody' ? {} : { headers: { authorization: `Bearer ${token(who)}` } },
  )
  const ask = examiner.ask.bind(examiner)
  const agent = new TestAgent()
  const batch = agent.readings(3, { ledger: { received: 3, settledMs: 1 } })
  const sending = { 'content-type': 'application/cbor', 'content-encoding': 'gzip' }
  const post = (status: number, body: Uint8Array, who: Who = 'agent', headers = sending) =>
    ask('post', '/v1/batches', { status, who, headers, body })
  await post(200, batch.body())
  agent.next += 5
  await post(409, agent.readings(1).body())
  await post(400, new TextEncoder().encode('nothing'))
  await post(413, new Uint8Array(2 ** 21))
  await post(415, batch.body(), 'agent', { ...sending, 'content-type': 'text/plain' })
  await post(401, batch.body(), 'nobody')
  await post(403, batch.body(), 'reader')

  const whole = [
    '/v1/log',
    '/v1/streams',
    '/v1/groups',
    '/v1/verify',
    '/v1/openapi.json',
    '/metrics',
  ]
  for (const path of whole) {
    await ask('get', path, { status: 200, who: 'reader' })
    await ask('get', path, { status: 401, who: 'nobody' })
    await ask('get', path, { status: 403, who: 'agent' })
  }
  await ask('get', '/healthz', { status: 200, who: 'nobody' })
  await ask('get', '/readyz', { status: 200, who: 'nobody' })

  const every = { from: '0', to: '3', partition: '0', device: 'pump-1', metric: 'temperature' }
  const stream = { stream: 'readings' }
  for (const kind of ['records', 'tail'] as const) {
    const path = `/v1/streams/{stream}/${kind}`
    const formats = ['ndjson', 'csv', 'cbor', ...(kind === 'records' ? ['parquet'] : [])]
    for (const format of formats)
      await ask('get', path, { status: 200, path: stream, query: { ...every, format } })
    await ask('get', path, { status: 200, path: stream, headers: { 'last-event-id': '1' } })
    await ask('get', path, { status: 400, path: stream, query: { from: 'noon' } })
    await ask('get', path, { status: 400, path: stream, query: { colour: 'red' } })
    await ask('get', path, { status: 401, path: stream, who: 'nobody' })
    await ask('get', path, { status: 403, path: stream, who: 'some' })
  }

  const hour = { device: 'pump-1', from: '2026-01-01T00:00Z', to: '2026-01-01T01:00Z' }
  for (const query of [hour, { ...hour, agent: 'gw-001' }, { ...hour, device: 'none' }])
    await ask('get', '/v1/completeness', { status: 200, query })
  await ask('get', '/v1/completeness', { status: 400, query: { device: 'pump-1' } })
  await ask('get', '/v1/completeness', { status: 401, who: 'nobody', query: hour })
  await ask('get', '/v1/completeness', { status: 403, who: 'some', query: hour })

  const one = '/v1/groups/{group}/{stream}'
  const etl = { group: 'etl', stream: 'readings' }
  const stale = '0'.repeat(32)
  const call = (verb: string, status: number, body: unknown, who: Who = 'manager') =>
    ask('post', `${one}/${verb}`, {
      status,
      who,
      path: etl,
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
  for (const [verb, good] of [
    ['commit', { session: stale, next: { 0: 1 } }],
    ['leave', { session: stale }],
    ['seek', { next: [1] }],
  ] as const)
    await call(verb, 404, good)
  const leased = (await call('lease', 200, {
    consumer: 'a',
    leaseMs: 60_000,
    from: 'beginning',
  })) as {
    session: string
  }
  const { session } = leased
  await ask('get', one, { status: 200, path: etl })
  await call('lease', 409, { consumer: 'a', session: stale })
  await call('commit', 200, { session, next: { 0: 2 } })
  await call('commit', 409, { session: stale, next: { 0: 2 } })
  await call('seek', 409, { next: [1] })
  await call('leave', 200, { session })
  await call('seek', 200, { next: [1] })
  for (const verb of ['lease', 'commit', 'leave', 'seek']) {
    await call(verb, 400, '{')
    await call(verb, 413, `"${'x'.repeat(40_000)}"`)
    await call(verb, 401, {}, 'nobody')
    await call(verb, 403, {}, 'some')
  }
  await ask('get', one, { status: 401, path: etl, who: 'nobody' })
  await ask('get', one, { status: 403, path: etl, who: 'some' })
  await ask('delete', one, { status: 401, path: etl, who: 'nobody' })
  await ask('delete', one, { status: 403, path: etl, who: 'reader' })
  await ask('delete', one, { status: 200, path: etl })
  await ask('delete', one, { status: 404, path: etl })
  await ask('get', one, { status: 404, path: etl })

  const lake = { sink: 'lake' }
  await ask('get', '/v1/sinks', { status: 200 })
  await ask('get', '/v1/sinks', { status: 401, who: 'nobody' })
  await ask('get', '/v1/sinks', { status: 403, who: 'reader' })
  for (const verb of ['pause', 'backfill', 'resume']) {
    const path = `/v1/sinks/{sink}/${verb}`
    const body = verb === 'backfill' ? '{"from":"0"}' : '{}'
    await ask('post', path, { status: 200, path: lake, body })
    await ask('post', path, { status: 400, path: lake, body: '{' })
    await ask('post', path, { status: 404, path: { sink: 'none' }, body })
    await ask('post', path, { status: 415, path: lake })
    await ask('post', path, { status: 401, path: lake, who: 'nobody', body })
    await ask('post', path, { status: 403, path: lake, who: 'reader', body })
  }
  const dead = '/v1/sinks/{sink}/dead'
  await ask('get', dead, { status: 200, path: lake })
  await ask('get', dead, { status: 404, path: { sink: 'none' } })
  await ask('get', dead, { status: 401, path: lake, who: 'nobody' })
  await ask('get', dead, { status: 403, path: lake, who: 'reader' })

  assert.deepEqual(
    examiner.missed((path) => !path.startsWith('/v1/fleet/')),
    [],
  )
})

test('every route of the fleet is as described, on a running collector', async (t) => {
  const fleet = await TestFleet.start(t, 'certificates: 1m')
  const { ca, cert, key, configKey } = fleet.files
  const agents = new Map<Who, Agent>()
  const show = (who: Who, tls: { cert?: string; key?: string }) => {
    const dispatcher = new Agent({ connect: { ca, ...tls, allowPartialTrustChain: true } })
    cleanUp(t, () => dispatcher.destroy())
    agents.set(who, dispatcher)
  }
  show('manager', { cert, key })
  show('nobody', {})
  const examiner = new Examiner(fleet.url, (who) => ({ dispatcher: agents.get(who)! }))
  const ask = examiner.ask.bind(examiner)
  const get = (
    path: string,
    status: number,
    more: { who?: Who; path?: Record<string, string> } = {},
  ) => ask('get', `/v1/fleet/${path}`, { status, ...more })
  const send = (
    path: string,
    status: number,
    content: unknown,
    more: { who?: Who; path?: Record<string, string>; method?: string } = {},
  ) =>
    ask(more.method ?? 'post', `/v1/fleet/${path}`, {
      status,
      ...more,
      body: typeof content === 'string' ? content : JSON.stringify(content),
    })

  await get('ca', 200, { who: 'nobody' })
  const secrets = ['gw-1', 'gw-2'].map((agent) => ({ agent, secret: randomBytes(16) }))
  const invitations = secrets.map(({ agent, secret }) => ({
    agent,
    hash: createHash('sha256').update(secret).digest('hex'),
  }))
  await send('invitations', 200, { invitations, ttlMs: 60_000 })
  const enrolling = ({ secret }: (typeof secrets)[number], privateKey: KeyObject) => ({
    token: secret.toString('base64url'),
    request: certificateRequest(privateKey, 'gateway'),
  })
  const keys = [0, 1].map(() => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const asked = enrolling(secrets[0]!, keys[0]!)
  const as = { who: 'nobody' } as const
  const papers = (await send('enrol', 200, asked, as)) as {
    certificate: string
    fleetBroker: string
  }
  await send('enrol', 403, { ...asked, token: 'AAAA' }, as)
  await send('enrol', 400, '{', as)
  await send('enrol', 413, 'x'.repeat(20_000), as)
  const tls = {
    cert: papers.certificate,
    key: keys[0]!.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
  show('agent', tls)
  await get('self', 200, { who: 'agent' })
  await get('self', 401, as)
  await get('self', 404)

  const managed = Object.entries(paths).filter(
    ([path]) => /^\/v1\/fleet\//.test(path) && !/\/(ca|enrol|renew|self)$/.test(path),
  )
  for (const [path, operations] of managed)
    for (const [method, { requestBody }] of Object.entries(operations)) {
      await ask(method, path, { status: 401, who: 'nobody' })
      await ask(method, path, { status: 403, who: 'agent' })
      if (!requestBody) continue
      await ask(method, path, { status: 400, body: '{' })
      await ask(method, path, { status: 413, body: 'x'.repeat(2 ** 23 + 1) })
    }

  const one = { path: { agent: 'gw-1' } }
  const none = { path: { agent: 'gw-9', id: '9', version: '9' } }
  const group = 'boilers'
  await send('agents/{agent}/labels', 200, { labels: { group } }, { ...one, method: 'put' })
  await send('agents/{agent}/labels', 404, { labels: {} }, { ...none, method: 'put' })
  await ask('get', '/v1/fleet/agents', { status: 200, query: { group } })

  const nowMs = Date.now()
  const times = { notBeforeMs: nowMs - 1_000, expiresMs: nowMs + 3_600_000 }
  const sealed = (content: object) => ({
    envelope: Buffer.from(
      sign({ ...times, ...content } as Parameters<typeof sign>[0], configKey),
    ).toString('base64'),
  })
  const version = (number: number, target: object = { agent: 'gw-1' }) =>
    sealed({ kind: 'configuration', version: number, document: { n: number }, ...target })
  const forged = { envelope: Buffer.from('forged').toString('base64') }
  await send('desired', 200, version(1))
  await send('desired', 409, version(1))
  await send('desired', 404, version(2, { group: 'none' }))
  await send('desired', 400, forged)
  await get('version', 200)
  await get('versions/{version}', 200, { path: { version: '1' } })
  await get('versions/{version}', 404, none)

  const command = (agent: string) =>
    sealed({ kind: 'command', agent, id: 'c1', command: 'flush', arguments: {} })
  await send('commands', 409, command('gw-1'))
  await send('commands', 404, command('gw-9'))
  await send('commands', 400, forged)
  const { fleetBroker } = papers
  const buffers = { cert: Buffer.from(tls.cert), key: Buffer.from(tls.key), ca: Buffer.from(ca) }
  const client = await fleet.connect({ name: 'gw-1', data: '', fleetBroker, tls: buffers })
  const say = (topic: string, content: object) =>
    client.publishAsync(`headgate/v1/gw-1/${topic}`, JSON.stringify(content), {
      qos: 1,
      retain: !topic.startsWith('result/'),
    })
  const at = new Date(nowMs).toISOString()
  await say('config/reported', { version: 1, since: at, state: 'good', desired: 1, problems: [] })
  await say('status', { agent: 'gw-1', online: true, at, uptimeS: 1 })
  await until(async () => (await fleet.client.agent('gw-1')).online, 'it is online')
  await send('commands', 200, command('gw-1'))
  await say('result/c1', {
    id: 'c1',
    command: 'flush',
    state: 'done',
    at,
    problems: [],
    result: {},
  })
  await until(async () => !!(await fleet.client.result('gw-1', 'c1')), 'the result has come')
  await get('results/{agent}/{id}', 200, { path: { agent: 'gw-1', id: 'c1' } })
  await get('results/{agent}/{id}', 404, none)
  await get('agents', 200)
  const known = (await get('agents/{agent}', 200, one)) as { history: unknown[]; status: unknown }
  assert.ok(known.history.length > 0 && known.status, JSON.stringify(known))
  await get('agents/{agent}', 404, none)

  const rollout = (number: number, target = group) => ({
    ...version(number, { group: target }),
    reverts: [],
    waves: [{ count: 1 }],
    pauseMs: 0,
    maxFailures: { count: 0 },
    minGoodPercent: 100,
    timeoutMs: 60_000,
  })
  const { id } = (await send('rollouts', 200, rollout(2))) as { id: string }
  await send('rollouts', 409, rollout(3))
  await send('rollouts', 404, rollout(3, 'none'))
  await send('rollouts', 400, { ...rollout(3), ...forged })
  await get('rollouts', 200)
  await get('rollouts/{id}', 200, { path: { id } })
  await get('rollouts/{id}', 404, none)
  for (const verb of ['halt', 'resume']) {
    await send(`rollouts/{id}/${verb}`, 200, { why: 'to see' }, { path: { id } })
    await send(`rollouts/{id}/${verb}`, 409, {}, { path: { id } })
    await send(`rollouts/{id}/${verb}`, 404, {}, none)
  }
  await get('events', 200)
  await get('audit', 200)
  await send('revoke', 200, { name: 'gw-2' })
  await send('revoke', 404, { name: 'gw-9' })
  await get('crl', 200)

  const renewing = (privateKey: KeyObject) => ({ request: certificateRequest(privateKey, 'gw-1') })
  const url = `${fleet.url}/v1/fleet/renew`
  const body = JSON.stringify(renewing(keys[1]!))
  await until(
    async () => {
      const answer = await fetch(url, { method: 'POST', body, dispatcher: agents.get('agent')! })
      await answer.body?.cancel()
      return answer.status !== 429
    },
    'the certificate may be renewed',
    20_000,
  )
  const own = { who: 'agent' } as const
  await send('renew', 403, renewing(keys[1]!), own)
  await send('renew', 200, renewing(keys[0]!), own)
  await send('renew', 429, renewing(keys[0]!), own)
  await send('renew', 401, renewing(keys[0]!), as)
  await send('renew', 400, '{', own)
  await send('renew', 413, 'x'.repeat(20_000), own)
  assert.deepEqual(
    examiner.missed((path) => path.startsWith('/v1/fleet/')),
    [],
  )
})

test('every path that the server knows is described', async () => {
  const described = Object.keys(paths)
  const found = new Set<string>()
  for (const file of [
    'collector.ts',
    'streams.ts',
    'completeness.ts',
    'permits.ts',
    'groups/api.ts',
    'sinks/sinks.ts',
  ]) {
    const text = await readFile(new URL(`../../collector/${file}`, import.meta.url), 'utf8')
    for (const [, path] of text.matchAll(/'(\/(?:v1\/[a-z./]+|healthz|readyz|metrics))'/g))
      found.add(path!)
    for (const [, verbs] of text.matchAll(/\(\?:?\\\/\(([a-z|]+)\)\)\?\$/g))
      for (const verb of verbs!.split('|')) found.add(`/v1/groups/{group}/{stream}/${verb}`)
    for (const [, verbs] of text.matchAll(/\\\/\((pause[a-z|]+)\)\$/g))
      for (const verb of verbs!.split('|')) found.add(`/v1/sinks/{sink}/${verb}`)
  }
  const fleet = await readFile(new URL('../../collector/fleet/api.ts', import.meta.url), 'utf8')
  for (const [, method, path] of fleet.matchAll(/['^](GET|POST|PUT|DELETE) ([^'$]+)['$]/g)) {
    const verbs = /\(([a-z|]+)\)$/.exec(path!)?.[1]?.split('|') ?? ['']
    for (const verb of verbs) {
      const pattern = path!.replace(/\([a-z|]+\)$/, verb).replaceAll(/\([^)]+\)/g, '\\{[a-z]+\\}')
      const known = described.find((each) => new RegExp(`^/v1/fleet/${pattern}$`).test(each))
      assert.ok(known && paths[known]![method!.toLowerCase()], `${method} ${path} is not described`)
    }
  }
  assert.ok(found.size >= 9, [...found].join())
  for (const path of found)
    assert.ok(
      described.some((each) => each.startsWith(path)),
      `${path} is not described`,
    )
})
