import assert from 'node:assert/strict'
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Certificates, makeCertificates } from '../support/certificates.ts'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { FleetDesk } from '../support/fleet-desk.ts'
import { FleetWatcher } from '../support/fleet-member.ts'
import { keepsOverKill, keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('pushed, killed on probation, taken back, restarted: no reading is lost or repeated', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, watcher, desk, documentFor, sensor } = plant
  sensor.start(2_000)

  await watcher.push(1, documentFor({ outbox: { maxBytes: '64MiB' } }))
  await watcher.until(1, 'good', 40_000)

  // Killed three times on probation: whatever it is, it is not good.
  await watcher.push(2, documentFor({ fleet: { probation: '2m' } }))
  await watcher.until(2, 'probation')
  for (let i = 0; i < 3; i++) {
    await gateway.kill()
    await gateway.start()
  }
  const { desired, problems } = await watcher.until(1, 'reverted')
  assert.equal(desired, 2)
  assert.match(problems[0]!.message, /started 3 times in five minutes/)
  const { stdout } = await Headgate.run(t, ['agent', 'status', '--data', gateway.data])
  assert.match(
    stdout,
    /fleet {4}connected\nconfig {3}version 1 since .*, 2 reverted\n {2}the agent was/,
  )

  await watcher.command('restart-1', desk.command('restart-1', 'restart'))
  assert.equal((await gateway.process.ended()).code, 0)
  await gateway.start()
  assert.equal((await watcher.result('restart-1')).state, 'done')
  assert.equal(watcher.reported.at(-1)!.version, 1)
  const { result } = await watcher.ask('look-1', 'diagnostics')
  assert.equal((result!.config as { agent: string }).agent, 'gw-001')

  await sensor.stop()
  await assertDelivered(plant)
})

/** A gateway that is enrolled, by files that the test writes; a fleet broker with TLS, and who watches it. */
async function start(t: TestContext) {
  const certificates = await makeCertificates(t)
  const broker = certificates && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!broker) return undefined
  const { ca, server } = certificates
  const files = [`cafile ${ca}`, `certfile ${server.cert}`, `keyfile ${server.key}`]
  const fleetBroker = await Mosquitto.start(t, {
    lines: [...keepsOverKill, ...files, 'require_certificate true'],
  })
  if (!fleetBroker) return undefined
  const fleet = `mqtts://127.0.0.1:${fleetBroker.port}`
  const desk = new FleetDesk()
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: join(directory, 'cloud') })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: join(directory, 'gateway'),
    broker: broker.url,
    collector: cloud.url,
    more: { fleet: { probation: '5s', retry: { base: '50ms', max: '250ms' } } },
  })
  await writeIdentity(join(gateway.data, 'identity'), certificates, desk, fleet, cloud.url)
  await gateway.start()
  await gateway.subscribed()
  const watcher = await FleetWatcher.open(t, fleet, certificates, desk)
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  const quick = { base: '50ms', max: '250ms' }
  const documentFor = (more: object) =>
    ({
      source: { url: broker.url, retry: quick },
      decode: [{ topic: 'sensors/{device}/{metric}' }],
      uplink: { url: cloud.url, retry: quick },
      ...more,
    }) as never
  return { gateway, cloud, watcher, desk, documentFor, sensor }
}

async function writeIdentity(
  folder: string,
  { ca, client }: Certificates,
  desk: FleetDesk,
  fleetBroker: string,
  collector: string,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  await copyFile(ca, join(folder, 'ca.pem'))
  await copyFile(client.key, join(folder, 'key.pem'))
  await copyFile(client.cert, join(folder, 'certificate.pem'))
  const pem = desk.keys.publicKey.export({ type: 'spki', format: 'pem' })
  await writeFile(join(folder, 'config-key.pem'), pem)
  const identity = { agent: 'gw-001', labels: { site: 'berlin' }, fleetBroker, collector }
  await writeFile(join(folder, 'identity.json'), JSON.stringify(identity))
}
