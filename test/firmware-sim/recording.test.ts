import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Pace } from '../../firmware-sim/pace.ts'
import { payloadOf } from '../../firmware-sim/payload.ts'
import { plant } from '../../firmware-sim/plant.ts'
import { deal, dealtNames, limit, merge, repeat } from '../../firmware-sim/recording.ts'
import type { Sample, Samples } from '../../shared/trace.ts'
import { ManualClock } from '../support/manual-clock.ts'

function source(device: string, times: number[], batch = 2): Sample[][] {
  let atMs = 0
  const samples = times.map((timeMs, i) => {
    atMs = Math.max(atMs, timeMs)
    return { device, metric: 'm', timeMs, timeNanos: 0, value: String(i), atMs }
  })
  return Array.from({ length: Math.ceil(samples.length / batch) }, (_, i) =>
    samples.slice(i * batch, (i + 1) * batch),
  )
}

const all = async (samples: Samples) => (await Array.fromAsync(samples)).flat()
const briefly = (samples: Sample[]) => samples.map(({ device, value }) => device + value)

test('sources play side by side by time, each in its own order', async () => {
  const merged = await all(
    merge([source('a', [10, 30, 20, 40]), source('b', [5, 30, 31]), source('c', [])]),
  )
  // a2 is stamped 20 but comes behind a1, as in its file.
  assert.deepEqual(briefly(merged), ['b0', 'a0', 'a1', 'a2', 'b1', 'b2', 'a3'])
})

test('devices are dealt the originals round and round', async () => {
  const names = dealtNames(['a', 'b'], 5)
  assert.deepEqual(Object.fromEntries(names), {
    a: ['a-001', 'a-002', 'a-003'],
    b: ['b-001', 'b-002'],
  })
  const dealt = await all(deal(merge([source('a', [1]), source('b', [2])]), names))
  assert.deepEqual(briefly(dealt), ['a-0010', 'a-0020', 'a-0030', 'b-0010', 'b-0020'])
  assert.deepEqual(Object.fromEntries(dealtNames(['a', 'b'], 1)), { a: ['a-001'], b: [] })
})

test('a looped recording goes on one step behind its end', async () => {
  const looped = await all(
    limit(
      repeat(() => source('a', [100, 110, 120])),
      { rows: 7 },
    ),
  )
  assert.deepEqual(
    looped.map(({ timeMs }) => timeMs),
    [100, 110, 120, 130, 140, 150, 160],
  )
})

test('a recording ends after a number of rows or a length of time', async () => {
  const times = [100, 110, 120, 130]
  assert.equal((await all(limit(source('a', times), { rows: 3 }))).length, 3)
  assert.equal((await all(limit(source('a', times), { durationMs: 20 }))).length, 2)
  assert.equal((await all(limit(source('a', times), {}))).length, 4)
})

test('the plant sends four metrics a second from each device, two decimals, from its seed', async () => {
  const play = (seed: number) =>
    all(limit(plant({ seed, devices: 50, startMs: 1_000_000 }), { rows: 50 * 4 * 60 }))
  const first = await play(1)
  assert.deepEqual((await play(1)).map(payloadOf), first.map(payloadOf))
  assert.notDeepEqual((await play(2)).map(payloadOf), first.map(payloadOf))
  assert.equal(new Set(first.map(({ device }) => device)).size, 50)
  for (const { value } of first) assert.match(value, /^-?\d+\.\d\d$/)
  const offsets = first.map(({ timeMs, atMs }) => timeMs - atMs)
  const deviation = Math.sqrt(offsets.reduce((sum, x) => sum + x * x, 0) / offsets.length)
  assert.ok(Math.abs(deviation - 3) < 0.2, `jitter of 3 ms, not ${deviation}`)
})

test("a recording keeps its pace, and a week's silence is an hour's", async () => {
  const clock = new ManualClock()
  const pace = new Pace(clock, 60)
  const { signal } = new AbortController()
  const reached: number[] = []
  const playing = (async () => {
    const week = 7 * 86_400_000
    for (const atMs of [0, 60_000, 30_000, 120_000, week]) {
      await pace.until(atMs, signal)
      reached.push(clock.monotonicMs())
    }
  })()
  await clock.advance(100_000)
  await playing
  assert.deepEqual(reached, [0, 1000, 1000, 2000, 62_000])
})
