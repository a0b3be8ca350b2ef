import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClockWatch } from '../../agent/clock-watch.ts'
import { ManualClock } from '../support/manual-clock.ts'

const boot = new Uint8Array(16).fill(0xab)

test('a clock that is not set yet says nothing; once it is, the offset of the boot is told once', async () => {
  const clock = new ManualClock(0)
  const watch = new ClockWatch(clock, boot)
  await clock.advance(60_000)
  assert.deepEqual(watch.news(), [])
  const setMs = Date.UTC(2026, 10, 23)
  clock.setWall(setMs)
  assert.deepEqual(watch.news(), [
    { type: 'clock', content: { boot: 'ab'.repeat(16), offsetMs: setMs - 60_000 } },
  ])
  await clock.advance(3_600_000)
  assert.deepEqual(watch.news(), [])
})

test('a step of the clock is told, its slow drift is not', async () => {
  const clock = new ManualClock()
  const watch = new ClockWatch(clock, boot)
  assert.equal(watch.news().length, 1)
  clock.setWall(clock.wallMs() + 500)
  assert.equal(watch.news().length, 0)
  clock.setWall(clock.wallMs() + 3_600_000)
  assert.equal(watch.news().length, 0, 'not within a minute of the last')
  await clock.advance(60_000)
  assert.equal(watch.news().length, 1)
})
