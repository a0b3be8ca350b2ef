import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { SimReport } from '../../firmware-sim/sim-command.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { type NabSeries, nabSeries } from '../support/nab.ts'
import { Cloud, Gateway, type LoggedReading } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const recording = 'realKnownCause/machine_temperature_system_failure.csv'
/** Times the recording's own pace: its 22,695 rows in about twelve seconds. */
const speed = '550000'

test('a recording replayed through mosquitto is in the log row by row, the agent killed on the way', async (t) => {
  await replay(t, async ({ gateway }, share) => {
    await gateway.until(({ ledger }) => ledger.received >= share, 'the agent has taken a share')
    await gateway.kill()
    await gateway.start()
  })
})

test('a recording replayed through mosquitto is in the log row by row, the collector killed on the way', async (t) => {
  await replay(t, async ({ gateway, cloud }, share) => {
    await gateway.until(({ ledger }) => ledger.forwarded >= share, 'a share is forwarded')
    await cloud.kill()
    await cloud.start()
  })
})

interface Parts {
  gateway: Gateway
  cloud: Cloud
}

/** Replays, lets `interfere` have its way at a sixth, two, … of the recording, and compares with the log. */
async function replay(
  t: TestContext,
  interfere: (parts: Parts, share: number) => Promise<void>,
): Promise<void> {
  const series = await nabSeries(t, recording)
  const broker = series && (await Mosquitto.start(t, { lines: keepsQueue }))
  if (!broker) return
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: broker.url,
    collector: cloud.url,
    uplink: { batch: { maxReadings: 500 } },
  })
  await gateway.start()
  await gateway.subscribed()

  const play = ['--broker', broker.url, '--trace', series.file, '--speed', speed, '--json']
  const sim = Headgate.start(t, ['sim', ...play])
  for (const share of [1, 2, 3, 4, 5]) {
    await interfere({ gateway, cloud }, (share * series.rows.length) / 6)
    // On a busy machine later ones may find the rest of it waiting at the broker, which is as good.
    if (share === 1) assert.ok(sim.isRunning, 'the recording had ended before the first kill')
  }
  assert.equal((await sim.ended()).code, 0, sim.stderr)

  const report = JSON.parse(sim.stdout) as SimReport
  assert.deepEqual([report.sent, report.acknowledged], [series.rows.length, series.rows.length])
  const { ledger } = await gateway.drained(report.acknowledged)
  t.diagnostic(`ledger: ${JSON.stringify(ledger)}`)
  assert.equal(ledger.received, report.acknowledged + ledger.deduplicated)
  assert.equal(ledger.forwarded, report.acknowledged)
  compare(await cloud.readings(), series)
}

function compare(log: readonly LoggedReading[], { device, rows }: NabSeries): void {
  assert.equal(log.length, rows.length)
  for (const [i, row] of rows.entries()) {
    const logged = log[i]!
    assert.deepEqual(
      [logged.device, logged.metric, logged.time, Number(logged.value), logged.quality],
      [device, 'value', row.time, row.value, 'good'],
      `row ${i + 1}`,
    )
  }
}
