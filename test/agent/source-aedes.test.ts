import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { openDialer } from '../../agent/source/dial.ts'
import { sourceSchema } from '../../agent/source/source.ts'
import { systemClock } from '../../shared/system.ts'
import { aedesBroker } from '../support/aedes-broker.ts'
import { device } from '../support/publisher.ts'
import { type MemoryState, SourceLife, seededRandom } from '../support/source.ts'

async function live(t: TestContext, url: string, state?: MemoryState): Promise<SourceLife> {
  const config = { url, topics: ['sensors/#'], retry: { base: '10ms', max: '50ms' } }
  const life = await SourceLife.begin({
    config,
    dialer: openDialer(sourceSchema.parse(config)),
    clock: systemClock,
    random: seededRandom(),
    ...(state && { state }),
  })
  t.after(() => life.source.close())
  return life
}

async function settle(life: SourceLife): Promise<void> {
  while (life.source.status().subscribed.length === 0) await life.turn()
}

const numbers = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => String(from + i))

test('messages come through aedes', async (t) => {
  const { url } = await aedesBroker(t)
  const life = await live(t, url)
  await settle(life)
  const { publish } = await device(t, url)
  await publish('sensors/a/t', numbers(1, 500))
  assert.deepEqual((await life.turns(500)).fresh, numbers(1, 500))
})

test('aedes delivers again without DUP, and what was committed is known all the same', async (t) => {
  const { url } = await aedesBroker(t)
  const first = await live(t, url)
  await settle(first)
  const sender = await device(t, url)
  await sender.publish('sensors/a/t', numbers(1, 100))
  const committed: string[] = []
  while (committed.length < 100) committed.push(...first.commit(await first.take()).fresh)
  first.crash() // Between commit and PUBACK.
  const second = await live(t, url, first.state)
  const { fresh, repeats } = await second.turns(100)
  assert.deepEqual(fresh, [])
  assert.deepEqual(repeats.toSorted(), numbers(1, 100).toSorted())
  const more = await device(t, url)
  await more.publish('sensors/a/t', numbers(1, 100))
  assert.deepEqual((await second.turns(100)).fresh, numbers(1, 100))
})

test('what aedes kept while the agent was away comes when it is back', async (t) => {
  const { url } = await aedesBroker(t)
  const first = await live(t, url)
  await settle(first)
  await first.source.close()
  const { publish } = await device(t, url)
  await publish('sensors/a/t', numbers(1, 50))
  const second = await live(t, url, first.state)
  assert.deepEqual((await second.turns(50)).fresh, numbers(1, 50))
})

test('retained copies are marked, and known when they come a second time', async (t) => {
  const { url } = await aedesBroker(t)
  const { publish } = await device(t, url)
  await publish('sensors/a/t', ['21.5'], { retain: true })
  const first = await live(t, url)
  const seen: boolean[] = []
  while (seen.length === 0) {
    const group = await first.take()
    seen.push(...group.messages.map(({ retained }) => retained))
    first.commit(group)
    first.source.acknowledge(group)
  }
  assert.deepEqual(seen, [true])
  await first.source.close()
  first.state.apply(first.marks.checkpoint())
  first.state.entries.delete('session') // As if it had to subscribe anew.
  const second = await live(t, url, first.state)
  assert.deepEqual(await second.turns(1), { fresh: [], repeats: ['21.5'] })
})
