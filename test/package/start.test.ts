import assert from 'node:assert/strict'
import { test } from 'node:test'
import { slowness } from '../support/slowness.ts'
import { startTimes } from './support/measure.ts'
import { median } from './support/memory.ts'

test('an agent has subscribed within 350 ms of its start', async (t) => {
  const starts = await startTimes(t, 9)
  const times = slowness()
  const tookMs = median(starts.map((start) => start.tookMs))
  const leastMs = Math.min(...starts.map((start) => start.shareMs))
  t.diagnostic(
    `start to first subscription: ${tookMs.toFixed(0)} ms (median of 9); ${leastMs.toFixed(0)} ms where other ` +
      `processes disturbed it least, on a machine ${times.toFixed(1)} times slower than usual`,
  )
  // Whatever else a machine does makes a start longer, never shorter.
  assert.ok(leastMs < 350 * times)
})
