import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import mqttClient from 'mqtt'
import { mqtt } from '../../collector/sinks/mqtt.ts'
import { SeriesTable } from '../../shared/reading.ts'
import { cleanUp } from '../support/clean-up.ts'
import { keepsOverKill, Mosquitto, type MosquittoOptions } from '../support/mosquitto.ts'
import { reading, readings } from '../support/readings.ts'
import { Outlet, readingRecords, sliceOf } from '../support/sinks.ts'
import { until } from '../support/until.ts'

interface Message {
  topic: string
  qos: number
  row: Record<string, unknown>
}

async function start(t: TestContext, config: object = {}, options: MosquittoOptions = {}) {
  const broker = await Mosquitto.start(t, options)
  if (!broker) return undefined
  const messages: Message[] = []
  const subscriber = await mqttClient.connectAsync(broker.url, {
    clientId: 'reader',
    clean: false,
    reconnectPeriod: 20,
    ...(options.users && { username: 'reader', password: 'secret' }),
  })
  cleanUp(t, () => subscriber.endAsync(true))
  subscriber.on('error', () => {})
  subscriber.on('message', (topic, payload, { qos }) => {
    messages.push({ topic, qos, row: JSON.parse(payload.toString()) })
  })
  await subscriber.subscribeAsync('#', { qos: 1 })
  const outlet = await Outlet.make(t, mqtt, { url: broker.url, ...config })
  return { broker, outlet, messages }
}

test('a subscriber gets each reading under the topic of its device and metric', async (t) => {
  const started = await start(t)
  if (!started) return
  const { outlet, messages } = started
  assert.equal(await outlet.write(sliceOf(readingRecords(readings(300)))), 'durable')
  await until(() => messages.length === 300, 'all have come')
  const [{ topic, qos, row }] = messages as [Message]
  assert.deepEqual({ topic, qos }, { topic: 'headgate/readings/pump-1/temperature', qos: 1 })
  assert.deepEqual(row, {
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
    incarnation: '01'.repeat(16),
    lane: 'bulk',
    sequence: 1,
    log_partition: 0,
    log_offset: 0,
    received: '2026-01-01T00:00:00.000Z',
    arrived: '2026-01-01T00:01:40.000Z',
  })
  assert.deepEqual(
    messages.map(({ row }) => row.value),
    Array.from({ length: 300 }, (_, index) => index + 1),
  )
})

test('a name stays one level, whatever a device calls itself', async (t) => {
  const started = await start(t, { topic: 'plant/{label.site}/{device}/{metric}/{agent}' })
  if (!started) return
  const { outlet, messages } = started
  const series = new SeriesTable().intern('a/+/#', '100 % \u0000', { labels: { site: 'São' } })
  await outlet.write(sliceOf(readingRecords([{ ...reading(), series }, reading()])))
  await until(() => messages.length === 2, 'both have come')
  assert.deepEqual(
    messages.map(({ topic }) => topic),
    ['plant/São/a%2F%2B%2F%23/100%20%25%20%00/gw-001', 'plant/_/pump-1/temperature/gw-001'],
  )
})

test('over a kill of the broker every reading arrives', async (t) => {
  const started = await start(t, { maxInFlight: 10 }, { lines: keepsOverKill })
  if (!started) return
  const { broker, outlet, messages } = started
  const all = readingRecords(readings(2_000))
  const writing = assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_UNREACHABLE' })
  await until(() => messages.length > 0, 'the first have come')
  await broker.kill()
  await writing
  await broker.up()
  await outlet.write(sliceOf(all))
  const values = () => new Set(messages.map(({ row }) => row.value))
  await until(() => values().size === 2_000, 'all have come')
})

test('a message that is too long goes to the dead letter, and those around it arrive', async (t) => {
  const started = await start(t, { maxMessage: '1KiB' })
  if (!started) return
  const { outlet, messages } = started
  const three = [
    reading({ value: 1 }),
    reading({ value: 'x'.repeat(1_000) }),
    reading({ value: 3 }),
  ]
  await outlet.write(sliceOf(readingRecords(three)))
  await until(() => messages.length === 2, 'the others have come')
  assert.deepEqual(
    outlet.refused.map(({ offset }) => offset),
    [1],
  )
  assert.match(outlet.refused[0]!.reason, /maxMessage is 1024/)
})

test('a broker that does not let it in is told apart from one that is not there', async (t) => {
  const started = await start(t, {}, { users: { reader: 'secret' } })
  if (!started) return
  const { broker, outlet } = started
  const slice = sliceOf(readingRecords(readings(1)))
  await assert.rejects(outlet.write(slice), { code: 'SINK_REFUSED' })
  await broker.kill()
  await assert.rejects(outlet.write(slice), { code: 'SINK_UNREACHABLE' })
})

test('a topic that a stream’s records cannot fill is found before it runs', () => {
  const config = (topic: string) => mqtt.schema.parse({ url: 'mqtt://127.0.0.1', topic })
  assert.match(mqtt.problem!(config('a/{device}'), 'gaps')!, /gaps have no \{device\}/)
  assert.equal(mqtt.problem!(config('a/{agent}/{stream}'), 'gaps'), undefined)
  for (const topic of ['a/{devise}', 'a/+', 'a/{device', '$SYS/x', ''])
    assert.equal(mqtt.schema.safeParse({ url: 'mqtt://127.0.0.1', topic }).success, false, topic)
})
