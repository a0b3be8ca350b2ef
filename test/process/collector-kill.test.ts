import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import { TestAgent, type TestBatch } from '../support/batches.ts'
import { send } from '../support/collector.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { Cloud } from '../support/plant.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const kills = effort('HEADGATE_COLLECTOR_KILLS', { quick: 5, inCi: 20, inFull: 200 })
const agentCount = 8

test(`a collector killed ${kills} times in the middle of appending keeps what it answered for`, async (t) => {
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory, more: { log: { segment: '64KiB' } } })
  const agents = Array.from({ length: agentCount }, (_, i) => new TestAgent({ name: `gw-${i}` }))
  const accepted = new Map(agents.map(({ name }) => [name, 0]))
  let alive = true
  let answers = 0

  /** One batch after the other, each until it is answered for, over any number of kills. */
  const keepSending = async (agent: TestAgent) => {
    let batch: TestBatch | undefined
    // A batch without an answer may be in the log: it is sent until there is one.
    while (alive || batch) {
      batch ??= agent.readings(1 + random.below(200))
      const answer = await send(cloud.url, batch).catch(() => undefined)
      if (!answer) {
        await new Promise((resolve) => setTimeout(resolve, 20)) // It is being started again.
        continue
      }
      assert.equal(answer.status, 200, JSON.stringify(answer.body))
      assert.equal(answer.body.held, batch.header.last)
      accepted.set(agent.name, batch.header.last)
      answers += 1
      batch = undefined
    }
  }
  await cloud.start()
  const sending = agents.map(keepSending)
  for (let kill = 0; kill < kills; kill++) {
    const until = answers + 20 + random.below(200)
    while (answers < until) await new Promise((resolve) => setTimeout(resolve, random.below(10)))
    await cloud.kill()
    await cloud.start()
  }
  alive = false
  await Promise.all(sending)
  await cloud.stop()

  const report = await verifyLog(nodeDisk(cloud.data))
  assert.deepEqual(report.problems, [])
  const sum = [...accepted.values()].reduce((total, held) => total + held, 0)
  t.diagnostic(`${answers} batches, ${sum} readings, ${report.segments} segments`)
  assert.equal(report.records.readings, sum)
})
