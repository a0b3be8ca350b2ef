import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SinkMemory, type Turn, TurnLost } from '../../collector/sinks/memory.ts'
import { systemRandom } from '../../shared/system.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryNotes } from '../support/memory-notes.ts'
import { until } from '../support/until.ts'

const leaseMs = 10_000
const never = new AbortController().signal

/** A collector with a clock of its own, and a turn as soon as it has one. */
async function collector(notes: MemoryNotes, id: string) {
  const clock = new ManualClock()
  const it = {
    clock,
    changes: 0,
    turn: undefined as Turn | undefined,
    memory: await SinkMemory.open(
      {
        notes,
        name: 'hook',
        stream: 'readings',
        self: { id, at: `machine ${id}` },
        leaseMs,
        clock,
        random: systemRandom,
        changed: () => {
          it.changes += 1
        },
      },
      async () => [],
    ),
    /** Begins to wait for its turn. */
    wants: (signal: AbortSignal = never) => {
      void it.memory.turn(signal).then((turn) => {
        it.turn = turn
      })
    },
    /** Lets time go by, and what it brings happen. */
    async waits(ms: number) {
      for (let left = ms; left > 0; left -= 500) {
        await clock.advance(Math.min(500, left))
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
  }
  return it
}

const moveTo =
  (position: number) =>
  <State>(state: State) => ({ ...state, positions: [position] })

test('of collectors that want to run a sink one does, for as long as it is heard of', async () => {
  const notes = new MemoryNotes()
  const a = await collector(notes, 'a')
  const b = await collector(notes, 'b')
  a.wants()
  await until(() => a.turn !== undefined, 'the first has it')
  b.wants()
  for (let i = 0; i < 10; i++) for (const each of [a, b]) await each.waits(leaseMs / 2)
  assert.equal(b.turn === undefined, true)
  a.turn!.check()
  assert.equal(b.memory.state.seat?.holder?.at, 'machine a')

  await a.turn![Symbol.asyncDispose]()
  await b.waits(leaseMs / 2)
  assert.ok(b.turn, 'what was given back another has soon')
})

test('a collector that is gone is replaced once it was silent for as long as its lease, by the clock of the other', async () => {
  const notes = new MemoryNotes()
  const a = await collector(notes, 'a')
  a.wants()
  await until(() => a.turn !== undefined, 'the first has it')
  await a.turn!.save(moveTo(7))
  const b = await collector(notes, 'b')
  b.wants()
  // The first does nothing any more: its clock stands still.
  await b.waits(leaseMs - 500)
  assert.equal(b.turn === undefined, true)
  await b.waits(leaseMs / 2)
  assert.ok(b.turn)
  assert.deepEqual(b.turn.state.positions, [7])

  // What it wakes up to do moves nothing.
  await b.turn.save(moveTo(9))
  await assert.rejects(a.turn!.save(moveTo(8)), TurnLost)
  assert.ok(a.turn!.lost.aborted)
  assert.throws(() => a.turn!.check(), TurnLost)
  const { text = '' } = await notes.read('sinks/hook/readings')
  assert.deepEqual(JSON.parse(text).positions, [9])
})

test('who cannot say that it runs a sink stops before another may begin', async () => {
  const notes = new MemoryNotes()
  const a = await collector(notes, 'a')
  a.wants()
  await until(() => a.turn !== undefined, 'it has it')
  notes.before = (call) => {
    if (call === 'write') throw new Error('cut off')
  }
  await a.waits(leaseMs * 0.7)
  a.turn!.check()
  await a.waits(leaseMs * 0.2)
  assert.ok(a.turn!.lost.aborted)
})

test('a pause that one collector is asked for holds for all, and so does its end', async () => {
  const notes = new MemoryNotes()
  const a = await collector(notes, 'a')
  const b = await collector(notes, 'b')
  a.wants()
  await until(() => a.turn !== undefined, 'the first has it')
  await b.memory.change((state) => ({ ...state, paused: true }))
  await a.waits(leaseMs / 2)
  assert.equal(a.changes, 1)
  assert.equal(a.turn!.state.paused, true)
  // What it had begun it finishes.
  await a.turn!.save(moveTo(3))
  await a.turn![Symbol.asyncDispose]()
  a.turn = undefined
  for (const each of [a, b]) each.wants()
  for (const each of [a, b]) await each.waits(leaseMs * 2)
  assert.deepEqual([a.turn, b.turn], [undefined, undefined])

  await a.memory.change((state) => ({ ...state, paused: false }))
  await b.waits(leaseMs / 2)
  assert.deepEqual(b.turn?.state.positions, [3])
})

test('a turn that may or may not have been taken is taken again', async () => {
  const notes = new MemoryNotes()
  const a = await collector(notes, 'a')
  notes.after = (call) => {
    if (call === 'write') throw new Error('no answer')
  }
  await assert.rejects(a.memory.turn(never), /no answer/)
  notes.after = () => {}
  assert.ok(await a.memory.turn(never))
})
