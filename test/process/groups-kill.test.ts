import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestAgent } from '../support/batches.ts'
import { send } from '../support/collector.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Headgate } from '../support/process.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const kills = effort('HEADGATE_GROUP_KILLS', { quick: 4, inCi: 8, inFull: 60 })
const agentCount = 6
const batchReadings = 20

interface Line {
  agent: string
  sequence: number
}

/** Whole lines of NDJSON; one that a kill has cut is left out. */
function linesOf(stdout: string): Line[] {
  return stdout
    .slice(0, stdout.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line)
}

test(`${kills} kills of consumers and of the collector: a group misses nothing and keeps the order`, async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory, more: { log: { partitions: 3 } } })
  await cloud.start()
  const agents = Array.from({ length: agentCount }, (_, i) => new TestAgent({ name: `gw-${i}` }))
  let sent = 0
  const sendSome = async () => {
    for (const agent of agents) {
      assert.equal((await send(cloud.url, agent.readings(batchReadings))).status, 200)
      sent += batchReadings
    }
  }
  /** Every consumer that was, with all that it printed. */
  const all: Headgate[] = []
  const start = (name: string) => {
    const args = ['--group', 'etl', '--consumer', name, '--lease', '2s', '--format', 'ndjson']
    const consumer = Headgate.start(t, ['log', 'tail', '--collector', cloud.url, ...args])
    all.push(consumer)
    return consumer
  }
  const consumers = [start('a'), start('b')]
  const distinct = () =>
    new Set(
      all.flatMap(({ stdout }) => linesOf(stdout).map((line) => `${line.agent} ${line.sequence}`)),
    ).size
  const caughtUp = () => poll(async () => distinct() === sent, 'all is read', 60_000)

  for (let kill = 0; kill < kills; kill++) {
    await sendSome()
    // Somewhere in the middle of what was sent.
    const before = distinct()
    await poll(async () => distinct() > before, 'something is read', 60_000)
    if (kill % 2 === 0) {
      const victim = random.below(2)
      await consumers[victim]!.kill()
      await sendSome()
      // The other one takes over what it held, or the next of its name does.
      if (random.below(2) === 0) await caughtUp()
      consumers[victim] = start(victim === 0 ? 'a' : 'b')
    } else {
      await cloud.kill()
      await cloud.start()
    }
  }
  await caughtUp()
  for (const consumer of consumers) await consumer.stop()

  let printed = 0
  for (const { stdout } of all) {
    const last = new Map<string, number>()
    for (const { agent, sequence } of linesOf(stdout)) {
      printed += 1
      const before = last.get(agent)
      // Batch by batch: only where one begins may it go on behind what others have had, or repeat.
      const isNext = sequence === (before ?? 0) + 1
      assert.ok(isNext || sequence % batchReadings === 1, `${agent}: ${sequence} behind ${before}`)
      last.set(agent, sequence)
    }
  }
  t.diagnostic(`${sent} readings, ${printed - sent} of them read again`)
})
