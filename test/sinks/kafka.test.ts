import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { Admin, Consumer, MessagesStreamModes } from '@platformatic/kafka'
import { kafka } from '../../collector/sinks/kafka.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { reading, readings } from '../support/readings.ts'
import { Outlet, readingRecords, sliceOf } from '../support/sinks.ts'

const topic = 'headgate.readings'

async function start(t: TestContext) {
  const nodes = await KafkaNode.start(t)
  if (!nodes) return undefined
  const [node] = nodes as [KafkaNode]
  const client = { clientId: 'test', bootstrapBrokers: [node.address] }
  const outlet = await Outlet.make(t, kafka, { brokers: [node.address], maxMessage: '1KiB' })
  const create = async () => {
    const admin = new Admin(client)
    await admin.createTopics({ topics: [topic], partitions: 2, replicas: 1 })
    await admin.close()
  }
  /** So many messages from the beginning, in the order of each partition. */
  const messages = async (count: number) => {
    const consumer = new Consumer({ ...client, groupId: `reader-${performance.now()}` })
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST })
    const found = []
    for await (const { key, value, headers, partition, timestamp } of stream) {
      const id = [...headers].find(([name]) => name.toString() === 'id')?.[1].toString()
      const row = JSON.parse(value.toString()) as Record<string, unknown>
      found.push({ key: key.toString(), row, id, partition, timestamp })
      if (found.length === count) break
    }
    await stream.close()
    await consumer.close(true)
    return found
  }
  return { node, outlet, create, messages }
}

test('readings wait for their topic, survive a kill of the broker, and keep the order of a device', async (t) => {
  const started = await start(t)
  if (!started) return
  const { node, outlet, create, messages } = started
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
  const found = await messages(200)
  for (const [device, expected] of [
    ['pump-1', left],
    ['pump-2', right],
  ] as const) {
    const own = found.filter(({ key }) => key === device)
    assert.deepEqual(
      own.map(({ row }) => row.value),
      expected.map(({ value }) => value),
    )
    assert.equal(new Set(own.map(({ partition }) => partition)).size, 1)
  }
  const first = found.find(({ row }) => row.log_offset === 0)!
  assert.equal(first.id, `readings/gw-001/${'01'.repeat(16)}/bulk/1`)
  assert.equal(first.timestamp, BigInt(left[0]!.timeMs))
})
