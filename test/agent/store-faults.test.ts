import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { Agent } from '../../agent/agent.ts'
import { agentSchema } from '../../agent/config.ts'
import { openDialer } from '../../agent/source/dial.ts'
import { imbalance } from '../../shared/ledger.ts'
import type { Store, StoreChange, StoreRange } from '../../shared/ports.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { MemoryStore } from '../support/memory-store.ts'
import { ModelCollector } from '../support/model-collector.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { device } from '../support/publisher.ts'
import { silentLog } from '../support/silent-log.ts'
import { until } from '../support/until.ts'

const waves = 8
const wave = 10
/** Lives beside each other: most of one is waiting. */
const atOnce = 8

for (const [what, faults] of Object.entries({
  'fails and has done nothing': { times: 1, applied: false },
  'fails and has done it all the same': { times: 1, applied: true },
  'and the two behind it fail': { times: 3, applied: false },
}))
  test(`whichever call of the store ${what}, nothing is lost or repeated`, async (t) => {
    const broker = await Mosquitto.start(t, { lines: keepsQueue })
    if (!broker) return
    const { publish } = await device(t, broker.url)
    let failed = 0
    for (let done = false; !done; ) {
      const disks = Array.from({ length: atOnce }, (_, i) => {
        return new FaultyDisk({ nth: failed + i + 1, ...faults })
      })
      const lives = disks.map((disk) => oneLife(t, `gw-${disk.nth}`, broker.url, disk, publish))
      await Promise.all(lives)
      failed += disks.filter((disk) => disk.failed).length
      done = disks.some((disk) => !disk.failed)
    }
    t.diagnostic(`${failed} calls, each failed once`)
    assert.ok(failed > 20)
  })

/** Publishes in waves to an agent on the disk, until all of it is at the collector: each value once, in order. */
async function oneLife(
  t: TestContext,
  name: string,
  broker: string,
  disk: FaultyDisk,
  publish: (topic: string, payloads: string[]) => Promise<unknown>,
): Promise<void> {
  const collector = new ModelCollector()
  const topic = `sensors/${name}/count`
  const { source, ...rest } = agentSchema.parse({
    agent: name,
    data: '/nowhere',
    source: { url: broker },
    decode: [{ topic: 'sensors/{device}/{metric}', format: 'json' }],
    uplink: { url: 'http://collector.test', batch: { maxAge: '0ms' } },
  })
  const config = { ...rest, source: { ...source, topics: [topic] } }
  const agent = new Agent(config, {
    clock: systemClock,
    random: { ...systemRandom, uniform: () => 0 }, // Every wait is over at once.
    boot: new Uint8Array(16),
    openStore: () => disk.open(),
    openReserve: () => ({ release: async () => {}, restore: async () => true }),
    openDialer,
    openUplink: () => collector,
    log: silentLog,
  })
  const stop = new AbortController()
  const running = agent.run(stop.signal)
  t.after(() => stop.abort())
  await until(() => (agent.status?.source.subscribed.length ?? 0) > 0, 'it has subscribed')
  let next = 1
  for (let i = 0; i < waves; i++)
    await publish(
      topic,
      Array.from({ length: wave }, () => String(next++)),
    )
  const all = waves * wave
  await until(
    () => collector.readings.length >= all && agent.status?.ledger.buffered === 0,
    `all is delivered with call ${disk.nth} failing`,
  )
  const { ledger } = agent.status!
  stop.abort()
  await running

  assert.deepEqual(
    collector.readings.map(({ value }) => value),
    Array.from({ length: all }, (_, i) => i + 1),
    `call ${disk.nth}`,
  )
  assert.equal(imbalance(ledger), 0)
  assert.equal(ledger.received - ledger.deduplicated, all)
}

interface Faults {
  /** The first call that fails, counted over all openings of the store. */
  nth: number
  times: number
  /** A write that fails is there all the same. */
  applied: boolean
}

/**
 * A store of which some calls fail. As LevelDB does, it acknowledges what is written behind a failure on
 * the same handle, and loses it.
 */
class FaultyDisk {
  readonly nth: number
  failed = false
  readonly #faults: Faults
  readonly #content = new MemoryStore()
  #calls = 0

  constructor(faults: Faults) {
    this.nth = faults.nth
    this.#faults = faults
  }

  async open(): Promise<Store> {
    const content = this.#content
    const { nth, times, applied } = this.#faults
    let broken = false
    const call = async (done: () => Promise<void> = async () => {}) => {
      this.#calls += 1
      if (this.#calls < nth || this.#calls >= nth + times) return
      this.failed = true
      await done()
      broken = true
      throw new Error('EIO: i/o error')
    }
    return {
      async get(key: Uint8Array) {
        await call()
        return content.get(key)
      },
      write: async (changes: readonly StoreChange[]) => {
        await call(async () => {
          if (applied && !broken) await content.write(changes)
        })
        if (!broken) await content.write(changes)
      },
      async *read(range: StoreRange) {
        await call()
        yield* content.read(range)
      },
      async close() {},
    }
  }
}
