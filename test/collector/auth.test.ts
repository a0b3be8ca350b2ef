import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { hashToken, TokenAuth } from '../../collector/auth.ts'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import { systemClock } from '../../shared/system.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { post } from '../support/collector.ts'
import { Headgate } from '../support/process.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

const line = (name: string, token: string) => `${name} ${hashToken(token).toString('hex')}\n`

test('with tokens each agent sends under its own name, a reader reads, and a stranger does nothing', async (t) => {
  const folder = await temporaryDirectory(t)
  const [agent, reader] = ['gw-001.c2VjcmV0', 'reader:grafana.c2VjcmV0']
  await writeFile(
    join(folder, 'tokens'),
    `# who may\n${line('gw-001', agent)}${line('reader:grafana', reader)}`,
  )
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    'data: ./data\nhttp: { port: 0 }\nauth: { mode: token, tokens: ./tokens }\n',
  )
  const collector = await Collector.open(await loadCollectorConfig(file, {}), silentLog)
  cleanUp(t, () => collector.close())
  const { url } = collector
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
  const send = async (token: string | undefined, name = 'gw-001') => {
    const body = new TestAgent({ name }).readings(1).body('gzip')
    return (await post(url, body, token === undefined ? {} : bearer(token))).status
  }
  assert.equal(await send(agent), 200)
  assert.equal(await send(agent, 'gw-002'), 403, 'under another name')
  assert.equal(await send(reader), 403)
  for (const wrong of [undefined, 'gw-001.other', 'gw-002.c2VjcmV0', 'gw-001', '.', 'gw-001.'])
    assert.equal(await send(wrong), 401, String(wrong))
  const read = (headers: Record<string, string>) => fetch(`${url}/v1/streams`, { headers })
  assert.equal((await read(bearer(reader))).status, 200)
  assert.equal((await read(bearer(agent))).status, 403)
  assert.equal((await read({})).status, 401)
  assert.equal((await fetch(`${url}/healthz`)).status, 200)

  await writeFile(join(folder, 'tokens'), line('reader:grafana', reader))
  await until(
    async () => (await send(agent)) === 401,
    'a line that is taken out ends its use',
    20_000,
  )
})

test('a scope of a stream that is not there, or of an agent, is refused', async (t) => {
  const folder = await temporaryDirectory(t)
  for (const wrong of ['reader:a X alerts,nothing', 'gw-001 X alerts', 'reader:a X alerts gaps']) {
    await writeFile(join(folder, 'tokens'), wrong.replace('X', '0'.repeat(64)))
    const tokens = join(folder, 'tokens')
    await assert.rejects(TokenAuth.open(tokens, systemClock, silentLog), /line 1/, wrong)
  }
})

test('a file of tokens with a wrong line is refused, and says which', async (t) => {
  const folder = await temporaryDirectory(t)
  await writeFile(join(folder, 'tokens'), `${line('gw-001', 'x')}gw-002 secret\n`)
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    'data: ./data\nhttp: { port: 0 }\nauth: { mode: token, tokens: ./tokens }\n',
  )
  await assert.rejects(Collector.open(await loadCollectorConfig(file, {}), silentLog), {
    name: 'UserError',
    message: /line 2: expected a name/,
  })
})

test('a reader’s token may be for some streams only, and a manager’s for all', async (t) => {
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    'data: ./data\nhttp: { port: 0 }\nauth: { mode: token, tokens: ./tokens }\n',
  )
  const make = ['collector', 'token', 'reader:some', '--read', 'alerts,gaps']
  const made = await Headgate.run(t, make)
  const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })
  const some = { line: made.stdout, ...bearer(made.stderr.trim()) }
  const [all, admin] = ['reader:all', 'manager:alice'].map((name) => ({
    line: line(name, `${name}.c2VjcmV0`),
    ...bearer(`${name}.c2VjcmV0`),
  }))
  await writeFile(join(folder, 'tokens'), some.line + all!.line + admin!.line)
  const collector = await Collector.open(await loadCollectorConfig(file, {}), silentLog)
  cleanUp(t, () => collector.close())
  const status = async (who: { headers: Record<string, string> }, path: string, method = 'GET') => {
    const body = method === 'POST' ? '{"consumer":"a"}' : null
    const answer = await fetch(collector.url + path, { headers: who.headers, method, body })
    await answer.body?.cancel()
    return answer.status
  }
  const lease = (stream: string) => `/v1/groups/etl/${stream}/lease`
  for (const [path, method, ofSome, ofAll] of [
    ['/v1/streams/alerts/records', 'GET', 200, 200],
    ['/v1/streams/gaps/records?format=csv', 'GET', 200, 200],
    ['/v1/streams/readings/records', 'GET', 403, 200],
    ['/v1/streams/readings/tail?to=0', 'GET', 403, 200],
    ['/v1/streams/%72eadings/records', 'GET', 403, 200],
    ['/v1/streams', 'GET', 200, 200],
    ['/v1/groups', 'GET', 200, 200],
    ['/v1/verify', 'GET', 403, 200],
    ['/metrics', 'GET', 403, 200],
    ['/v1/completeness?device=a&from=2026-01-01&to=2026-01-02', 'GET', 403, 200],
    [lease('alerts'), 'POST', 200, 200],
    [lease('readings'), 'POST', 403, 200],
    ['/v1/groups/etl/readings', 'GET', 403, 200],
  ] as const) {
    assert.equal(await status(some, path, method), ofSome, path)
    assert.equal(await status(all!, path, method), ofAll, path)
    assert.equal(await status(admin!, path, method), ofAll, path)
  }
  const listed = await fetch(`${collector.url}/v1/streams`, { headers: some.headers })
  assert.deepEqual(Object.keys((await listed.json()) as object), ['alerts', 'gaps'])
  const groups = await fetch(`${collector.url}/v1/groups`, { headers: some.headers })
  assert.deepEqual(await groups.json(), { groups: [{ group: 'etl', stream: 'alerts' }] })
  // What takes from others is for managers.
  assert.equal(await status(all!, '/v1/groups/etl/alerts', 'DELETE'), 403)
  assert.equal(await status(all!, '/v1/groups/etl/alerts/seek', 'POST'), 403)
  assert.equal(await status(admin!, '/v1/groups/etl/alerts', 'DELETE'), 200)

  for (const args of [
    ['reader:a', '--read', 'alerts,nothing'],
    ['gw-001', '--read', 'alerts'],
  ])
    assert.equal((await Headgate.run(t, ['collector', 'token', ...args])).code, 2, args.join(' '))
})
