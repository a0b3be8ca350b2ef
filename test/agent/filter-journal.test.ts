import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Journal, type Member } from '../../agent/filter/journal.ts'
import { StateWriter } from '../../agent/filter/state-bytes.ts'
import type { StateChange } from '../../agent/state.ts'
import { Seeded } from '../support/seeded.ts'

interface Item extends Member {
  state: string
}

/** A journal beside its store, and what it should tell. */
class JournalRun {
  readonly store = new Map<number, Uint8Array>()
  readonly items = new Map<number, Item>()
  journal = this.#open()

  tell(states: Record<number, string>): StateChange[] {
    const touched = Object.entries(states).map(([key, state]) => {
      const id = Number(key)
      const item = this.items.get(id) ?? { id, state, record: undefined, size: 0 }
      item.state = state
      this.items.set(id, item)
      return item
    })
    const changes: StateChange[] = []
    this.journal.append(touched, changes)
    for (const { key, value } of changes) {
      assert.ok(key.startsWith('j'))
      if (value) this.store.set(Number(key.slice(1)), value)
      else assert.ok(this.store.delete(Number(key.slice(1))))
    }
    return changes
  }

  /** Opens the store anew; returns the states that are told, and how many entries do not count. */
  reopen(): { told: Map<number, string>; stray: number } {
    this.journal = this.#open()
    const { states, stray } = this.journal.restore(new Map(this.store))
    const told = new Map<number, string>()
    for (const item of this.items.values()) {
      item.record = undefined
      item.size = 0
    }
    for (const [id, state] of states) {
      const item = this.items.get(id)!
      this.journal.join(item, state)
      if (state.length > 0) told.set(id, new TextDecoder().decode(state.subarray(1)))
    }
    return { told, stray: stray.length }
  }

  #open(): Journal<Item> {
    const writer = new StateWriter()
    return new Journal<Item>(writer, ({ state }) => {
      if (state !== '') writer.text(state)
    })
  }
}

test('the newest word on each series counts, however often the store is opened anew', () => {
  for (let seed = 0; seed < 20; seed++) {
    const random = new Seeded(seed)
    const run = new JournalRun()
    const wanted = new Map<number, string>()
    let most = 0
    for (let round = 0; round < 400; round++) {
      const states: Record<number, string> = {}
      for (let i = random.below(20); i >= 0; i--) {
        const id = 1 + random.below(random.pick([5, 500]))
        const state = random.chance(0.3) ? '' : `${round}-${id}-`.padEnd(random.below(120), 'x')
        states[id] = state
        if (state) wanted.set(id, state)
        else wanted.delete(id)
      }
      run.tell(states)
      if (random.chance(0.05)) assert.deepEqual(run.reopen(), { told: wanted, stray: 0 })
      const bytes = [...run.store.values()].reduce((sum, value) => sum + value.length, 0)
      most = Math.max(most, bytes)
    }
    assert.deepEqual(run.reopen().told, wanted)
    assert.ok(most < 262_144 + 20_000, `${most} bytes`)
  }
})

test('outdated states are not kept for long, nor written again and again', () => {
  const run = new JournalRun()
  const state = 'x'.repeat(100)
  let written = 0
  for (let round = 0; round < 2000; round++) {
    // All but a few change all the time.
    const states: Record<number, string> = {}
    for (let id = 1; id <= 100; id++) if (round === 0 || id > 10) states[id] = `${round}${state}`
    for (const { value } of run.tell(states)) written += value?.length ?? 0
  }
  const bytes = [...run.store.values()].reduce((sum, value) => sum + value.length, 0)
  assert.ok(bytes <= 262_144 + 10_000, `${bytes} bytes`)
  assert.ok(written < 2000 * 90 * 108 * 1.1, 'what does not change costs little')
  assert.equal(run.reopen().told.get(1), `0${state}`)
})

test('what a group does not touch costs it nothing', () => {
  const run = new JournalRun()
  run.tell(Object.fromEntries(Array.from({ length: 1000 }, (_, id) => [id + 1, 'state'])))
  const [change, ...more] = run.tell({ 7: 'other' })
  assert.deepEqual(more, [])
  assert.ok(change!.value!.length < 15)
  assert.deepEqual(run.tell({}), [])
  assert.deepEqual(run.tell({ 2000: '' }), [], 'nothing about what has nothing')
})

test('behind a missing or damaged record nothing older counts', () => {
  for (const damage of ['missing', 'damaged']) {
    const run = new JournalRun()
    run.tell({ 1: 'a', 2: 'a' })
    run.tell({ 1: 'b' })
    run.tell({ 3: 'c' })
    if (damage === 'missing') run.store.delete(2)
    else run.store.get(2)!.fill(0xff)
    const { told, stray } = run.reopen()
    assert.deepEqual(told, new Map([[3, 'c']]))
    assert.equal(stray, damage === 'missing' ? 1 : 2)
    run.tell({ 4: 'd' })
    assert.equal(run.reopen().told.get(4), 'd')
  }
})
