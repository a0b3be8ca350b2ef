import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { ask } from '../../shared/control.ts'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { type Ended, Headgate } from '../support/process.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Every process ends within so long after SIGTERM, whatever its peers do. */
const limitMs = 10_000

test('an agent with its broker gone, its collector hanging and a tap attached stops in time and loses nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { broker, gateway, cloud, uplink, sensor } = plant
  uplink.mute()
  await sensor.publish(2_000)
  await gateway.until(
    ({ ledger, uplink }) => ledger.received >= 2_000 && uplink.state.phase === 'sending',
    'the agent has taken everything and waits for an answer',
  )
  const tap = Headgate.start(t, ['agent', 'tap', '--data', gateway.data])
  await poll(async () => {
    await sensor.publish(1)
    return tap.stdout !== ''
  }, 'the tap shows readings')
  await broker.kill()
  await gateway.until(({ source }) => source.phase !== 'connected', 'the loss is noticed')

  assertOrderly(await gateway.stop())
  await tap.ended()

  uplink.pass()
  await broker.up()
  await gateway.start()
  await assertDelivered({ gateway, cloud, sensor })
})

test('an agent that is being flooded stops in time; the next takes up where it left', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, sensor } = plant
  sensor.start(10_000)
  for (const received of [1_000, 2_000, 3_000]) {
    await gateway.until(({ ledger }) => ledger.received > received, 'the agent is at work')
    assertOrderly(await gateway.stop())
    await gateway.start()
  }
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
})

test('a collector with a slow sender and readers that do not read stops in time and loses nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, sensor } = plant
  await sensor.publish(5_000)
  await gateway.drained(5_000)
  const sender = await open(t, cloud.port)
  sender.write(
    'POST /v1/batches HTTP/1.1\r\nhost: c\r\ncontent-type: application/cbor\r\ncontent-length: 1000\r\n\r\nsome',
  )
  for (const path of ['tail?from=0', 'records', 'tail']) {
    const reader = await open(t, cloud.port)
    reader.write(`GET /v1/streams/readings/${path} HTTP/1.1\r\nhost: c\r\n\r\n`)
    await once(reader, 'readable') // It has an answer, and reads nothing of it.
  }
  sensor.start(2_000)
  await gateway.until(({ ledger }) => ledger.forwarded > 6_000, 'readings go on')

  assertOrderly(await cloud.stop())

  await cloud.start()
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
})

test('a simulator stops in time with a broker that answers nothing, and with none', async (t) => {
  const broker = await Mosquitto.start(t)
  if (!broker) return
  const first = Promise.withResolvers<void>()
  const watch = () => ({
    up: () => {},
    down: (bytes: Uint8Array) => bytes.length > 4 && first.resolve(),
  })
  const proxy = await FaultProxy.open(t, broker.port, watch)
  const play = ['--broker', `mqtt://127.0.0.1:${proxy.port}`, '--speed', 'max', '--json']
  const mute = Headgate.start(t, ['sim', ...play])
  await first.promise // Acknowledgements come.
  proxy.mute()
  const { code, elapsedMs } = await mute.stop()
  assert.ok(elapsedMs < limitMs, `${elapsedMs} ms`)
  assert.equal(code, 0, mute.stderr)
  const { sent, acknowledged } = JSON.parse(mute.stdout)
  assert.ok(sent > acknowledged, 'what was not answered for is not counted as acknowledged')

  proxy.refuse()
  const alone = Headgate.start(t, ['sim', ...play])
  await alone.said(/trying again/)
  const ended = await alone.stop()
  assert.ok(ended.elapsedMs < limitMs, `${ended.elapsedMs} ms`)
})

test('a broker with clients that neither read nor leave stops in time', async (t) => {
  const broker = Headgate.start(t, ['broker', '--port', '0', '--json'])
  await broker.printed(/\n/)
  const { url } = JSON.parse(broker.stdout)
  const proxy = await FaultProxy.open(t, Number(new URL(url).port))
  const gateway = await Gateway.make(t, {
    directory: await temporaryDirectory(t),
    broker: `mqtt://127.0.0.1:${proxy.port}`,
    collector: 'http://127.0.0.1:9',
  })
  await gateway.start()
  await gateway.subscribed()
  proxy.silence()
  const sensor = new Sensor(url)
  cleanUp(t, () => sensor.stop())
  await sensor.publish(1_000)

  assertOrderly(await broker.stop())
})

test('`up` stops in time with its uplink cut, and prints the ledger', async (t) => {
  const data = await temporaryDirectory(t)
  const up = Headgate.start(t, ['up', '--data', data, '--speed', '10', '--outage', '60', '--json'])
  await up.said(/uplink cut/)
  await poll(async () => {
    const { ledger } = JSON.parse(await ask(join(data, 'agent'), 'GET', '/status'))
    return ledger.buffered > 0
  }, 'readings wait for the uplink')
  assertOrderly(await up.stop('SIGINT'))
  const { sent, ledger } = JSON.parse(up.stdout)
  assert.ok(sent > 0 && ledger.received > 0, up.stdout)
})

function assertOrderly({ code, signal, elapsedMs }: Ended): void {
  assert.ok(elapsedMs < limitMs, `it took ${Math.round(elapsedMs)} ms`)
  assert.deepEqual({ code, signal }, { code: 0, signal: null })
}

/** Mosquitto, an agent and a collector, with a proxy on the uplink. */
async function start(t: TestContext) {
  const broker = await Mosquitto.start(t, {
    lines: [...keepsQueue, 'persistence true', 'persistence_location %d/'],
  })
  if (!broker) return undefined
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  await cloud.start()
  const uplink = await FaultProxy.open(t, cloud.port)
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: broker.url,
    collector: `http://127.0.0.1:${uplink.port}`,
  })
  await gateway.start()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { broker, cloud, gateway, uplink, sensor }
}

async function open(t: TestContext, port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port })
  socket.on('error', () => {})
  cleanUp(t, () => socket.destroy())
  await once(socket, 'connect')
  return socket
}
