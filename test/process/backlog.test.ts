import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openLevel } from '../../agent/outbox/level.ts'
import { emptyLedger } from '../../shared/ledger.ts'
import { systemClock } from '../../shared/system.ts'
import { watchMemory } from '../bench/harness/usage.ts'
import { freePort } from '../support/free-port.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { Headgate } from '../support/process.ts'
import { reading } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const bulk = 2_000_000
const urgent = 100_000
const perGroup = 500
const maxMb = 100

test(`two million readings wait: the agent starts and drains them within ${maxMb} MB, urgent first, bulk not starved`, async (t) => {
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: join(directory, 'cloud') })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: join(directory, 'gateway'),
    broker: `mqtt://127.0.0.1:${await freePort()}`,
    collector: cloud.url,
  })
  await fill(join(gateway.data, 'outbox'), { bulk, urgent })

  const launchedMs = performance.now()
  const agent = gateway.launch()
  const memory = watchMemory(agent.pid)
  await agent.said(/agent is running/)
  const openedMs = performance.now()
  const { ledger } = await gateway.until(({ ledger }) => ledger.buffered === 0, 'all of it is sent')
  const drainedMs = performance.now()
  const { peakMb } = memory.end()
  const perSecond = (bulk + urgent) / ((drainedMs - openedMs) / 1000)
  t.diagnostic(
    `RssAnon ${peakMb.toFixed(0)} MB at most; opened in ${Math.round(openedMs - launchedMs)} ms, ` +
      `drained at ${Math.round(perSecond)} readings/s`,
  )
  assert.deepEqual(ledger, { ...emptyLedger(), received: bulk + urgent, forwarded: bulk + urgent })
  assert.ok(peakMb < maxMb, `${peakMb} MB`)
  assert.ok(perSecond > 100_000, `${perSecond} readings/s`)

  const head = await devicesOf(t, cloud, 200_000)
  const lastUrgent = head.lastIndexOf('alarm')
  const bulkBefore = head.slice(0, lastUrgent).filter((device) => device !== 'alarm').length
  t.diagnostic(`${bulkBefore} of bulk came before the last of ${urgent} urgent`)
  assert.equal(head.filter((device) => device === 'alarm').length, urgent)
  assert.ok(bulkBefore > 0, 'bulk has its turns')
  assert.ok(bulkBefore < urgent / 2, 'urgent has more of them')
})

test('what was thinned arrives with the bound that it names, and the log tells what is gone', async (t) => {
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: join(directory, 'cloud') })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: join(directory, 'gateway'),
    broker: `mqtt://127.0.0.1:${await freePort()}`,
    collector: cloud.url,
  })
  const count = 200_000
  await fill(join(gateway.data, 'outbox'), { bulk: count, urgent: 0, maxBytes: 256 * 1024 })
  await gateway.start()
  const { ledger } = await gateway.until(({ ledger }) => ledger.buffered === 0, 'all of it is sent')
  assert.ok(ledger.evicted > 0)
  assert.equal(ledger.forwarded + ledger.evicted, count)

  assert.equal((await cloud.readings()).length, ledger.forwarded) // `log verify` agrees, too.
  const lines = async (...more: string[]) => {
    const { stdout } = await Headgate.run(t, [
      'log',
      'cat',
      '--data',
      cloud.data,
      '--json',
      ...more,
    ])
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
  }
  const gaps = await lines('--stream', 'gaps')
  assert.equal(
    gaps.reduce((sum, gap) => sum + gap.count, 0),
    ledger.evicted,
  )
  const thinned = gaps.filter(({ reason }) => reason === 'thinned')
  assert.ok(thinned.length > 0)
  for (const { first, last, count, from, to, series } of thinned) {
    assert.ok(last - first + 1 > count && from < to)
    assert.equal(
      series.reduce((sum: number, row: { count: number }) => sum + row.count, 0),
      count,
    )
  }
  const [reading] = await lines('--from', '0', '--to', '1')
  assert.equal(reading.between, 'linear')
  assert.ok(reading.epsilon > 0)
})

interface Fill {
  bulk: number
  urgent: number
  maxBytes?: number
}

/** As an outage leaves it: bulk, and behind it, what is urgent. */
async function fill(directory: string, { bulk, urgent, maxBytes = 2 ** 30 }: Fill): Promise<void> {
  const store = await openLevel(directory)
  await using outbox = await openOutbox(directory, {
    clock: systemClock,
    config: { maxBytes },
    // This is not what is tested, and would take a minute on a slow disk.
    store: { ...store, write: (changes) => store.write(changes, { sync: false }) },
  })
  for (let at = 0; at < bulk + urgent; at += perGroup) {
    const readings = Array.from({ length: perGroup }, (_, i) =>
      reading({
        device: at < bulk ? `pump-${i % 50}` : 'alarm',
        metric: at < bulk ? `m${i % 4}` : 'temperature',
        timeMs: 1_767_225_600_000 + (at + i) * 5,
        value: Math.round(2_000 + 100 * Math.sin((at + i) / 1_000) + 10 * Math.random()) / 100,
      }),
    )
    await outbox.commit(groupOf(readings, { lane: at < bulk ? 'bulk' : 'urgent' }))
  }
}

/** Devices of the first so many readings of the log. */
async function devicesOf(t: TestContext, cloud: Cloud, count: number): Promise<string[]> {
  const range = ['--data', cloud.data, '--to', String(count), '--format', 'csv']
  const { stdout } = await Headgate.run(t, ['log', 'cat', ...range])
  const [header, ...lines] = stdout.trimEnd().split('\n')
  const column = header!.split(',').indexOf('device')
  return lines.map((line) => line.split(',')[column]!)
}
