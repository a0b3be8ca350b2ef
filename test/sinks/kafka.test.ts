import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { Admin } from '@platformatic/kafka'
import { kafka } from '../../collector/sinks/kafka.ts'
import { kcatRecords } from '../support/kafka/kcat.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { needs } from '../support/needs.ts'
import { reading, readings } from '../support/readings.ts'
import { type Consumed, stockConsumer } from '../support/registry/consumer.ts'
import { SchemaRegistry } from '../support/registry/server.ts'
import { alertRecords, Outlet, readingRecords, sliceOf } from '../support/sinks.ts'

async function start(t: TestContext) {
  const nodes = await KafkaNode.start(t)
  if (!nodes) return undefined
  const [node] = nodes as [KafkaNode]
  const create = async (topic = 'headgate.readings') => {
    const admin = new Admin({ clientId: 'test', bootstrapBrokers: [node.address] })
    await admin.createTopics({ topics: [topic], partitions: 2, replicas: 1 })
    await admin.close()
  }
  return { node, create }
}

test('kcat finds readings that waited for their topic and a killed broker, each device in order', async (t) => {
  const kcat = needs(t, 'kcat')
  const started = kcat && (await start(t))
  if (!started) return
  const { node, create } = started
  const outlet = await Outlet.make(t, kafka, { brokers: [node.address], maxMessage: '1KiB' })
  const [left, right] = [readings(100, 1, 'pump-1'), readings(100, 101, 'pump-2')]
  const all = readingRecords([...left, reading({ value: 'x'.repeat(2_000) }), ...right])
  await assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_REFUSED' })
  await create()
  await node.kill()
  await assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_UNREACHABLE' })
  node.launch()
  await node.healthy()
  await outlet.write(sliceOf(all))
  assert.deepEqual(
    outlet.refused.map(({ offset }) => offset),
    [100],
  )
  const found = await kcatRecords(kcat, node.address, 'headgate.readings')
  assert.equal(found.length, 200)
  for (const [device, expected] of [
    ['pump-1', left],
    ['pump-2', right],
  ] as const) {
    const own = found.filter(({ key }) => key === device)
    assert.deepEqual(
      own.map(({ value, time }) => [JSON.parse(value).value, time]),
      expected.map(({ value, timeMs }) => [value, timeMs]),
    )
    assert.equal(new Set(own.map(({ partition }) => partition)).size, 1)
  }
  const incarnation = '01'.repeat(16)
  const first = found.find(({ value }) => JSON.parse(value).sequence === 1)!
  assert.deepEqual(first.headers, {
    id: `readings/gw-001/${incarnation}/bulk/1`,
    'content-type': 'application/json',
  })
  assert.deepEqual(JSON.parse(first.value), {
    time: '2026-01-01T00:00:01.000Z',
    time_nanos: 0,
    device: 'pump-1',
    metric: 'temperature',
    labels: {},
    value: 1,
    quality: 0,
    between_points: 'raw',
    epsilon: 0,
    agent: 'gw-001',
    incarnation,
    lane: 'bulk',
    sequence: 1,
    log_partition: 0,
    log_offset: 0,
    received: '2026-01-01T00:00:00.000Z',
    arrived: '2026-01-01T00:01:40.000Z',
  })
})

test('a stock client reads readings and alerts by the schemas in a registry, for which they wait', async (t) => {
  const consume = await stockConsumer(t)
  const registry = consume && (await SchemaRegistry.start(t))
  const started = registry && (await start(t))
  if (!started) return
  const { node, create } = started
  const brokers = [node.address]
  await registry.kill()
  for (const [format, stream, records] of [
    ['avro', 'readings', readingRecords(readings(2))],
    ['json-schema', 'alerts', alertRecords(2)],
  ] as const) {
    const topic = `headgate.${stream}`
    await create(topic)
    const config = { brokers, format, registry: { url: registry.url } }
    const outlet = await Outlet.make(t, kafka, config, { stream })
    const slice = sliceOf(records)
    if (format === 'avro') {
      await assert.rejects(outlet.write(slice), { code: 'SINK_UNREACHABLE' })
      registry.launch()
      await registry.healthy()
    }
    await outlet.write(slice)
    const place = { brokers, registry: registry.url, topic }
    const found: Consumed[] = await consume({ ...place, format, count: 2 })
    assert.deepEqual(
      found.map(({ value }) => [value.device, value.sequence, value.log_offset]),
      records.map(({ sequence, offset }) => ['pump-1', sequence, offset]),
    )
    const [{ value, headers }] = found as [Consumed]
    assert.match(headers.id!, new RegExp(`^${stream}/gw-001/`))
    if (format === 'avro')
      assert.deepEqual([value.value, value.labels, value.content], [1, '{}', null])
    else assert.equal((value.content as { rule: string }).rule, 'range')
  }
})

test('a topic that goes by the device has no schema in a registry', () => {
  const registry = { url: 'http://registry:8081' }
  for (const [config, wrong] of [
    [{ format: 'avro', registry, topic: 'a.{device}' }, /leave all fields but {stream} out/],
    [{ format: 'avro' }, /needs a schema registry/],
    [{ registry }, /goes with format/],
    [{ format: 'avro', registry: { ...registry, username: 'a' } }, /go together/],
  ] as const)
    assert.match(
      kafka.problem!(kafka.schema.parse({ brokers: ['k:1'], ...config }), 'readings')!,
      wrong,
    )
  const right = { brokers: ['k:1'], format: 'avro', registry, topic: 'a.{stream}' }
  assert.equal(kafka.problem!(kafka.schema.parse(right), 'readings'), undefined)
})
