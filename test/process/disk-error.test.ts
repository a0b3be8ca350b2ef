import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { cleanUp } from '../support/clean-up.ts'
import { assertDelivered } from '../support/counting.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Sensor } from '../support/sensor.ts'
import { type Fault, Strace } from '../support/strace.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('an agent whose disk fails to write and to sync, now and again, loses and repeats nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, sensor, strace } = plant
  // Of LevelDB's files only: sockets and threads write too.
  const files = Array.from({ length: 200 }, (_, i) =>
    join(gateway.data, 'outbox', `${String(i).padStart(6, '0')}.log`),
  )
  sensor.start(1_500)
  let failures = 0
  for (const fault of [
    { calls: 'fdatasync', fault: 'error=EIO:when=5+5' },
    { calls: 'fdatasync', fault: 'error=ENOSPC' },
    { calls: 'write', fault: 'error=EIO:when=5+5', files },
    { calls: 'write', fault: 'error=ENOSPC:when=20+20', files },
    { calls: 'fsync,fdatasync,rename,unlink,ftruncate', fault: 'error=EIO:when=3+3' },
  ] satisfies Fault[]) {
    const mend = await strace.break(gateway.process.pid, fault)
    failures += 1
    await gateway.process.said(new RegExp(`(the outbox failed[^]*){${failures}}`))
    await mend()
    const { ledger } = await gateway.until(
      ({ source }) => source.phase === 'connected',
      'it is back',
    )
    await gateway.until((now) => now.ledger.received > ledger.received, 'it takes readings')
  }
  const mend = await strace.break(gateway.process.pid, { calls: 'fdatasync', fault: 'error=EIO' })
  await gateway.process.said(new RegExp(`(the outbox failed[^]*){${failures + 1}}`))
  await gateway.kill()
  await mend()
  await gateway.start()
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
})

test('a collector whose disk fails to write and to sync, now and again, loses and repeats nothing', async (t) => {
  const plant = await start(t)
  if (!plant) return
  const { gateway, cloud, sensor, strace } = plant
  sensor.start(1_500)
  let failures = 0
  for (const fault of [
    { calls: 'pwritev', fault: 'error=EIO:when=2+2' },
    { calls: 'pwritev,pwrite64', fault: 'error=ENOSPC:when=2+2' },
    { calls: 'fsync,fdatasync,rename,unlink,ftruncate,pwritev', fault: 'error=EIO:when=3+3' },
  ] satisfies Fault[]) {
    const mend = await strace.break(cloud.process.pid, fault)
    failures += 1
    await cloud.process.said(new RegExp(`(the log cannot write[^]*){${failures}}`))
    await mend()
    await cloud.process.said(new RegExp(`(the log can write again[^]*){${failures}}`))
  }
  const mend = await strace.break(cloud.process.pid, { calls: 'pwritev', fault: 'error=EIO' })
  await cloud.process.said(new RegExp(`(the log cannot write[^]*){${failures + 1}}`))
  await cloud.kill()
  await mend()
  await cloud.start()
  await sensor.stop()
  await assertDelivered({ gateway, cloud, sensor })
})

async function start(t: TestContext) {
  const strace = Strace.find(t)
  const broker = strace && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!strace || !broker) return undefined
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, {
    directory: `${directory}/cloud`,
    more: { log: { segment: '64KiB' } },
  })
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: broker.url,
    collector: cloud.url,
    uplink: { batch: { maxAge: '50ms' } },
  })
  await Promise.all([cloud.start(), gateway.start()])
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  return { strace, gateway, cloud, sensor }
}
