import assert from 'node:assert/strict'
import { test } from 'node:test'
import { shareOut } from '../../collector/log/kafka/assignment.ts'
import { Seeded } from '../support/seeded.ts'

test('a collector that comes or goes moves no more buckets than it must', () => {
  const none: number[] = []
  const alone = shareOut(new Map([['a', none]]), 4)
  assert.deepEqual(alone, new Map([['a', [0, 1, 2, 3]]]))
  const two = shareOut(new Map([...alone, ['b', none]]), 4)
  assert.deepEqual([...two].sort(), [
    ['a', [0, 1]],
    ['b', [2, 3]],
  ])
  const three = shareOut(new Map([...two, ['c', none]]), 4)
  assert.deepEqual([three.get('a'), three.get('b'), three.get('c')], [[0, 1], [2], [3]])
  three.delete('a')
  assert.deepEqual([...shareOut(three, 4)].sort(), [
    ['b', [0, 2]],
    ['c', [1, 3]],
  ])
})

test('whatever members say they own, each bucket goes to one, and shares differ by one at most', () => {
  const random = new Seeded(1)
  for (let i = 0; i < 2000; i++) {
    const buckets = 1 + random.below(12)
    const members = 1 + random.below(6)
    const owned = new Map(
      Array.from({ length: members }, (_, m) => {
        const claims = Array.from({ length: random.below(8) }, () => random.below(15))
        return [`m${m}`, claims] as const
      }),
    )
    const shares = [...shareOut(owned, buckets).values()]
    const all = shares.flat().sort((a, b) => a - b)
    assert.deepEqual(all, [...Array(buckets).keys()])
    const sizes = shares.map(({ length }) => length)
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, String(sizes))
  }
})
