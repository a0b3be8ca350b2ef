import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { Agent } from '../../agent/agent.ts'
import { imbalance } from '../../shared/ledger.ts'
import { cleanUp } from './clean-up.ts'
import type { ModelCollector } from './model-collector.ts'
import { device } from './publisher.ts'
import { until } from './until.ts'

const perSecond = 2_000

/** Counts up on `sensors/pump/count`, 2,000 a second, until it is stopped. */
export async function counting(t: TestContext, url: string) {
  const { client } = await device(t, url)
  let next = 1
  const unanswered = new Set<Promise<unknown>>()
  const timer = setInterval(() => {
    for (let i = 0; i < perSecond / 100; i++) {
      const done: Promise<unknown> = client
        .publishAsync('sensors/pump/count', String(next++), { qos: 1 })
        .finally(() => unanswered.delete(done))
      unanswered.add(done)
    }
  }, 10)
  cleanUp(t, () => clearInterval(timer))
  return {
    get count() {
      return next - 1
    },
    async stop() {
      clearInterval(timer)
      await Promise.all(unanswered)
      return next - 1
    },
  }
}

/** Each value from 1 to `count` is at the collector once, in order. */
export async function assertAll(
  agent: Agent,
  collector: ModelCollector,
  count: number,
): Promise<void> {
  await until(
    () => collector.readings.length >= count && agent.status?.ledger.buffered === 0,
    `all ${count} are delivered`,
    30_000,
  )
  assert.deepEqual(
    collector.readings.map(({ value }) => value),
    Array.from({ length: count }, (_, i) => i + 1),
  )
  assert.equal(imbalance(agent.status!.ledger), 0)
}
