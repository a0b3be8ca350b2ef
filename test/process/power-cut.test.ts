import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { CuttableDisk } from '../support/file-systems.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Seeded } from '../support/seeded.ts'
import { Sensor } from '../support/sensor.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const cuts = effort('HEADGATE_CUTS', { quick: 4, inCi: 10, inFull: 50 })
const megabytes = 128
/** Longest time from a start to a cut. */
const maxLifeMs = 1_500

test(`gateway and cloud lose nothing in ${cuts} power cuts`, async (t) => {
  const disks = {
    gateway: await CuttableDisk.make(t, megabytes),
    cloud: await CuttableDisk.make(t, megabytes),
  }
  const broker = disks.gateway && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!disks.gateway || !disks.cloud || !broker) return
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  // Configurations stand on a disk that keeps them.
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, {
    directory: `${directory}/cloud`,
    data: disks.cloud.directory,
    more: { log: { segment: '64KiB' } },
  })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    data: disks.gateway.directory,
    broker: broker.url,
    collector: cloud.url,
    uplink: { batch: { maxAge: '50ms' } },
  })
  const parts = { gateway, cloud }
  await Promise.all([cloud.start(), gateway.start()])
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  sensor.start(1_500)

  for (let cut = 0; cut < cuts; cut++) {
    await pause(random.below(maxLifeMs))
    const victims = random.pick([['gateway'], ['cloud'], ['gateway', 'cloud']] as const)
    await Promise.all(
      victims.map(async (victim) => {
        await disks[victim]!.cut(() => parts[victim].process.halt())
        await parts[victim].kill()
        await disks[victim]!.restore()
        await parts[victim].start()
      }),
    )
  }

  await sensor.stop()
  const { ledger, uplink } = await assertDelivered({ gateway, cloud, sensor })
  assert.equal(ledger.lostCorrupt, 0)
  assert.deepEqual([uplink.holes, uplink.forks], [0, 0])
  t.diagnostic(`${sensor.acknowledged.size} readings`)
})
