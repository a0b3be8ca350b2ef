import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { nats } from '../../collector/sinks/nats.ts'
import { SeriesTable } from '../../shared/reading.ts'
import { NatsNode } from '../support/nats/server.ts'
import { reading, readings } from '../support/readings.ts'
import { Outlet, readingRecords, sliceOf } from '../support/sinks.ts'

async function start(t: TestContext, limits: object | 'none' = {}) {
  const nodes = await NatsNode.start(t)
  if (!nodes) return undefined
  const [node] = nodes as [NatsNode]
  /** What a stream of the server has, asked over a connection of its own. */
  const asking = async <T>(
    ask: (manager: Awaited<ReturnType<typeof jetstreamManager>>) => Promise<T>,
  ): Promise<T> => {
    const connection = await connect({ servers: node.url })
    try {
      return await ask(await jetstreamManager(connection))
    } finally {
      await connection.close()
    }
  }
  if (limits !== 'none')
    await asking(({ streams }) =>
      streams.add({ name: 'plant', subjects: ['headgate.>'], ...limits }),
    )
  const outlet = await Outlet.make(t, nats, { servers: [node.url] })
  const messages = () =>
    asking(async ({ streams }) => {
      const { state } = await streams.info('plant')
      const found = []
      for (let seq = state.first_seq; seq <= state.last_seq; seq++)
        found.push((await streams.getMessage('plant', { seq }))!)
      return found.map(({ subject, data, header }) => ({
        subject,
        id: header.get('Nats-Msg-Id'),
        row: JSON.parse(Buffer.from(data).toString()) as Record<string, unknown>,
      }))
    })
  return { node, outlet, messages }
}

test('each reading is a message, in order, under the subject of its device and metric', async (t) => {
  const started = await start(t)
  if (!started) return
  const { outlet, messages } = started
  const series = new SeriesTable().intern('pump.1 *', '')
  const all = readingRecords([...readings(20), { ...reading({ value: 21 }), series }])
  assert.equal(await outlet.write(sliceOf(all)), 'durable')
  const found = await messages()
  assert.deepEqual(
    found.map(({ row }) => row.value),
    all.map(({ offset }) => offset + 1),
  )
  const [{ subject, id }] = found as [(typeof found)[0]]
  assert.equal(subject, 'headgate.readings.pump-1.temperature')
  assert.equal(id, `readings/gw-001/${'01'.repeat(16)}/bulk/1`)
  assert.equal(found.at(-1)!.subject, 'headgate.readings.pump%2E1%20%2A._')
})

test('over a kill of the server a repeat is known for one', async (t) => {
  const started = await start(t)
  if (!started) return
  const { node, outlet, messages } = started
  const all = readingRecords(readings(300))
  await outlet.write(sliceOf(all.slice(0, 200)))
  await node.kill()
  await assert.rejects(outlet.write(sliceOf(all)), { code: 'SINK_UNREACHABLE' })
  node.launch()
  await node.healthy()
  await outlet.write(sliceOf(all))
  assert.deepEqual(
    (await messages()).map(({ row }) => row.value),
    all.map(({ offset }) => offset + 1),
  )
})

test('what is too large for the stream goes to the dead letter, and the others arrive', async (t) => {
  const started = await start(t, { max_msg_size: 2_000 })
  if (!started) return
  const { outlet, messages } = started
  const three = [1, 'x'.repeat(3_000), 3].map((value) => reading({ value }))
  await outlet.write(sliceOf(readingRecords(three)))
  assert.deepEqual(
    outlet.refused.map(({ offset }) => offset),
    [1],
  )
  assert.deepEqual(
    (await messages()).map(({ row }) => row.value),
    [1, 3],
  )
})

test('a stream that is full, and one that is not there, make the readings wait', async (t) => {
  const slice = sliceOf(readingRecords(readings(3)))
  const full = await start(t, { max_msgs: 1, discard: 'new' })
  if (!full) return
  await assert.rejects(full.outlet.write(slice), { code: 'SINK_BUSY' })
  const none = await start(t, 'none')
  await assert.rejects(none!.outlet.write(slice), { code: 'SINK_REFUSED' })
  assert.deepEqual([...full.outlet.refused, ...none!.outlet.refused], [])
})
