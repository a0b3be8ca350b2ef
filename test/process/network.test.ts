import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { chooseSeed } from '../support/effort.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Seeded } from '../support/seeded.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const perSecond = 1_500

test('an uplink that goes dead without a word is left for a new one', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, sensor, uplink } = plant
  sensor.start(perSecond)
  for (const time of [1, 2]) {
    const { ledger } = await gateway.until(({ ledger }) => ledger.forwarded > 0, 'it forwards')
    await gateway.until((now) => now.ledger.forwarded > ledger.forwarded, 'it goes on forwarding')
    uplink.silence()
    const noticed = ({ uplink }: { uplink: { lastFailure: string | undefined } }) =>
      /did not answer in time/.test(uplink.lastFailure ?? '')
    await gateway.until(noticed, `it notices, time ${time}`)
    uplink.pass()
  }
  await sensor.stop()
  await assertDelivered(plant)
})

test('batches whose answers are lost are sent again and are in the log once', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, sensor, uplink } = plant
  sensor.start(perSecond)
  for (let times = 1; times <= 2; times++) {
    // It may have tried before there was a collector.
    const { uplink: before } = await gateway.until(
      ({ ledger }) => ledger.forwarded > 0,
      'it forwards',
    )
    uplink.mute()
    await gateway.until((now) => now.uplink.retries > before.retries, 'no answer comes')
    uplink.refuse() // What is muted would stay so.
    uplink.pass()
    await gateway.until((now) => now.uplink.duplicates >= times, 'the collector knows the batch')
  }
  await sensor.stop()
  await assertDelivered(plant)
})

test('an uplink that breaks in the middle of bodies and answers loses and repeats nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const random = new Seeded(seedOf(t))
  plant.sensor.start(perSecond)
  for (let cut = 0; cut < 40; cut++) await plant.uplink.cutAfter(1 + random.below(1_500))
  await plant.sensor.stop()
  await assertDelivered(plant)
})

test('a broker that goes dead without a word is dialled anew', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, sensor, downlink } = plant
  sensor.start(perSecond)
  for (const connects of [1, 2]) {
    const { ledger } = await gateway.until((now) => now.source.connects === connects, 'connected')
    await gateway.until((now) => now.ledger.received > ledger.received, 'it takes readings')
    downlink.silence()
    await gateway.until(({ source }) => source.phase !== 'connected', 'it notices')
    downlink.pass()
  }
  await sensor.stop()
  const { source } = await assertDelivered(plant)
  assert.equal(source.sessionsLost, 0)
})

test('a broker connection that breaks in the middle of packets loses and repeats nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const random = new Seeded(seedOf(t))
  plant.sensor.start(perSecond)
  for (let cut = 0; cut < 40; cut++) await plant.downlink.cutAfter(1 + random.below(20_000))
  await plant.sensor.stop()
  const { ledger } = await assertDelivered(plant)
  t.diagnostic(`${ledger.deduplicated} of ${ledger.received} had been taken before`)
})

test('readers that do not read and senders that do not send cost neither others nor memory without end', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, sensor } = plant
  await cloud.stop()
  // Were everything kept for everybody, this heap would not do.
  await cloud.start({ env: { NODE_OPTIONS: '--max-old-space-size=256' } })
  await sensor.publish(5_000)
  await gateway.drained(5_000)
  const lines = ['host: c', 'content-type: application/cbor', 'content-length: 500000', '', 'some']
  for (let i = 0; i < 50; i++) {
    const reader = await dial(t, cloud.port)
    reader.write('GET /v1/streams/readings/tail?from=0 HTTP/1.1\r\nhost: c\r\n\r\n')
    const sender = await dial(t, cloud.port)
    sender.write(['POST /v1/batches HTTP/1.1', ...lines].join('\r\n'))
  }
  sensor.start(5_000)
  await gateway.until(({ ledger }) => ledger.forwarded >= 30_000, 'readings go on')
  await sensor.stop()
  await assertDelivered(plant)
})

function seedOf(t: TestContext): number {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  return seed
}

/** A plant with a proxy on both links of the agent. */
async function start(t: TestContext) {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return undefined
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  const uplink = await FaultProxy.open(t, cloud.port)
  const downlink = await FaultProxy.open(t, broker.port)
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: `mqtt://127.0.0.1:${downlink.port}`,
    collector: `http://127.0.0.1:${uplink.port}`,
    source: { keepalive: '1s', connectTimeout: '1s' },
    uplink: { timeout: '1s', batch: { maxAge: '50ms' } },
  })
  await Promise.all([cloud.start(), gateway.start()])
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { broker, gateway, cloud, sensor, uplink, downlink }
}

async function dial(t: TestContext, port: number) {
  const socket = connect({ host: '127.0.0.1', port }).pause()
  socket.on('error', () => {})
  cleanUp(t, () => socket.destroy())
  await once(socket, 'connect')
  return socket
}
