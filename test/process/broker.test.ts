import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered, assertSame } from '../support/counting.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { MqttTap } from '../support/mqtt-tap.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { device } from '../support/publisher.ts'
import { Sensor } from '../support/sensor.ts'
import { Strace } from '../support/strace.ts'
import { temporaryDirectory } from '../support/temporary.ts'

for (const version of ['3.1.1', '5'])
  test(`over TLS with certificate and password, MQTT ${version}, each value is taken once, retained ones too`, async (t) => {
    const certificates = await makeCertificates(t)
    if (!certificates) return
    const { ca, server, client } = certificates
    const files = [`cafile ${ca}`, `certfile ${server.cert}`, `keyfile ${server.key}`]
    const broker = await Mosquitto.start(t, {
      users: { gateway: 'secret' },
      lines: [...keepsQueue, ...files, 'require_certificate true'],
    })
    if (!broker) return
    const url = `mqtts://127.0.0.1:${broker.port}`
    const login = { username: 'gateway', password: 'secret' }
    const [caPem, cert, key] = await Promise.all(
      [ca, client.cert, client.key].map((file) => readFile(file)),
    )
    const { publish } = await device(t, url, { ...login, ca: caPem!, cert: cert!, key: key! })
    const { cloud, makeGateway } = await plantOn(t, url)
    const source = {
      version,
      username: 'gateway',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: agent.yaml takes it from the environment
      password: '${HEADGATE_TEST_PASSWORD}',
      tls: { ca, ...client },
    }
    const env = { HEADGATE_TEST_PASSWORD: 'secret' }

    await publish('sensors/pump/state', ['"on"'], { retain: true })
    const gateway = await makeGateway({ source })
    await gateway.start({ env })
    await gateway.subscribed()
    await publish('sensors/pump/temp', ['21.50', '9007199254740993', 'null', 'true'])
    await gateway.drained(5)
    await gateway.kill()
    await publish('sensors/pump/state', ['"off"'], { retain: true })
    await gateway.start({ env })
    await gateway.drained(6)
    await gateway.stop()

    // Under another name it has no session, and is given the retained value anew.
    const renamed = await makeGateway({ source: { ...source, clientId: 'renamed' } })
    await renamed.start({ env })
    await renamed.until(({ ledger }) => ledger.deduplicated > 0, 'the retained value comes again')
    await publish('sensors/pump/temp', ['22'])
    await renamed.drained(7)
    const values = ['21.5', '9007199254740993', '', 'true'].map((value) => `temp ${value}`)
    assert.deepEqual(
      (await cloud.readings()).map(({ metric, value }) => `${metric} ${value}`),
      ['state on', ...values, 'state off', 'temp 22'],
    )
  })

// Probe mqtt-late-puback-and-qos2: on a new connection a late PUBACK acknowledges another message.
test('a commit that outlives its connection acknowledges nothing on the next one', async (t) => {
  const strace = Strace.find(t)
  const broker =
    strace &&
    (await Mosquitto.start(t, { lines: ['persistence true', 'persistence_location %d/'] }))
  if (!strace || !broker) return
  const tap = new MqttTap()
  const proxy = await FaultProxy.open(t, broker.port, tap.watch)
  const { cloud, makeGateway } = await plantOn(t, `mqtt://127.0.0.1:${proxy.port}`)
  const gateway = await makeGateway({})
  await gateway.start()
  await gateway.subscribed()
  await broker.save('sensors/+/+')
  const slow = { calls: 'fdatasync', fault: 'delay_enter=2s' }
  const mend = await strace.break(gateway.process.pid, slow)
  const sensor = new Sensor(broker.url)
  await sensor.publish(1)
  await gateway.until(({ source }) => source.unackedMessages === 1, 'the first is being committed')
  // The broker comes back as of its last save: with the session, without the message.
  await broker.kill()
  await broker.up()
  await gateway.until(({ source }) => source.connects === 2, 'the agent is connected again')
  await sensor.publish(1)
  const { ledger } = await gateway.until(
    ({ source }) => source.unackedMessages === 2,
    'the second has come, under the packet id of the first',
  )
  assert.equal(ledger.received, 0)
  await gateway.until(({ ledger }) => ledger.received === 1, 'the first is committed')
  await gateway.kill() // Before the second is.
  await mend()
  await gateway.start()
  const second = [...tap.deliveries.keys()].at(-1)!
  await poll(async () => tap.deliveries.get(second) === 2, 'the second is delivered again')
  await gateway.drained(2)
  assertSame(await cloud.readings(), sensor.acknowledged)
})

// The same probe: with QoS 2 a message is the agent's before it is stored, and lost with it.
test('what is published with QoS 2 survives kills as QoS 1 does', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { broker, gateway } = plant
  const sensor = new Sensor(broker.url, { qos: 2 })
  cleanUp(t, () => sensor.stop())
  sensor.start(1_500)
  for (const received of [500, 1_000, 1_500]) {
    await gateway.until(({ ledger }) => ledger.received > received, 'the agent is at work')
    await gateway.kill()
    await gateway.start()
  }
  await sensor.stop()
  await assertDelivered({ ...plant, sensor })
})

// Probe mqtt-queue-and-handler: by default mosquitto keeps 1,000 messages and drops the rest unsaid.
test('with the settings that we advise, thousands of messages wait for an agent that is away', async (t) => {
  const plant = await start(t)
  if (!plant) return
  await plant.gateway.stop()
  await plant.sensor.publish(5_000)
  await plant.gateway.start()
  await assertDelivered(plant)
})

// The same probe: a handler slower than the keepalive costs the connection.
test('a commit slower than the keepalive costs no connection', async (t) => {
  const strace = Strace.find(t)
  const plant = strace && (await start(t, { source: { keepalive: '1s' } }))
  if (!strace || !plant) return
  const { gateway, sensor } = plant
  const slow = { calls: 'fdatasync', fault: 'delay_enter=3s' }
  const mend = await strace.break(gateway.process.pid, slow)
  await sensor.publish(2_000)
  await gateway.until(({ ledger }) => ledger.received >= 2_000, 'it has taken them')
  await mend()
  const { source } = await assertDelivered(plant)
  assert.equal(source.connects, 1)
})

// The same probe: twenty handler errors stall delivery for ever.
test('any number of payloads that do not decode go into quarantine and stop nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { broker, gateway, sensor } = plant
  const { publish } = await device(t, broker.url)
  const bad = Array.from({ length: 100 }, (_, i) => `{"v": ${i}`)
  await publish('sensors/bad/count', bad)
  await sensor.publish(1_000)
  await publish('sensors/bad/count', ['', '\0', '{"v":[[[[1]]]]}', '[]', 'NaN', '"'])
  await sensor.publish(1_000)
  await gateway.until(({ ledger }) => ledger.received >= 2_106, 'all has come')
  const { ledger, totals } = await assertDelivered(plant)
  assert.equal(ledger.quarantined, 106)
  assert.equal(totals.quarantineForwarded, 106)
})

async function start(t: TestContext, options: Record<string, unknown> = {}) {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return undefined
  const { cloud, makeGateway } = await plantOn(t, broker.url)
  const gateway = await makeGateway(options)
  await gateway.start()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { broker, cloud, gateway, sensor }
}

/** A collector, and a gateway that can be made again, with other settings, on the same folder. */
async function plantOn(t: TestContext, broker: string) {
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  await cloud.start()
  const makeGateway = (options: Record<string, unknown>) =>
    Gateway.make(t, {
      directory: `${directory}/gateway`,
      broker,
      collector: cloud.url,
      ...options,
    })
  return { cloud, makeGateway }
}
