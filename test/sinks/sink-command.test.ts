import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import { TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { poll } from '../support/poll.ts'
import { Headgate } from '../support/process.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Nobody listens there. */
const nowhere = 'postgresql://postgres:hush@127.0.0.1:1/plant'

async function becomes({ url }: Collector, phase: string): Promise<void> {
  await poll(async () => {
    const { sinks } = (await (await fetch(`${url}/v1/sinks`)).json()) as { sinks: SinkStatus[] }
    return sinks[0]?.phase === phase
  }, `the sink is ${phase}`)
}

test('`headgate sink` shows what troubles a sink, pauses and resumes it', async (t) => {
  const rest = `sinks: [{ name: history, postgres: { url: '${nowhere}' } }]`
  const collector = await startCollector(t, { rest })
  await send(collector.url, new TestAgent().readings(5))
  const sink = async (...args: string[]) => {
    const { code, stdout, stderr } = await Headgate.run(t, [
      'sink',
      ...args,
      '--collector',
      collector.url,
    ])
    return { code, stdout, stderr }
  }
  await becomes(collector, 'failing')
  assert.match((await sink('ls')).stdout, /\nhistory: the output cannot be reached: /)
  const { stdout } = await sink('ls', '--json')
  const [status] = JSON.parse(stdout)
  assert.deepEqual([status.name, status.kind, status.stream], ['history', 'postgres', 'readings'])
  assert.deepEqual([status.phase, status.behind, status.written], ['failing', 5, 0])
  assert.ok(!stdout.includes('hush'))

  assert.equal((await sink('pause', 'history')).code, 0)
  await becomes(collector, 'paused')
  assert.equal((await sink('backfill', 'history', '--from', '0')).code, 0)
  assert.equal((await sink('resume', 'history')).code, 0)
  assert.deepEqual(await sink('dead', 'history'), { code: 0, stdout: '', stderr: '' })

  const wrong = await sink('backfill', 'history', '--from', 'yesterday')
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /from takes an offset or a time such as/)
  assert.match((await sink('pause', 'another')).stderr, /no sink "another"/)
})

test('metrics tell how far a sink is behind, and how often it failed', async (t) => {
  const rest = `sinks: [{ name: history, postgres: { url: '${nowhere}' } }]`
  const collector = await startCollector(t, { rest })
  await send(collector.url, new TestAgent().readings(5))
  const text = await poll(async () => {
    const found = await (await fetch(`${collector.url}/metrics`)).text()
    return /sink_failures_total\{sink="history"\} [1-9]/.test(found) && found
  }, 'a failure is counted')

  assert.match(text, /headgate_collector_sink_behind\{sink="history"\} 5/)
  assert.match(text, /headgate_collector_sink_written_total\{sink="history"\} 0/)
})

test('a page in a browser cannot pause a sink of a collector that is open', async (t) => {
  const rest = `sinks: [{ name: history, postgres: { url: '${nowhere}' } }]`
  const { url } = await startCollector(t, { rest })
  // What a page may send without being asked where it is from.
  const headers = { 'content-type': 'text/plain' }
  const answer = await fetch(`${url}/v1/sinks/history/pause`, {
    method: 'POST',
    headers,
    body: '{}',
  })

  assert.equal(answer.status, 415)
})

test('who may only read is kept away from sinks', async (t) => {
  const { stdout, stderr } = await Headgate.run(t, ['collector', 'token', 'reader:bob'])
  const tokens = join(await temporaryDirectory(t), 'tokens')
  await writeFile(tokens, stdout)
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    `data: ./data\nhttp: { port: 0 }\nauth: { mode: token, tokens: ${tokens} }\n`,
  )
  await using collector = await Collector.open(await loadCollectorConfig(file, {}), silentLog)
  const authorization = `Bearer ${stderr.trim()}`
  const headers = { authorization, 'content-type': 'application/json' }
  const ask = (path: string, method = 'GET') =>
    fetch(`${collector.url}${path}`, { method, headers, ...(method === 'POST' && { body: '{}' }) })

  assert.equal((await ask('/v1/streams')).status, 200)
  assert.equal((await ask('/v1/sinks')).status, 403)
  assert.equal((await ask('/v1/sinks/history/pause', 'POST')).status, 403)
})

test('every problem with sinks is told at `collector check`, with its path', async (t) => {
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'collector.yaml')
  const lines = [
    'data: ./data',
    'auth: { mode: open }',
    'sinks:',
    "  - { name: a, postgres: { url: 'http://127.0.0.1/' } }",
    '  - { name: b }',
    "  - { name: b, from: yesterday, postgres: { url: 'postgresql://h/d', rows: 0 } }",
    "  - { name: 'c d', stream: readings, postgres: { url: 'postgresql://h/d' } }",
  ]
  await writeFile(file, `${lines.join('\n')}\n`)
  const { code, stderr } = await Headgate.run(t, ['collector', 'check', '--config', file])

  assert.equal(code, 1)
  assert.match(stderr, /sinks\.0\.postgres\.url: expected an address such as postgresql:/)
  assert.match(stderr, /sinks\.2\.from: expected beginning, now, or a time/)
  assert.match(stderr, /sinks\.2\.postgres\.rows: /)
  assert.match(stderr, /sinks\.3\.name: expected letters/)
  await writeFile(
    file,
    [
      ...lines.slice(0, 3),
      '  - { name: b }',
      "  - { name: r, retry: { base: 2m }, postgres: { url: 'postgresql://h/d' } }",
      "  - { name: b, stream: gaps, match: { device: x }, postgres: { url: 'postgresql://h/d' } }",
    ].join('\n'),
  )
  const second = await Headgate.run(t, ['collector', 'check', '--config', file])
  assert.match(second.stderr, /sinks\.0: takes one of .*postgres/)
  assert.match(second.stderr, /sinks\.1\.retry\.base: is more than max/)
  assert.match(second.stderr, /sinks\.2\.name: "b" is there twice/)
  assert.match(second.stderr, /sinks\.2\.match: records of gaps have no device/)
})

test('a password comes from the environment, and is not shown', async (t) => {
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    `data: ./data
auth: { mode: open }
sinks:
  - name: a
    postgres: { url: 'postgresql://writer:\${DB_PASSWORD}@127.0.0.1/plant', password: '\${DB_PASSWORD}' }
`,
  )
  const { stdout, code } = await Headgate.run(
    t,
    ['collector', 'check', '--json', '--config', file],
    {
      env: { DB_PASSWORD: 'hush' },
    },
  )

  assert.equal(code, 0)
  assert.ok(!stdout.includes('hush'), stdout)
  assert.match(stdout, /writer:\*\*\*@127/)
})
