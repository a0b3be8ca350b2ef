import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { hashToken } from '../../collector/auth.ts'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { post } from '../support/collector.ts'
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
