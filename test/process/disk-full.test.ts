import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openHealed } from '../../agent/outbox/heal.ts'
import { entryKey, totalsKey } from '../../agent/outbox/key.ts'
import { openReserve } from '../../agent/reserve.ts'
import type { Store } from '../../shared/ports.ts'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { SmallDisk } from '../support/file-systems.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const megabytes = 16

// Probe leveldb-disk-full: after one failed write LevelDB acknowledges later ones, and loses them.
test('an agent on a disk that fills, is freed and fills again loses nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { disk, gateway, cloud, sensor } = plant
  sensor.start(2_000)
  await gateway.until(({ ledger }) => ledger.received > 1_000, 'it takes readings')
  await disk.fill(0)
  await gateway.process.said(/the outbox failed/)
  await disk.fill(0) // What the agent has given back is taken too.
  await gateway.process.said(times(/the outbox failed/, 3))
  await disk.free()
  const { ledger } = await gateway.until(({ ledger }) => ledger.received > 0, 'it is open again')
  const more = ledger.received + 2_000
  await gateway.until(({ ledger }) => ledger.received > more, 'it takes readings again')

  await disk.fill(0)
  await gateway.process.said(times(/the outbox failed/, 4))
  await gateway.kill()
  await disk.fill(0)
  await gateway.launch().said(/the outbox failed/)
  await sensor.stop()
  await disk.free()
  await cloud.start()
  await assertDelivered({ gateway, cloud, sensor })
})

test('an agent that has filled its disk itself delivers when there is a collector, and goes on', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, broker } = plant
  const sensor = new Sensor(broker.url, { pad: 200 })
  cleanUp(t, () => sensor.stop())
  sensor.start(20_000)
  await gateway.process.said(/the disk is full/)
  await sensor.stop()
  const { ledger } = await gateway.until(({ ledger }) => ledger.buffered > 0, 'it can be asked')
  assert.ok(ledger.received < sensor.acknowledged.size, 'the broker keeps the rest')
  t.diagnostic(`${ledger.buffered} readings on the disk`)
  await cloud.start()
  await assertDelivered({ gateway, cloud, sensor })
})

test('a store that fills its disk opens in what its reserve gives back, wherever it stood', async (t) => {
  const disk = await SmallDisk.make(t, megabytes)
  if (!disk) return
  const bytes = (megabytes / 4) * 1024 * 1024
  const reserve = openReserve(join(disk.directory, 'reserve'), bytes)
  const open = () =>
    openHealed(join(disk.directory, 'outbox'), join(disk.directory, 'damaged'), 'now')
  for (let room = bytes / 2; room < 1.5 * bytes; room += bytes / 64) {
    assert.ok(await reserve.restore())
    await disk.fill(room)
    const { store } = await open()
    const stored = await writeUntilFull(store)
    await store.close()
    await reserve.release()
    const again = await open()
    assert.deepEqual(again.report, [])
    for (const key of stored) assert.ok(await again.store.get(key))
    await again.store.close()
    await rm(join(disk.directory, 'outbox'), { recursive: true })
    await disk.free()
  }
})

test('a collector whose disk fills, is freed and fills again loses nothing', async (t) => {
  const plant = await start(t, 'cloud')
  if (!plant) return
  const { disk, gateway, cloud, sensor } = plant
  await cloud.start()
  sensor.start(2_000)
  await gateway.until(({ ledger }) => ledger.forwarded > 1_000, 'readings are forwarded')
  await disk.fill(0)
  await cloud.process.said(/the log cannot write/)
  await disk.free()
  await cloud.process.said(/the log can write again/)
  const { ledger } = await gateway.until(({ ledger }) => ledger.received > 0, 'it can be asked')
  await gateway.until((now) => now.ledger.forwarded > ledger.forwarded, 'readings go on')
  await disk.fill(0)
  await cloud.process.said(times(/the log cannot write/, 2))
  await cloud.kill()
  await disk.free()
  await cloud.start()
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
})

function times(pattern: RegExp, count: number): RegExp {
  return new RegExp(`(${pattern.source}[^]*){${count}}`)
}

/** A plant of which one part has the small disk. The collector is not started. */
async function start(t: TestContext, small: 'gateway' | 'cloud' = 'gateway') {
  const disk = await SmallDisk.make(t, megabytes)
  const broker = disk && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!disk || !broker) return undefined
  const large = await temporaryDirectory(t)
  const folder = (part: 'gateway' | 'cloud') =>
    part === small ? disk.directory : `${large}/${part}`
  const cloud = await Cloud.make(t, { directory: folder('cloud') })
  const gateway = await Gateway.make(t, {
    directory: folder('gateway'),
    broker: broker.url,
    collector: cloud.url,
  })
  await gateway.start()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { disk, broker, gateway, cloud, sensor }
}

/** The keys that were acknowledged. Each write has a change of the same key too, as the outbox's have. */
async function writeUntilFull(store: Store): Promise<Uint8Array[]> {
  const stored: Uint8Array[] = []
  for (;;) {
    const key = entryKey('bulk', 0, stored.length)
    // Most are small; what a source hands over at once is half a megabyte, and a message more.
    const size = stored.length % 16 === 15 ? 768 * 1024 : 20_000
    const changes = [
      { key, value: randomBytes(size) },
      { key: totalsKey, value: randomBytes(200) },
    ]
    try {
      await store.write(changes, { sync: true })
    } catch (error) {
      assert.match(String(error), /No space left on device/)
      return stored
    }
    stored.push(key)
  }
}
