import assert from 'node:assert/strict'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Collector } from '../../collector/collector.ts'
import { loadCollectorConfig } from '../../collector/config.ts'
import { TestAgent } from '../support/batches.ts'
import { collectorConfig, send, startCollector } from '../support/collector.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('the collector.yaml of the manual works as written', async (t) => {
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'collector.yaml')
  await writeFile(
    file,
    `# collector.yaml
data: ./var/collector
http: { host: 127.0.0.1, port: 7070 }
auth: { mode: open }        # says so loudly at start; refused on a non-loopback address
log: { engine: embedded, retention: { bytes: 10GiB } }
`,
  )
  const config = await loadCollectorConfig(file, {})
  assert.equal(config.data, join(folder, 'var/collector'))
  assert.equal(config.http.port, 7070)
  assert.equal(config.auth.mode, 'open')
  assert.equal(config.log.retention.bytes, 10 * 2 ** 30)
})

type ProblemsOf = (text: string) => Promise<{ path: string; message: string }[]>

async function configurationChecker(t: TestContext): Promise<ProblemsOf> {
  const file = join(await temporaryDirectory(t), 'collector.yaml')
  return async (text) => {
    await writeFile(file, text)
    try {
      await loadCollectorConfig(file, {})
      return []
    } catch (error) {
      return (error as { problems: { path: string; message: string }[] }).problems
    }
  }
}

test('a configuration that must not run is refused with every problem', async (t) => {
  const problemsOf = await configurationChecker(t)
  const open = await problemsOf('data: x\nhttp: { host: 0.0.0.0 }\nauth: { mode: open }')
  assert.deepEqual(
    open.map(({ path }) => path),
    ['auth.mode'],
  )
  assert.match(open[0]!.message, /refused on 0\.0\.0\.0/)
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost'])
    assert.deepEqual(
      await problemsOf(`data: x\nhttp: { host: '${host}' }\nauth: { mode: open }`),
      [],
    )

  const many = await problemsOf('dat: x\nhttp: { prot: 1 }\nlog: { retention: { bytes: 1 kilo } }')
  assert.deepEqual(many.map(({ path }) => path).sort(), [
    'dat',
    'data',
    'http.prot',
    'log.retention.bytes',
  ])

  const nats = (log: string) => problemsOf(`data: x\nauth: { mode: open }\nlog: ${log}`)
  for (const [log, path] of [
    ['{ engine: nats }', 'log.nats'],
    ['{ nats: { servers: [nats://a] } }', 'log.nats'],
    ['{ engine: nats, nats: { servers: [http://a] } }', 'log.nats.servers.0'],
    ['{ engine: kafkaesque }', 'log.engine'],
  ] as const)
    assert.deepEqual(
      (await nats(log)).map((problem) => problem.path),
      [path],
    )
  assert.deepEqual(await nats('{ engine: nats, nats: { servers: [nats://a, tls://b:4222] } }'), [])

  const silent = await problemsOf('data: x')
  assert.deepEqual(
    silent.map(({ path }) => path),
    ['auth'],
  )
  const reachable = await problemsOf('data: x\nhttp: { host: 0.0.0.0 }')
  assert.match(reachable[0]!.message, /mtls needs a fleet/)
})

test('a second collector is kept away from the folder, until the first ends', async (t) => {
  const config = await collectorConfig(await temporaryDirectory(t))
  const first = await Collector.open(config, silentLog)
  await assert.rejects(Collector.open(config, silentLog), {
    name: 'UserError',
    message: `${config.data}: another collector uses it: stop that one, or set data`,
  })
  await first.close()
  await using again = await Collector.open(config, silentLog)
  assert.notEqual(again.url, '')
})

test('what keeps a collector from starting is said in one line, and holds no lock', async (t) => {
  const folder = await temporaryDirectory(t)
  await using first = await Collector.open(await collectorConfig(folder), silentLog)
  const { port } = new URL(first.url)
  const other = join(folder, 'other')
  await mkdir(other)
  const taken = await collectorConfig(other)
  await assert.rejects(
    Collector.open({ ...taken, http: { ...taken.http, port: Number(port) } }, silentLog),
    { name: 'UserError', message: new RegExp(`port ${port} is taken: .* http\\.port`) },
  )
  await using second = await Collector.open(taken, silentLog)
  assert.notEqual(second.url, first.url)

  await writeFile(join(folder, 'file'), '')
  await assert.rejects(Collector.open({ ...taken, data: join(folder, 'file') }, silentLog), {
    name: 'UserError',
    message: /a file is in the way/,
  })
})

test('the data folder says where the running collector is reached', async (t) => {
  const config = await collectorConfig(await temporaryDirectory(t))
  const collector = await Collector.open(config, silentLog)
  const file = join(config.data, 'collector.json')
  assert.deepEqual(JSON.parse(await readFile(file, 'utf8')), {
    url: collector.url,
    pid: process.pid,
  })
  await collector.close()
  await assert.rejects(stat(file), { code: 'ENOENT' })
})

test('a collector stops at once, though readers and idle connections stay', async (t) => {
  const config = await collectorConfig(await temporaryDirectory(t))
  const collector = await Collector.open(config, silentLog)
  const { url } = collector
  const agent = new TestAgent()
  await send(url, agent.readings(2))
  const tail = await fetch(`${url}/v1/streams/readings/tail`)
  const ended = tail.text()
  const startMs = performance.now()
  const coming = Promise.allSettled(Array.from({ length: 5 }, () => send(url, agent.readings(2))))
  await Promise.all([coming, collector.close()])
  await ended
  assert.ok(performance.now() - startMs < 4000)
  await assert.rejects(fetch(`${url}/healthz`))

  const answered = (await coming).filter(({ status }) => status === 'fulfilled').length
  await using again = await Collector.open(config, silentLog)
  const { batches } = (await again.log.statistics()).readings
  assert.ok(batches >= 1 + answered, `${answered} answered, ${batches} there`)
})

test('a reader cut short by the stop does not take what it got for all', async (t) => {
  const collector = await startCollector(t)
  const agent = new TestAgent()
  for (let i = 0; i < 8; i++) await send(collector.url, agent.readings(20_000))
  const answer = await fetch(`${collector.url}/v1/streams/readings/records`)
  const cut = assert.rejects(answer.text())
  await collector.close()
  await cut
})

test('engine kafka needs brokers, and an address at which the other collectors reach it', async (t) => {
  const problemsOf = await configurationChecker(t)
  const pathsOf = async (log: string, http = '{}') => {
    const text = `data: x\nauth: { mode: token, tokens: t }\nhttp: ${http}\nlog: ${log}`
    return (await problemsOf(text)).map(({ path }) => path)
  }
  const everywhere = '{ host: 0.0.0.0 }'
  const with2 = (more = '') =>
    `{ engine: kafka, kafka: { brokers: [a:9092, "[::1]:9092"]${more} } }`
  assert.deepEqual(await pathsOf('{ engine: kafka }'), ['log.kafka'])
  assert.deepEqual(await pathsOf('{ kafka: { brokers: [a:9092] } }'), ['log.kafka'])
  assert.deepEqual(await pathsOf('{ engine: kafka, kafka: { brokers: [a] } }'), [
    'log.kafka.brokers.0',
  ])
  assert.deepEqual(await pathsOf(with2(), everywhere), ['log.kafka.peer.announce'])
  assert.deepEqual(await pathsOf(with2(', peer: { announce: c1:7071 }'), everywhere), [])
  assert.deepEqual(await pathsOf(with2()), [])
})

test('a format with a schema needs a registry, and a registry one that has one', async (t) => {
  const problemsOf = await configurationChecker(t)
  const pathsOf = async (more: string) => {
    const kafka = `{ brokers: [a:9092], ${more} }`
    const text = `data: x\nauth: { mode: open }\nlog: { engine: kafka, kafka: ${kafka} }`
    return (await problemsOf(text)).map(({ path }) => path)
  }
  const url = 'url: http://r:8081'
  const format = 'log.kafka.format'
  assert.deepEqual(await pathsOf('format: avro'), [format])
  assert.deepEqual(await pathsOf(`registry: { ${url} }`), [format])
  assert.deepEqual(await pathsOf(`format: avro, records: batches, registry: { ${url} }`), [format])
  assert.deepEqual(await pathsOf(`format: avro, registry: { ${url}, username: a }`), [format])
  const both = 'username: a, password: p, token: t'
  assert.deepEqual(await pathsOf(`format: avro, registry: { ${url}, ${both} }`), [format])
  assert.deepEqual(await pathsOf('format: avro, registry: { url: http://a:b@r:8081 }'), [
    'log.kafka.registry.url',
  ])
  for (const right of [url, `${url}, username: a, password: p`, `${url}, token: t`])
    assert.deepEqual(await pathsOf(`format: json-schema, registry: { ${right} }`), [])
})
