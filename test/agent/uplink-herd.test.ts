import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Uplink, uplinkSchema } from '../../agent/uplink/uplink.ts'
import type { Random } from '../../shared/ports.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryStore } from '../support/memory-store.ts'
import { ModelCollector } from '../support/model-collector.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { reading } from '../support/readings.ts'
import { Seeded } from '../support/seeded.ts'
import { silentLog } from '../support/silent-log.ts'

const agents = 1_000
const downMs = 45_000

test('a thousand agents come back to a restarted collector spread out, and within 90 s', async () => {
  const clock = new ManualClock()
  const seeded = new Seeded(7)
  const random: Random = {
    bytes: (length) => Uint8Array.from({ length }, () => seeded.below(256)),
    uniform: () => seeded.uniform(),
  }
  const startMs = clock.monotonicMs()
  const backAtS: number[] = []
  const config = uplinkSchema.parse({ url: 'http://127.0.0.1:1', compression: 'none' })
  const stop = new AbortController()
  const running: Promise<void>[] = []
  for (let i = 0; i < agents; i++) {
    const outbox = await openOutbox('', { clock, store: new MemoryStore() })
    await outbox.commit(groupOf([reading()]))
    const link = new ModelCollector()
    let back = false
    link.before = () => {
      const sinceMs = clock.monotonicMs() - startMs - downMs
      if (sinceMs < 0) throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
      if (!back) backAtS.push(Math.floor(sinceMs / 1000))
      back = true
      return undefined
    }
    const uplink = new Uplink({
      outbox,
      link,
      clock,
      random,
      log: silentLog,
      agent: `gw-${i}`,
      config,
    })
    running.push(uplink.run(stop.signal))
  }
  await clock.advance(downMs + 90_000)
  assert.equal(backAtS.length, agents, 'all are back')
  const perSecond = new Map<number, number>()
  for (const second of backAtS) perSecond.set(second, (perSecond.get(second) ?? 0) + 1)
  const most = Math.max(...perSecond.values())
  assert.ok(most <= agents / 10, `${most} in one second`)
  stop.abort()
  await Promise.all(running)
})
