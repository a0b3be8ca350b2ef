import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryNotes } from '../support/memory-notes.ts'
import { reading } from '../support/readings.ts'
import { logIn, startRunner, TestOutput } from '../support/sink-runner.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { until } from '../support/until.ts'

const upTo = (last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i)

test('a sink gets the history and then what comes, in order, one slice at a time', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  for (let i = 0; i < 5; i++) await log.append(entryOf(agent.readings(60)))
  const output = new TestOutput()
  output.before = () => new Promise((resolve) => setImmediate(resolve))
  await startRunner(t, output, { log, folder })
  await until(() => output.sequences.length === 300, 'the history is written')
  await log.append(entryOf(agent.readings(1)))
  await until(() => output.sequences.length === 301, 'what came is written')

  assert.deepEqual(output.sequences, upTo(301))
  assert.equal(output.mostAtOnce, 1)
  assert.ok(output.slices.every(({ records }) => records.length <= 160))
})

test('each partition is written to its end', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder, 3)
  for (let i = 0; i < 9; i++)
    await log.append(entryOf(new TestAgent({ name: `gw-${i}` }).readings(10)))
  const output = new TestOutput()
  const runner = await startRunner(t, output, { log, folder })
  await until(async () => (await runner.status()).behind === 0, 'all is written')

  assert.equal(output.records.length, 90)
  assert.equal(new Set(output.slices.map(({ partition }) => partition)).size, 3)
  assert.equal(new Set(output.records.map(({ agent }) => agent)).size, 9)
})

test('a restart goes on behind what was durable, and repeats what was not', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(10)))
  const before = new TestOutput()
  const first = await startRunner(t, before, { log, folder })
  await until(() => before.sequences.length === 10, 'ten are written')
  await first.close()
  await log.append(entryOf(agent.readings(10)))
  const after = new TestOutput()
  await startRunner(t, after, { log, folder })
  await until(() => after.sequences.length === 10, 'ten more are written')

  assert.deepEqual(after.sequences, upTo(20, 11))
})

test('what an output holds back counts as written once it is flushed', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(10)))
  const output = new TestOutput()
  output.holdMs = 60_000
  output.limits = { records: 10, waitMs: 1 }
  const clock = new ManualClock()
  const runner = await startRunner(t, output, { log, folder, clock })
  await until(() => output.slices.length === 1, 'it holds a slice')
  assert.deepEqual((await runner.status()).positions, [0])
  await clock.advance(60_000)
  await until(async () => (await runner.status()).behind === 0, 'it is flushed')

  assert.equal(output.flushed, 1)
  const state = JSON.parse(await readFile(join(folder, 'sinks/test/state.json'), 'utf8'))
  assert.deepEqual(state.positions, [10])
})

test('a sink that stops flushes what it holds', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(10)))
  const output = new TestOutput()
  output.holdMs = 60_000
  const runner = await startRunner(t, output, { log, folder })
  await until(() => output.slices.length === 1, 'it holds a slice')
  await runner.close()

  assert.equal(output.flushed, 1)
  assert.deepEqual((await runner.status()).positions, [10])
})

test('a slice that failed comes again as it was, after a while that grows', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(10)))
  const output = new TestOutput()
  output.limits = { records: 25, waitMs: 1 }
  const given: [number, number][] = []
  output.before = ({ from, to }) => {
    given.push([from, to])
    if (given.length < 4) throw new Error('no room')
  }
  const clock = new ManualClock()
  const runner = await startRunner(t, output, { log, folder, clock })
  /** Lets a slice that has waited long enough go. */
  const moved = async (condition: () => boolean) => {
    await clock.advance(1)
    return condition()
  }
  await until(() => moved(() => given.length === 1), 'it is given what is there')
  const waits: number[] = []
  for (let failures = 1; failures < 4; failures++) {
    await until(async () => (await runner.status()).failures === failures, 'it fails')
    const status = await runner.status()
    assert.equal(status.phase, 'failing')
    assert.equal(status.problem?.message, 'no room')
    await log.append(entryOf(agent.readings(10)))
    let waited = 0
    while (clock.pending > 0 && given.length === failures) {
      await clock.advance(50)
      waited += 50
    }
    waits.push(waited)
  }
  await until(() => moved(() => output.sequences.length >= 40), 'it writes')

  assert.deepEqual(given.slice(0, 4), Array(4).fill([0, 10]))
  assert.deepEqual(output.sequences, upTo(40))
  assert.equal(output.opened, 4)
  assert.ok(
    waits.every((ms, failures) => ms <= 1000 * 2 ** failures + 50),
    String(waits),
  )
  assert.equal((await runner.status()).problem, undefined)
})

test('an output that stands still holds up neither another nor what comes in', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  const [stuck, well] = [new TestOutput(), new TestOutput()]
  let release = () => {}
  stuck.before = () =>
    new Promise<void>((resolve) => {
      release = resolve
    })
  await startRunner(t, stuck, { log, folder, config: { name: 'stuck' } })
  await startRunner(t, well, { log, folder, config: { name: 'well' } })
  for (let i = 0; i < 30; i++) await log.append(entryOf(agent.readings(100)))
  await until(() => well.sequences.length === 3000, 'the other is written')

  assert.equal(stuck.slices.length, 0)
  assert.equal(stuck.mostAtOnce, 1)
  stuck.before = () => {}
  release()
})

test('a paused sink stays paused over a restart, and goes on where it was', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(5)))
  const before = new TestOutput()
  const first = await startRunner(t, before, { log, folder })
  await until(() => before.sequences.length === 5, 'five are written')
  await first.pause()
  await until(async () => (await first.status()).phase === 'paused', 'it pauses')
  await log.append(entryOf(agent.readings(5)))
  await first.close()
  const after = new TestOutput()
  const second = await startRunner(t, after, { log, folder })
  assert.equal((await second.status()).phase, 'paused')
  assert.equal((await second.status()).behind, 5)
  await second.resume()
  await until(() => after.sequences.length === 5, 'it goes on')

  assert.deepEqual(after.sequences, upTo(10, 6))
  assert.equal(before.sequences.length, 5)
})

test('a sink that begins now misses nothing that comes before its first write', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(5)))
  const config = { from: 'now' } as const
  const first = await startRunner(t, new TestOutput(), { log, folder, config, isStarted: false })
  await first.close()
  await log.append(entryOf(agent.readings(5)))
  const output = new TestOutput()
  await startRunner(t, output, { log, folder, config })
  await until(() => output.sequences.length === 5, 'it writes')

  assert.deepEqual(output.sequences, upTo(10, 6))
})

test('a sink that begins at a time leaves out what is older', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const times = [1000, 5000, 2000, 6000]
  const readings = times.map((ms) => reading({ timeMs: 1_767_225_600_000 + ms }))
  await log.append(entryOf(new TestAgent().batch([{ kind: 'readings', readings }])))
  const output = new TestOutput()
  await startRunner(t, output, { log, folder, config: { from: 1_767_225_600_000 + 5000 } })
  await until(() => output.sequences.length === 2, 'it writes')

  assert.deepEqual(output.sequences, [2, 4])
})

test('of all devices and metrics a sink gets those that match, and passes over the rest', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const names = ['pump-1', 'pump-22', 'fan-1', 'pump-1-old', 'xpump-1']
  const readings = names.map((device) => reading({ device }))
  await log.append(entryOf(new TestAgent().batch([{ kind: 'readings', readings }])))
  const output = new TestOutput()
  const config = { match: { device: ['pump-*1', 'f*n-*'], metric: ['temperature'] } }
  const runner = await startRunner(t, output, { log, folder, config })
  await until(async () => (await runner.status()).behind === 0, 'it has passed over the rest')

  assert.deepEqual(output.sequences, [1, 3])
})

test('a range that is asked for again is written beside what is new, once more and to its end', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  for (let i = 0; i < 10; i++) await log.append(entryOf(agent.readings(10)))
  const output = new TestOutput()
  output.limits = { records: 10, waitMs: 1 }
  const runner = await startRunner(t, output, { log, folder })
  await until(async () => (await runner.status()).behind === 0, 'all is written')
  await runner.pause()
  await runner.again({ from: '20', to: '70' })
  assert.deepEqual((await runner.status()).again, { from: '20', to: '70', left: 50 })
  await log.append(entryOf(agent.readings(10)))
  await log.append(entryOf(agent.readings(10)))
  await runner.resume()
  await until(async () => {
    const { behind, again } = await runner.status()
    return behind === 0 && again === undefined
  }, 'both are written')

  const again = output.slices.filter((slice) => slice.again)
  const live = output.slices.filter((slice) => !slice.again)
  const sequences = (slices: typeof again) =>
    slices.flatMap(({ records }) => records.map(({ sequence }) => sequence))
  assert.deepEqual(sequences(again), upTo(70, 21))
  assert.deepEqual(sequences(live), upTo(120))
  assert.ok(output.slices.indexOf(live.at(-1)!) < output.slices.indexOf(again.at(-1)!))
})

test('a range that is asked for again before the output was ever reached ends where it turns out to be', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(100)))
  const output = new TestOutput()
  output.positions = new Map([[0, 60]])
  const runner = await startRunner(t, output, { log, folder, isStarted: false })
  await runner.again({ from: '50' })
  runner.start()
  await until(async () => {
    const { behind, again } = await runner.status()
    return behind === 0 && again === undefined
  }, 'both are written')

  const again = output.slices.filter((slice) => slice.again)
  assert.deepEqual(
    again.flatMap(({ records }) => records.map(({ sequence }) => sequence)),
    upTo(60, 51),
  )
})

test('a range by time that is asked for again survives a restart', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(100)))
  const before = new TestOutput()
  const first = await startRunner(t, before, { log, folder })
  await until(() => before.sequences.length === 100, 'all is written')
  await first.pause()
  await first.again({ from: '2026-01-01T00:00:31Z', to: '2026-01-01T00:00:41Z' })
  await first.close()
  const after = new TestOutput()
  const second = await startRunner(t, after, { log, folder })
  await second.resume()
  await until(async () => (await second.status()).again === undefined, 'the range is written')

  assert.deepEqual(after.sequences, upTo(40, 31))
})

test('what an output tells of itself counts more than what is remembered here', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(30)))
  const output = new TestOutput()
  output.positions = new Map([[0, 20]])
  await startRunner(t, output, { log, folder })
  await until(() => output.sequences.length === 10, 'it goes on there')

  assert.deepEqual(output.sequences, upTo(30, 21))
})

test('an output that is ahead of a log that was put back gets what comes', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(10)))
  const output = new TestOutput()
  output.positions = new Map([[0, 20]])
  await startRunner(t, output, { log, folder })
  await log.append(entryOf(agent.readings(10)))
  await until(() => output.sequences.length === 10, 'it writes what came')

  assert.deepEqual(output.sequences, upTo(20, 11))
})

test('refused records are in the dead letter before the position moves, within its size', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  for (let i = 0; i < 20; i++) await log.append(entryOf(agent.readings(10)))
  const output = new TestOutput()
  output.limits = { records: 10, waitMs: 1 }
  output.before = (slice, refuse) =>
    refuse(slice.records.map((record) => ({ record, reason: `no "${record.sequence}"` })))
  const config = { deadLetter: 16 * 1024 }
  const runner = await startRunner(t, output, { log, folder, config })
  await until(async () => (await runner.status()).behind === 0, 'all is refused')
  await runner.close()

  const { refused, written } = await runner.status()
  assert.deepEqual([refused, written], [200, 0])
  const lines = (await Array.fromAsync(runner.deadLetter.lines())).map((line) => JSON.parse(line))
  assert.ok(lines.length < 200)
  assert.deepEqual(
    lines.map(({ record }) => record.sequence),
    upTo(200, 201 - lines.length),
  )
  assert.equal(lines.at(-1).reason, 'no "200"')
  const sizes = await Promise.all(
    ['dead.ndjson', 'dead.before.ndjson'].map((name) => readFile(join(folder, 'sinks/test', name))),
  )
  for (const { length } of sizes) assert.ok(length <= 8 * 1024, String(length))
})

test('a dead letter that a crash has cut in a line goes on behind the last whole one', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  await log.append(entryOf(new TestAgent().readings(1)))
  const output = new TestOutput()
  output.before = (slice, refuse) =>
    refuse(slice.records.map((record) => ({ record, reason: 'no' })))
  const runner = await startRunner(t, output, { log, folder, isStarted: false })
  await writeFile(join(folder, 'sinks/test/dead.ndjson'), '{"whole":1}\n{"cut":')
  runner.start()
  await until(async () => (await runner.status()).refused === 1, 'one is refused')

  const lines = (await Array.fromAsync(runner.deadLetter.lines())).map((line) => JSON.parse(line))
  assert.deepEqual(
    lines.map(({ whole, reason }) => whole ?? reason),
    [1, 'no'],
  )
})

test('a state that cannot be understood is refused, not begun anew', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const runner = await startRunner(t, new TestOutput(), { log, folder })
  await runner.close()
  await writeFile(join(folder, 'sinks/test/state.json'), '{"version":9}')

  await assert.rejects(startRunner(t, new TestOutput(), { log, folder }), /not a sink's state/)
})

test('of two collectors one runs a sink; taken over from in the middle of a slice it moves nothing', async (t) => {
  const folder = await temporaryDirectory(t)
  const log = await logIn(t, folder)
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(10)))
  const notes = new MemoryNotes()
  const [former, present] = [new TestOutput(), new TestOutput()]
  const shared = { log, notes, isShared: true }
  const first = await startRunner(t, former, { ...shared, folder: await temporaryDirectory(t) })
  await until(async () => (await first.status()).behind === 0, 'the first has written')
  const { promise: asleep, resolve: wake } = Promise.withResolvers<void>()
  let isAtIt = false
  former.before = () => {
    isAtIt = true
    return asleep
  }
  await log.append(entryOf(agent.readings(10)))
  await until(() => isAtIt, 'it is at the next')

  const clock = new ManualClock()
  const second = await startRunner(t, present, {
    ...shared,
    clock,
    folder: await temporaryDirectory(t),
  })
  await until(async () => (await second.status()).phase === 'elsewhere', 'it waits')
  assert.deepEqual((await second.status()).positions, [10])
  await until(async () => {
    await clock.advance(1_000)
    return present.sequences.length === 10
  }, 'it takes over')
  await log.append(entryOf(agent.readings(10)))
  await until(async () => {
    await clock.advance(10)
    return present.sequences.length === 20
  }, 'it goes on')

  wake()
  await until(async () => (await first.status()).phase === 'elsewhere', 'the first finds out')
  assert.deepEqual(former.sequences, upTo(20))
  assert.deepEqual(present.sequences, upTo(30, 11))
  for (const runner of [first, second])
    await until(async () => (await runner.status()).positions[0] === 30, 'both know where it is')
})
