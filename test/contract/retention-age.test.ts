import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import type { LogEngine } from '../../collector/log/engine.ts'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import type { Clock } from '../../shared/ports.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { TestAgent, type TestBatch } from '../support/batches.ts'
import { FileScope } from '../support/file-scope.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { NatsNode } from '../support/nats/server.ts'
import { poll } from '../support/poll.ts'
import { silentLog } from '../support/silent-log.ts'
import { entryOf, readAll } from './log-engine.ts'

/** The embedded log's is in test/collector: segments go whole there. */
const engines = { nats: natsLogs, kafka: kafkaLogs }
const hourMs = 3_600_000

type Open = (world: { clock: Clock; ageMs: number | undefined }) => Promise<LogEngine>

async function natsLogs(file: FileScope): Promise<Open | undefined> {
  const nodes = await NatsNode.start(file)
  return (
    nodes &&
    (({ clock, ageMs }) =>
      NatsLog.open({
        servers: nodes.map(({ url }) => url),
        name: 'test',
        partitions: 1,
        replicas: 1,
        clock,
        random: systemRandom,
        logger: silentLog,
        retention: { bytes: undefined, ageMs },
      }))
  )
}

async function kafkaLogs(file: FileScope): Promise<Open | undefined> {
  const nodes = await KafkaNode.start(file)
  const brokers = nodes?.map(({ address }) => address)
  return (
    brokers &&
    (({ clock, ageMs }) => openKafkaLog(brokers, { clock, retention: { bytes: undefined, ageMs } }))
  )
}

for (const [engine, logsOf] of Object.entries(engines)) {
  const file = new FileScope()
  let open: Open | undefined
  before(async () => {
    open = await logsOf(file)
  })

  test(`${engine}: what arrived too long ago goes, first some and then all, and what was held stays known`, async (t) => {
    if (!open) return t.skip(file.skipped)
    const agent = new TestAgent()
    const old = [agent.readings(2), agent.readings(2), agent.readings(2)]
    const young = [agent.readings(2), agent.readings(2)]
    let borderMs = 0
    {
      await using log = await open({ clock: systemClock, ageMs: 1 })
      await log.retain() // There is nothing yet.
    }
    {
      await using log = await open({ clock: systemClock, ageMs: undefined })
      await append(log, old)
      borderMs = await nextMillisecond()
      await nextMillisecond()
      await append(log, young)
    }
    /** A log for which an hour ago is then. */
    const at = (thenMs: number) =>
      open!({ clock: { ...systemClock, wallMs: () => thenMs + hourMs }, ageMs: hourMs })
    {
      await using log = await at(borderMs)
      await log.retain()
      assert.deepEqual(await firstsOf(log), [7, 9])
      assert.equal((await log.statistics()).readings.records, 4)
    }
    {
      await using log = await at((await nextMillisecond()) + 1)
      await log.retain()
      assert.deepEqual(await firstsOf(log), [])
      assert.equal((await log.statistics()).readings.records, 0)
    }
    await using log = await open({ clock: systemClock, ageMs: undefined })
    for (const batch of [old[0]!, young[1]!])
      assert.equal((await log.append(entryOf(batch))).code, 'duplicate')
    await append(log, [agent.readings(3)])
    assert.deepEqual(await firstsOf(log), [11])
    assert.equal((await log.statistics()).readings.records, 3)
  })
}

async function append(log: LogEngine, batches: TestBatch[]): Promise<void> {
  for (const batch of batches)
    assert.equal((await log.append(entryOf(batch, Date.now()))).code, 'accepted')
}

async function firstsOf(log: LogEngine): Promise<number[]> {
  const items = await readAll(log, { stream: 'readings' })
  return items.map((item) => item.first)
}

/** Servers tell time themselves, in milliseconds. */
async function nextMillisecond(): Promise<number> {
  const nowMs = Date.now()
  return poll(async () => Date.now() > nowMs + 1 && Date.now(), 'time goes on')
}
