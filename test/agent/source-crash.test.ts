import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { openDialer } from '../../agent/source/dial.ts'
import { sourceSchema } from '../../agent/source/source.ts'
import { systemClock } from '../../shared/system.ts'
import { Mosquitto } from '../support/mosquitto.ts'
import { device } from '../support/publisher.ts'
import { Seeded } from '../support/seeded.ts'
import { MemoryState, SourceLife, seededRandom } from '../support/source.ts'

const total = 3_000
const crashes = 30

/**
 * Lives of an agent, one after the other on one store: each takes groups until it crashes before or behind
 * a commit, or behind an acknowledgement. Returns what they took for new, all told, in order.
 */
async function manyLives(
  begin: () => Promise<SourceLife>,
  random: Seeded,
): Promise<{ fresh: string[]; repeats: number }> {
  const fresh: string[] = []
  let repeats = 0
  while (fresh.length < total) {
    const life = await begin()
    const last = fresh.length + 1 + random.below((2 * total) / crashes)
    for (let alive = true; alive && fresh.length < total; ) {
      const group = await life.take()
      const dying = fresh.length + group.messages.length >= last
      if (dying && random.chance(0.3)) break
      const committed = life.commit(group)
      fresh.push(...committed.fresh)
      repeats += committed.repeats.length
      if (dying && random.chance(0.5)) break
      life.source.acknowledge(group)
      alive = !dying
    }
    life.crash()
  }
  return { fresh, repeats }
}

async function publishAll(t: TestContext, url: string, payloads: readonly string[]): Promise<void> {
  const { publish } = await device(t, url)
  for (let at = 0; at < payloads.length; at += 20)
    await publish('sensors/a/t', payloads.slice(at, at + 20))
}

for (const [what, version, payloadOf] of [
  ['each message once and in order', '3.1.1', (i: number) => `${i}`],
  ['each message once and in order', '5', (i: number) => `${i}`],
  ['each of many equal messages', '3.1.1', () => 'on'],
] as const)
  test(`over ${crashes} crashes ${what} comes through mosquitto, MQTT ${version}`, async (t) => {
    const broker = await Mosquitto.start(t, { lines: ['max_queued_messages 0'] })
    if (!broker) return
    const random = new Seeded(11)
    const config = {
      url: broker.url,
      version,
      topics: ['sensors/#'],
      retry: { base: '10ms', max: '50ms' },
    }
    const state = new MemoryState()
    const begin = () =>
      SourceLife.begin({
        config,
        dialer: openDialer(sourceSchema.parse(config)),
        clock: systemClock,
        random: seededRandom(random.below(1e9)),
        state,
      })
    const first = await begin()
    while (first.source.status().subscribed.length === 0) await first.turn()
    await first.source.close()

    const payloads = Array.from({ length: total }, (_, i) => payloadOf(i))
    const published = publishAll(t, broker.url, payloads)
    const { fresh, repeats } = await manyLives(begin, random)
    await published
    assert.deepEqual(fresh, payloads)
    assert.ok(repeats > 0, 'something did come again')
  })
