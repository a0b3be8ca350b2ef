import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFilter, filterSchema } from '../../agent/filter/filter.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { aedesBroker } from '../support/aedes-broker.ts'
import { runAgent } from '../support/agent-in-process.ts'
import { device } from '../support/publisher.ts'
import { reading } from '../support/readings.ts'
import { until } from '../support/until.ts'

const startMs = Date.UTC(2026, 0, 31)

/** A reading that arrived half a second behind its time, `second` seconds behind midnight. */
function arrived(second: number, value: number): AdmittedReading {
  const timeMs = startMs + second * 1000
  return {
    ...reading({ timeMs, value }),
    arrival: { wallMs: timeMs + 500, monotonicMs: second * 1000 },
  }
}

test('what a reduction holds is not settled, across a restart, until it is decided', () => {
  const rules = filterSchema.parse([{ reduce: { error: 1 } }])
  const filter = createFilter({ rules })
  assert.equal(filter.undecidedMs, Infinity)
  const { state } = filter.judge([arrived(0, 0), arrived(1, 0), arrived(2, 0.1)])
  const heldMs = filter.undecidedMs
  assert.ok(heldMs >= startMs + 1500 && heldMs <= startMs + 2500, String(heldMs))

  const saved = state.flatMap(({ key, value }) => (value ? [{ key, value }] : []))
  const again = createFilter({ rules, saved })
  assert.equal(again.undecidedMs, heldMs)
  again.flush()
  assert.equal(again.undecidedMs, Infinity)
})

test('what an open window has gathered is not settled before it closes', () => {
  const filter = createFilter({
    rules: filterSchema.parse([{ window: { every: '10s', emit: ['mean'] } }]),
  })
  filter.judge([arrived(13, 1), arrived(25, 2)])
  assert.equal(filter.undecidedMs, startMs + 20_000)
})

test('an agent tells up to when all that it received is settled', async (t) => {
  const beganMs = Date.now()
  const broker = await aedesBroker(t)
  const { collector } = await runAgent(t, broker.url)
  const sensor = await device(t, broker.url)
  await sensor.publish('sensors/pump-1/temperature', ['21.5'])
  await until(() => collector.batches.length > 0, 'its first batch arrives')
  const { ledger, sentMs } = collector.batches[0]!.header
  assert.ok(ledger!.settledMs! >= beganMs && ledger!.settledMs! <= sentMs)
})
