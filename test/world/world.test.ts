import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { runHistory } from './history.ts'
import { planOf } from './plan.ts'
import { hunt, plantedBugs, replaceOnce } from './planted.ts'
import { foundSeeds } from './seeds.ts'

test('a seed is one history, whenever it is run', async () => {
  for (const seed of [1, 2, 3]) {
    const { hash, events } = await runHistory(seed)
    const again = await runHistory(seed, { keepTrace: true })
    assert.deepEqual([again.hash, again.events], [hash, events])
  }
})

for (const { seed, only, finding } of foundSeeds)
  test(`found with seed ${seed}, and mended: ${finding}`, async () => {
    const { violations } = await runHistory(seed, { only })
    assert.deepEqual(violations, [])
  })

test('each planted bug has its place in the code', () => {
  for (const { file, from, to } of plantedBugs) {
    const source = readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8')
    assert.notEqual(replaceOnce(source, from, to), source)
  }
})

test('a broken promise is shown by the few faults that it takes, and shown again by them alone', async () => {
  const bug = plantedBugs.find(({ name }) => name === 'ignore a write error')!
  const caught = await hunt({ bug, from: 1, to: 100, shrinks: true })
  assert.ok(caught?.only)
  const planned = planOf(caught.seed).flatMap(({ faults }) => faults)
  assert.ok(caught.only.length < planned.length, `${caught.only.length} of ${planned.length} left`)
  const again = await hunt({ bug, from: caught.seed, to: caught.seed, only: caught.only })
  assert.equal(again?.promise, caught.promise)
  for (const left of caught.only) {
    const only = caught.only.filter((number) => number !== left)
    const without = await hunt({ bug, from: caught.seed, to: caught.seed, only })
    assert.notEqual(without?.promise, caught.promise)
  }
})
