// One life of an outbox on a real LevelDB, for a test that makes its disk fail: `node outbox-life.ts <folder>`.
// As the agent does, it opens everything anew whenever the store has failed, and goes on. It prints which
// readings were acknowledged, how many were released, and how often it had to open the store.
import { join } from 'node:path'
import { openHealed } from '../../agent/outbox/heal.ts'
import { Outbox, outboxSchema } from '../../agent/outbox/outbox.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { groupOf, wholeLane } from './outbox.ts'
import { readings } from './readings.ts'

const perGroup = 10
const count = 80
const maxOpenings = 10

const directory = process.argv[2]!
/** `acknowledged` has the first value of each group. What failed may be stored or not, and is not tried again. */
const life = { acknowledged: [] as number[], released: 0, openings: 0 }
let next = 1
for (let done = false; !done && life.openings < maxOpenings; ) {
  life.openings += 1
  try {
    await live()
    done = true
  } catch {} // Nothing is acknowledged until it is open again.
}
process.stdout.write(`${JSON.stringify(life)}\n`)

async function live(): Promise<void> {
  const stamp = String(life.openings)
  const { store } = await openHealed(join(directory, 'outbox'), join(directory, 'damaged'), stamp)
  try {
    await using outbox = await Outbox.open({
      store,
      clock: systemClock,
      random: systemRandom,
      agent: 'gw-001',
      boot: new Uint8Array(16),
      config: outboxSchema.parse({}),
    })
    while (next <= count) {
      const first = next
      next += perGroup
      await outbox.commit(groupOf(readings(perGroup, first)))
      life.acknowledged.push(first)
      if (life.acknowledged.length % 4 !== 0) continue
      const cut = await outbox.cut('bulk', { ...wholeLane, maxCount: 15 })
      if (cut) await outbox.release(cut)
      life.released += cut?.received ?? 0
      await outbox.reclaim()
    }
  } finally {
    await store.close()
  }
}
