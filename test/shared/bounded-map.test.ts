import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BoundedMap } from '../../shared/bounded-map.ts'

test('it keeps what is in use and forgets the rest', () => {
  const map = new BoundedMap<number, string>(10)
  map.set(-1, 'in use')
  for (let i = 0; i < 1_000; i++) {
    map.set(i, `${i}`)
    assert.equal(map.get(-1), 'in use')
    assert.ok(map.size <= 20, `${map.size} entries`)
    for (let last = Math.max(0, i - 8); last <= i; last++) assert.equal(map.get(last), `${last}`)
  }
  assert.equal(map.get(0), undefined)
})

test('heavy values count by their weight', () => {
  const map = new BoundedMap<number, number[]>(100, (value) => value.length)
  for (let i = 0; i < 100; i++) {
    map.set(i, Array<number>(30).fill(i))
    assert.ok(map.size <= 6, `${map.size} values of 30`)
  }
})

test('values that grow later count by what they have become', () => {
  const map = new BoundedMap<number, number[]>(100, (value) => value.length)
  for (let i = 0; i < 100; i++) {
    const value = [i]
    map.set(i, value)
    value.push(...Array<number>(29).fill(i))
    map.grow(29)
    // What is used again brings its weight along.
    map.get(0)
    assert.ok(map.size <= 8, `${map.size} values of 30`)
  }
})

test('a capacity below 1 is a mistake', () => {
  for (const capacity of [0, -1, Number.NaN])
    assert.throws(() => new BoundedMap(capacity), RangeError)
})
