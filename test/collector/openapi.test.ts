import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { hashToken } from '../../collector/auth.ts'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import { openapi } from '../../collector/openapi.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

interface Operation {
  parameters?: { name: string; in: string; required?: boolean; schema: object }[]
  requestBody?: { content: Record<string, { schema: object }> }
  responses: Record<string, { content: Record<string, { schema: object }> }>
}
const paths = openapi.paths as unknown as Record<string, Record<string, Operation>>
/** What only a full disk, a crowd or another engine brings about. */
const elsewhere = new Set(['503', '501', '429'])

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
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false })

  constructor(url: string) {
    this.#url = url
    this.#ajv.addSchema({ $id: 'doc', components: openapi.components })
  }

  async ask(
    method: string,
    path: string,
    given: {
      status: number
      who?: Name | 'nobody'
      path?: Record<string, string>
      query?: Record<string, string>
      headers?: Record<string, string>
      body?: string | Uint8Array
    },
  ): Promise<unknown> {
    const { status, who = 'manager', query = {}, headers = {}, body } = given
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
      headers: {
        ...(who !== 'nobody' && { authorization: `Bearer ${token(who)}` }),
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
    if (path.endsWith('/tail') && status === 200) {
      stop.abort()
      return undefined
    }
    if (type !== 'application/json') return answer.text()
    const document: unknown = await answer.json()
    const schema = JSON.parse(JSON.stringify(content.schema).replaceAll('"#/', '"doc#/'))
    const validate = this.#ajv.compile(schema)
    assert.ok(validate(document), `${where}: ${JSON.stringify(validate.errors)}`)
    return document
  }
}

test('every path, parameter, format and status that is described is so, on a running collector', async (t) => {
  const examiner = new Examiner(await start(t))
  const ask = examiner.ask.bind(examiner)
  const agent = new TestAgent()
  const batch = agent.readings(3, { ledger: { received: 3, settledMs: 1 } })
  const sending = { 'content-type': 'application/cbor', 'content-encoding': 'gzip' }
  const post = (
    status: number,
    body: Uint8Array,
    who: Name | 'nobody' = 'agent',
    headers = sending,
  ) => ask('post', '/v1/batches', { status, who, headers, body })
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
  const call = (verb: string, status: number, body: unknown, who: Name | 'nobody' = 'manager') =>
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

  const missed: string[] = []
  for (const [path, operations] of Object.entries(paths))
    for (const [method, { parameters = [], responses }] of Object.entries(operations)) {
      const all = [
        ...parameters.filter((each) => each.in === 'query').map(({ name }) => `?${name}`),
        ...Object.entries(responses).flatMap(([status, { content }]) =>
          Object.keys(content).map((type) => `${status} ${type}`),
        ),
      ]
      for (const each of all)
        if (!examiner.met.has(`${method} ${path} ${each}`) && !elsewhere.has(each.slice(0, 3)))
          missed.push(`${method} ${path} ${each}`)
    }
  assert.deepEqual(missed, [])
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
  assert.ok(found.size >= 9, [...found].join())
  for (const path of found)
    assert.ok(
      described.some((each) => each.startsWith(path)),
      `${path} is not described`,
    )
})
