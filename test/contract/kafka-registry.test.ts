import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { before, type TestContext, test } from 'node:test'
import { Authority } from '../../collector/fleet/authority.ts'
import { type Column, columns } from '../../collector/sinks/columns.ts'
import { openReadingFormat } from '../../collector/sinks/registry/reading-format.ts'
import { readingColumns } from '../../collector/sinks/registry/row-format.ts'
import { avroSchema, jsonSchema } from '../../collector/sinks/registry/schemas.ts'
import type { FormatConfig } from '../../collector/sinks/registry.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { systemClock } from '../../shared/system.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { post } from '../support/collector.ts'
import { FileScope } from '../support/file-scope.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { Cloud } from '../support/plant.ts'
import { reading } from '../support/readings.ts'
import { stockConsumer } from '../support/registry/consumer.ts'
import { SchemaRegistry } from '../support/registry/server.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { entryOf } from './log-engine.ts'

// All tests share a broker and a registry; each has a log of its own there.
const file = new FileScope()
let node: KafkaNode | undefined
let registry: SchemaRegistry | undefined
let logs = 0
const formats = ['avro', 'json-schema'] as const

before(async () => {
  ;[[node], registry] = await Promise.all([
    KafkaNode.start(file).then((nodes) => nodes ?? []),
    SchemaRegistry.start(file),
  ])
})

/** @returns undefined where there is no broker or no registry and the test was skipped */
function place(t: TestContext) {
  if (node && registry) {
    const { url } = registry
    return { brokers: [node.address], registry, url, name: `test${++logs}` }
  }
  t.skip(file.skipped)
  return undefined
}

/** How values are made, as a collector on that topic would ask for it. */
function formatOf(
  format: FormatConfig['format'],
  topic: string,
  config: Partial<FormatConfig['registry']> & { url: string },
  patienceMs = 0,
) {
  const options = { topic, clock: systemClock, logger: silentLog, patienceMs }
  const { url, ca, username, password, token } = config
  const keys = { url, ca, username, password, token, timeout: 20_000 }
  return openReadingFormat({ format, registry: keys }, options)
}

/** One of each kind of value, in series with all that a series may have. */
const given: AdmittedReading[] = [
  21.5,
  -0,
  Number.NaN,
  Number.NEGATIVE_INFINITY,
  2 ** 53 - 1,
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 64n - 1n,
  true,
  false,
  'né ✓',
  null,
].map((value, index) => ({
  ...reading({ value, timeMs: 1_767_225_600_000 + index, quality: index === 1 ? 8 : 0 }),
  timeNanos: 123_456,
  series: new SeriesTable().intern('pump/1', 'temperature', {
    unit: 'Cel',
    labels: { site: 'a "b"', line: '2' },
    between: 'linear',
    epsilon: 0.25,
  }),
}))
given.push({ ...reading({ timeMs: -1 }), timeNanos: 999_999 })

for (const format of formats)
  test(`a stock client reads every kind of value by the schema in the registry: ${format}`, async (t) => {
    const at = place(t)
    const consume = at && (await stockConsumer(t))
    if (!at || !consume) return
    const { brokers, name } = at
    const topic = `${name}.readings`
    {
      const made = await formatOf(format, topic, at)
      await using log = await openKafkaLog(brokers, { name, format: made })
      const batch = new TestAgent().batch([{ kind: 'readings', readings: given }])
      await log.append(entryOf(batch))
    }
    const found = await consume({
      ...{ brokers, registry: at.url, topic, format },
      count: given.length,
    })

    const isAvro = format === 'avro'
    const first = found[0]!
    const id = Buffer.from(incarnation(1)).toString('hex')
    assert.deepEqual([first.key, first.time], ['pump/1', 1_767_225_600_000])
    const { 'content-type': contentType, ce_id, ce_dataschema } = first.headers
    assert.deepEqual(
      [contentType, ce_id],
      [isAvro ? 'application/avro' : 'application/json', `${id}/bulk/1`],
    )
    const schema = await (await fetch(ce_dataschema!)).json()
    assert.match((schema as { schema: string }).schema, /between_points/)
    const labels = { line: '2', site: 'a "b"' }
    assert.deepEqual(withoutNulls(first.value), {
      time: isAvro ? '2026-01-01 00:00:00.000123+00:00' : '2026-01-01T00:00:00.000123Z',
      time_nanos: 456,
      device: 'pump/1',
      metric: 'temperature',
      unit: 'Cel',
      labels: isAvro ? JSON.stringify(labels) : labels,
      value: 21.5,
      quality: 0,
      between_points: 'linear',
      epsilon: 0.25,
      agent: 'gw-001',
      incarnation: id,
      lane: 'bulk',
      sequence: 1,
      received: isAvro ? '2026-01-01 00:00:00+00:00' : '2026-01-01T00:00:00.000Z',
      arrived: isAvro ? '2026-01-01 00:00:00+00:00' : '2026-01-01T00:00:00.000Z',
    })
    const infinite = isAvro ? '-inf' : '-Infinity'
    assert.deepEqual(
      found.map(({ value }) => valuesOf(value)),
      [
        { value: 21.5 },
        { value: isAvro ? -0 : 0 }, // Python's reader of JSON takes it for an integer.
        { value: isAvro ? 'nan' : 'NaN' },
        { value: infinite },
        { value: 2 ** 53 - 1 },
        { value: isAvro ? 2 ** 63 : String(2 ** 63), value_int: String(2n ** 63n - 1n) },
        { value: isAvro ? -(2 ** 63) : String(-(2 ** 63)), value_int: String(-(2n ** 63n)) },
        { value: isAvro ? 2 ** 64 : String(2 ** 64), value_text: String(2n ** 64n - 1n) },
        { value_bool: true },
        { value_bool: false },
        { value_text: 'né ✓' },
        {},
        { value: 21.5 },
      ],
    )
    assert.deepEqual(
      found.map(({ value }) => value.quality),
      given.map(({ quality }) => quality),
    )
    const last = found.at(-1)!
    // Kafka's own takes nothing before 1970.
    assert.deepEqual([last.time, last.value.time_nanos], [0, 999])
    assert.match(String(last.value.time), /^1969-12-31.23:59:59\.999999/)
  })

/** `BACKWARD` is what Confluent's has from the start. */
async function setCompatibility(
  registry: SchemaRegistry,
  subject: string,
  compatibility: 'BACKWARD' | 'NONE',
): Promise<void> {
  const { status } = await registry.ask('PUT', `/config/${subject}`, { compatibility })
  assert.equal(status, 200)
}

test('columns that are added later go with what is there, and one without a default does not', async (t) => {
  const at = place(t)
  if (!at) return
  for (const [kind, schemaOf] of Object.entries({ AVRO: avroSchema, JSON: jsonSchema })) {
    const path = `/subjects/${at.name}-${kind}/versions`
    const register = async (chosen: readonly Column[]): Promise<number> => {
      const { text: schema } = schemaOf('Reading', chosen)
      return (await at.registry.ask('POST', path, { schema, schemaType: kind })).status
    }
    const added = { name: 'site', type: 'text' } as unknown as Column
    assert.equal(await register(readingColumns), 200)
    await setCompatibility(at.registry, `${at.name}-${kind}`, 'BACKWARD')
    assert.equal(await register([...readingColumns, { ...added, nullable: true } as Column]), 200)
    assert.equal(await register([...readingColumns, { ...added, nullable: false } as Column]), 409)
  }
  // The columns that there were when schemas began; all others are added behind them.
  const later = columns.slice(22)
  assert.deepEqual(
    later.filter(({ nullable }) => !nullable),
    [],
  )
})

test('a registry that has another schema is not overruled, and the error says what to do', async (t) => {
  const at = place(t)
  if (!at) return
  for (const [format, schemaType, other] of [
    ['avro', 'AVRO', '{"type":"record","name":"Other","fields":[{"name":"a","type":"int"}]}'],
    ['json-schema', 'JSON', '{"type":"object","properties":{"device":{"type":"integer"}}}'],
  ] as const) {
    const topic: string = `${at.name}-${format}.readings`
    const subject = `/subjects/${topic}-value`
    await at.registry.ask('POST', `${subject}/versions`, { schema: other, schemaType })
    await setCompatibility(at.registry, `${topic}-value`, 'BACKWARD')
    await assert.rejects(formatOf(format, topic, at, 60_000), {
      name: 'UserError',
      message: /refuses: .*-value: 409 .*take another topic, or set the subject's compatibility to/,
    })
    assert.deepEqual((await at.registry.ask('GET', `${subject}/versions`)).body, [1])
    await setCompatibility(at.registry, `${topic}-value`, 'NONE')
    await formatOf(format, topic, at)
    assert.deepEqual((await at.registry.ask('GET', `${subject}/versions`)).body, [1, 2])
  }
})

/** What only lets through to a registry who shows the right header, and counts what is asked. */
async function guard(t: TestContext, url: string, authorization: string) {
  const asked: string[] = []
  const server = createServer((incoming, outgoing) => {
    asked.push(`${incoming.method} ${incoming.url}`)
    if (incoming.headers.authorization !== authorization) {
      outgoing.writeHead(401).end('{"error_code":401,"message":"Unauthorized"}')
      return
    }
    const { method, headers } = incoming
    const onward = request(`${url}${incoming.url}`, { method: method!, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(outgoing)
    })
    ;(incoming as IncomingMessage).pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  t.after(() => server.close())
  await new Promise((resolve) => server.once('listening', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

test('a registry is told a password or a token, and one that does not know them is named', async (t) => {
  const at = place(t)
  if (!at) return
  const folder = await temporaryDirectory(t)
  const secret = async (text: string) => {
    const path = join(folder, text)
    await writeFile(path, `${text}\n`)
    return path
  }
  const basic = `Basic ${Buffer.from('headgate:secret').toString('base64')}`
  for (const [authorization, right, wrong] of [
    [
      basic,
      { username: 'headgate', password: await secret('secret') },
      { username: 'headgate', password: await secret('guess') },
    ],
    ['Bearer t0ken', { token: await secret('t0ken') }, {}],
  ] as const) {
    const { url, asked } = await guard(t, at.url, authorization)
    await assert.rejects(formatOf('avro', `${at.name}.readings`, { url, ...wrong }, 60_000), {
      message: /401 Unauthorized: check its username, password or token/,
    })
    await formatOf('avro', `${at.name}.readings`, { url, ...right })
    // Nobody registers what is there.
    asked.length = 0
    await formatOf('avro', `${at.name}.readings`, { url, ...right })
    assert.deepEqual(asked, [`POST /subjects/${at.name}.readings-value`])
  }
})

test('a registry is reached over TLS by who vouches for it, and by nobody else', async (t) => {
  const at = place(t)
  if (!at) return
  const { url, ca } = at.registry.secure
  const path = join(await temporaryDirectory(t), 'ca.pem')
  await writeFile(path, ca)
  await formatOf('json-schema', at.name, { url, ca: path })
  const other = join(await temporaryDirectory(t), 'other.pem')
  await writeFile(other, (await Authority.create('authority', Date.now())).authority.certificatePem)
  for (const wrong of [{ url }, { url, ca: other }])
    await assert.rejects(formatOf('json-schema', at.name, wrong), {
      message: /does not answer: .*certificate/,
    })
  await assert.rejects(formatOf('json-schema', at.name, { url, ca: `${path}.none` }), {
    message: /ca\.pem\.none cannot be read \(ENOENT\)/,
  })
})

test('what answers like no registry gives no number', async (t) => {
  const at = place(t)
  if (!at) return
  for (const answer of ['{"id":2147483648}', '{"id":-1}', '{"id":"1"}', '<html>', '{}']) {
    const server = createServer((_, outgoing) => outgoing.end(answer)).listen(0, '127.0.0.1')
    t.after(() => server.close())
    await new Promise((resolve) => server.once('listening', resolve))
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    await assert.rejects(formatOf('avro', at.name, { url }), { message: /check its url/ })
  }
})

test('batches are taken while the registry is away, and none by a collector that never found it', async (t) => {
  const at = place(t)
  const consume = at && (await stockConsumer(t))
  const own = consume && (await SchemaRegistry.start(t))
  if (!at || !consume || !own) return
  const { brokers, name } = at
  const cloud = await Cloud.make(t, {
    directory: await temporaryDirectory(t),
    more: {
      log: {
        engine: 'kafka',
        kafka: { brokers, name, replicas: 1, format: 'avro', registry: { url: own.url } },
      },
    },
  })
  const agent = new TestAgent()
  const held = async () => (await post(cloud.url, agent.readings(10).body())).body.held
  await own.kill()
  const waiting = cloud.launch()
  await waiting.said(/waits for the schema registry/)
  await assert.rejects(post(cloud.url, agent.readings(1).body()))
  agent.next = 1
  agent.chain = new TestAgent().chain
  own.launch()
  await waiting.said(/"msg":"listening"/)
  assert.equal(await held(), 10)
  await own.kill()
  assert.equal(await held(), 20)

  // It has forgotten what it knew: the next start tells it again.
  await cloud.kill()
  own.launch()
  await own.healthy()
  await cloud.start()
  assert.equal(await held(), 30)
  const topic = `${name}.readings`
  const found = await consume({ brokers, registry: own.url, topic, format: 'avro', count: 30 })
  assert.deepEqual(
    found.map(({ value }) => value.sequence),
    Array.from({ length: 30 }, (_, index) => index + 1),
  )
})

function withoutNulls(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== null))
}

function valuesOf(value: Record<string, unknown>): Record<string, unknown> {
  const names = ['value', 'value_int', 'value_bool', 'value_text']
  const entries = Object.entries(withoutNulls(value))
  return Object.fromEntries(entries.filter(([name]) => names.includes(name)))
}
