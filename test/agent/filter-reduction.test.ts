import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Reduction,
  type ReductionConfig,
  readReduction,
} from '../../agent/filter/reduce/reduction.ts'
import { StateReader, StateWriter } from '../../agent/filter/state-bytes.ts'
import { type AdmittedReading, Quality, SeriesTable, type Value } from '../../shared/reading.ts'
import { optimum } from '../support/optimum.ts'
import { rangeOf, readingsOf, recordings } from '../support/recordings.ts'
import { Seeded } from '../support/seeded.ts'

const table = new SeriesTable()
const raw = table.intern('pump', 'pressure')
const dress = (between: 'hold' | 'linear', epsilon: number) =>
  table.intern('pump', 'pressure', { between, epsilon })

const linear = (absolute: number, more: Partial<ReductionConfig> = {}): ReductionConfig => ({
  method: 'linear',
  error: { absolute },
  heartbeatMs: Infinity,
  maxDelayMs: Infinity,
  ...more,
})
const deadband = (absolute: number, more: Partial<ReductionConfig> = {}): ReductionConfig => ({
  ...linear(absolute, more),
  method: 'deadband',
})

interface Kept {
  row: number
  between: string
  epsilon: number
}

/**
 * Rows that a reduction keeps, in the order in which they are decided. `restart` says before which rows
 * the process is killed: all that goes over is the saved state.
 */
function reduce(
  readings: readonly AdmittedReading[],
  config: ReductionConfig,
  options: { restart?: (row: number) => boolean; whole?: (row: number) => boolean } = {},
): Kept[] {
  const kept: Kept[] = []
  let reduction = new Reduction(config, dress)
  const out = {
    keep(reading: AdmittedReading) {
      reduction.dress(reading)
      kept.push({ row: reading.arrival.wallMs, ...reading.series })
    },
    drop() {},
  }
  readings.forEach((reading, row) => {
    if (options.restart?.(row)) {
      const writer = new StateWriter()
      reduction.save(writer)
      reduction = new Reduction(config, dress)
      reduction.load(readReduction(new StateReader(writer.take()), raw, dress))
    }
    // The arrival goes over a restart untouched: it carries the row.
    const arrival = { ...reading.arrival, wallMs: row }
    reduction.take({ ...reading, arrival }, options.whole?.(row) ?? false, out)
  })
  reduction.release(out)
  return kept
}

/** Reads between two points as consumers do it, each in its own arithmetic. */
const consumers: ((ta: number, va: number, tb: number, vb: number, t: number) => number)[] = [
  (ta, va, tb, vb, t) => va + ((vb - va) * (t - ta)) / (tb - ta),
  (ta, va, tb, vb, t) => va + (vb - va) * ((t - ta) / (tb - ta)),
  (ta, va, tb, vb, t) => {
    const share = (t - ta) / (tb - ta)
    return va * (1 - share) + vb * share
  },
]

/** Largest error of a dropped reading over its bound, seen by the worst consumer; 1 is the bound. */
function worst(readings: readonly AdmittedReading[], kept: readonly Kept[]): number {
  let most = 0
  assert.equal(kept[0]!.row, 0)
  for (const [k, from] of kept.entries()) {
    const to = kept[k + 1]
    const a = readings[from.row]!
    const b = to && readings[to.row]!
    assert.ok(!to || to.row > from.row, 'kept in order')
    for (let row = from.row + 1; row < (to?.row ?? readings.length); row++) {
      const { timeMs, value } = readings[row]!
      const line = b && to.between === 'linear'
      assert.ok(line || from.between === 'hold', 'a line has two ends')
      assert.ok(!line || (timeMs > a.timeMs && timeMs < b.timeMs), 'time goes forward along it')
      for (const consumer of consumers) {
        const seen = line
          ? consumer(a.timeMs, a.value as number, b.timeMs, b.value as number, timeMs)
          : (a.value as number)
        const error = Math.abs(seen - (value as number))
        if (error > 0) most = Math.max(most, error / (line ? to : from).epsilon)
      }
    }
  }
  return most
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2
}

/** Readings one second apart, or at the times given. */
function at(values: readonly Value[], times?: readonly number[]): AdmittedReading[] {
  return values.map((value, index) => {
    const timeMs = 1_767_225_600_000 + (times?.[index] ?? index) * 1000
    const monotonicMs = index * 1000
    return {
      series: raw,
      timeMs,
      timeNanos: 0,
      value,
      quality: 0,
      arrival: { wallMs: timeMs, monotonicMs },
    }
  })
}

const rowsOf = (kept: readonly Kept[]) => kept.map(({ row }) => row)

for (const percent of [0.1, 0.5, 1, 2])
  test(`lines stay within ${percent} % of every recorded reading and near the fewest points`, (t) => {
    const all = recordings(t)
    if (!all) return
    const ratios = all.map((recording) => {
      const epsilon = (rangeOf(recording.values) * percent) / 100
      const readings = readingsOf(recording)
      const kept = reduce(readings, linear(epsilon))
      const most = worst(readings, kept)
      assert.ok(most <= 1, `${recording.name}: ${most} of the bound`)
      return kept.length / optimum(recording.times, recording.values, epsilon)
    })
    assert.ok(median(ratios) <= 1.15, `kept ${median(ratios)} times the optimum`)
  })

test('the bound holds across kills at any moment', (t) => {
  const all = recordings(t)
  if (!all) return
  const random = new Seeded(7)
  for (const recording of all) {
    const readings = readingsOf(recording)
    for (const percent of [0.1, 0.5, 1, 2]) {
      const epsilon = (rangeOf(recording.values) * percent) / 100
      const every = random.pick([2, 5, 20, 100])
      const restart = () => random.chance(1 / every)
      for (const config of [linear(epsilon), deadband(epsilon)]) {
        const most = worst(readings, reduce(readings, config, { restart }))
        assert.ok(most <= 1, `${recording.name}: ${most} of the bound`)
      }
    }
  }
})

test('a bound in percent follows the span seen and is told with what it bounds', (t) => {
  for (const recording of recordings(t) ?? []) {
    const readings = readingsOf(recording)
    for (const config of [linear(0), deadband(0)]) {
      const share = { ...config, error: { share: 0.01 } }
      const kept = reduce(readings, share, { restart: (row) => row % 1000 === 999 })
      const final = rangeOf(recording.values) * 0.01
      assert.ok(kept.every(({ epsilon }) => epsilon <= final * (1 + 1e-9)))
      assert.ok(kept.at(-1)!.epsilon >= final / 1.5)
      assert.ok(worst(readings, kept) <= 1, recording.name)
    }
  }
})

test('at most a possible end and 32 readings behind it are held', () => {
  const reduction = new Reduction(linear(1), dress)
  let decided = 0
  const out = { keep: () => decided++, drop: () => decided++ }
  // After a step the line to the first reading behind it stays open for ever, yet no reading lies on it.
  const readings = at([
    0,
    0,
    ...Array.from({ length: 200 }, (_, i) => (i % 2 ? 0.9 : -0.9) + i * 1e-3),
  ])
  readings.forEach((reading, row) => {
    reduction.take(reading, false, out)
    assert.equal(decided + reduction.held, row + 1)
    assert.ok(reduction.held <= 33)
  })
})

test('who asks for it is given each reading again, be it kept or dropped', (t) => {
  for (const recording of recordings(t) ?? []) {
    const readings = readingsOf(recording)
    const config = linear(rangeOf(recording.values) * 0.01)
    const reduction = new Reduction(config, dress, true)
    const decided: (AdmittedReading | undefined)[] = []
    const kept: AdmittedReading[] = []
    const out = {
      keep(reading: AdmittedReading) {
        kept.push(reading)
        decided.push(reading)
      },
      drop: (reading: AdmittedReading | undefined) => decided.push(reading),
    }
    for (const reading of readings) reduction.take(reading, false, out)
    reduction.release(out)
    assert.deepEqual(new Set(decided), new Set(readings), 'each of them, the object itself')
    assert.equal(decided.length, readings.length)
    const unseen = reduce(readings, config)
    assert.deepEqual(
      kept.map((reading) => readings.indexOf(reading)),
      rowsOf(unseen),
      'and the same are kept',
    )
  }
})

test('equal and backward times end a line and are kept', () => {
  const readings = at([0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 2, 3, 4, 1, 2])
  assert.deepEqual(rowsOf(reduce(readings, linear(1))), [0, 2, 3, 5, 6, 7])
})

test('the last reading before a silence longer than the heartbeat is kept, and the first behind it', () => {
  const values = [0, 0, 0, 0, 0, 0, 0]
  const readings = at(values, [0, 10, 20, 30, 500, 510, 520])
  for (const config of [linear(1, { heartbeatMs: 60_000 }), deadband(1, { heartbeatMs: 60_000 })])
    assert.deepEqual(rowsOf(reduce(readings, config)), [0, 3, 4, 6])
  assert.deepEqual(rowsOf(reduce(readings, linear(1))), [0, 6])
})

test('with a heartbeat never more time passes between two kept readings', () => {
  const readings = at(Array.from({ length: 100 }, () => 5))
  for (const config of [linear(1, { heartbeatMs: 7500 }), deadband(1, { heartbeatMs: 7500 })]) {
    const rows = rowsOf(reduce(readings, config))
    assert.deepEqual(rows, [...Array.from({ length: 15 }, (_, i) => i * 7), 99])
  }
})

test('maxDelay lets go of what waits, though the line could go on', () => {
  const reduction = new Reduction(linear(1, { maxDelayMs: 3000 }), dress)
  const kept: unknown[] = []
  const out = { keep: ({ value }: AdmittedReading) => kept.push(value), drop() {} }
  // Behind 1 the cone is open, but only a straight-on reading could end it.
  for (const reading of at([0, 1, 1.9, 1.9])) reduction.take(reading, false, out)
  assert.deepEqual(kept, [0])
  reduction.overdue(3999, out)
  assert.deepEqual(kept, [0])
  reduction.overdue(60_000, out)
  assert.equal(kept.at(-1), 1.9)
  assert.equal(reduction.held, 0)
})

test('a reading asked for whole is kept, and so is one whose quality changed', () => {
  const readings = at(Array.from({ length: 12 }, () => 5))
  for (const row of [4, 5, 6]) readings[row]!.quality = Quality.outOfRange
  const rows = rowsOf(reduce(readings, linear(1), { whole: (row) => row === 9 }))
  assert.deepEqual(rows, [0, 4, 7, 9, 11])
})

test('booleans, texts, null and what is no finite number pass on change', () => {
  const readings = at([
    true,
    true,
    false,
    'a',
    'a',
    null,
    null,
    2n ** 63n,
    2n ** 63n,
    NaN,
    NaN,
    1,
    1,
    1,
  ])
  const kept = reduce(readings, linear(0.5))
  assert.deepEqual(rowsOf(kept), [0, 2, 3, 5, 7, 9, 11, 13])
  assert.deepEqual(
    kept.map(({ between, epsilon }) => [between, epsilon]),
    [...Array.from({ length: 6 }, () => ['hold', 0]), ['linear', 0.5], ['linear', 0.5]],
  )
})

test('a deadband keeps what differs from the last kept reading by more than the bound', () => {
  const readings = at([0, 0.5, -0.5, 1, 1.0001, 2, 0])
  const kept = reduce(readings, deadband(1))
  assert.deepEqual(rowsOf(kept), [0, 4, 6])
  assert.deepEqual(kept[0]!.between, 'hold')
})

test('values whose rounding is as large as the bound are all kept', () => {
  const readings = at(Array.from({ length: 50 }, (_, i) => 1e16 + 2 * (i % 3)))
  const kept = reduce(readings, linear(1))
  assert.ok(worst(readings, kept) <= 1)
})

test('a deadband keeps a reading that steps backwards in time', () => {
  const readings = at([0, 0, 0, 0, 0], [0, 1, 2, 1, 2])
  assert.deepEqual(rowsOf(reduce(readings, deadband(1))), [0, 3])
})

test('the first reading behind a silence is kept on its own turn', () => {
  for (const config of [linear(1, { heartbeatMs: 60_000 }), deadband(1, { heartbeatMs: 60_000 })]) {
    const reduction = new Reduction(config, dress)
    const turns: boolean[] = []
    const out = { keep: (_: AdmittedReading, held: boolean) => turns.push(held), drop() {} }
    for (const reading of at([0, 0, 0], [0, 10, 500])) reduction.take(reading, false, out)
    assert.deepEqual(turns, [false, true, false])
    assert.equal(reduction.held, 0)
  }
})

test('what is held when the kind of value changes is decided first', () => {
  const readings = at([0, 0, 0, 'off', 'off', 0, 0])
  assert.deepEqual(rowsOf(reduce(readings, linear(1))), [0, 2, 3, 5, 6])
  const held = deadband(1, { heartbeatMs: 60_000 })
  assert.deepEqual(rowsOf(reduce(readings, held)), [0, 2, 3, 4, 5, 6])
})

test('a segment begun under an older, wider bound is told with that bound', () => {
  const before = new Reduction(linear(2), dress)
  const out = { keep() {}, drop() {} }
  for (const reading of at([0, 1.5, 0, 1.5])) before.take(reading, false, out)
  const writer = new StateWriter()
  before.save(writer)
  const after = new Reduction(linear(0.1), dress)
  after.load(readReduction(new StateReader(writer.take()), raw, dress))
  const kept: AdmittedReading[] = []
  after.release({
    keep(reading) {
      after.dress(reading)
      kept.push(reading)
    },
    drop() {},
  })
  assert.deepEqual(
    kept.map(({ series, quality }) => [series.between, series.epsilon, quality]),
    [['linear', 2, Quality.late]],
  )
})

test('a growing bound changes in few steps', () => {
  const config = linear(0, { error: { share: 0.01 } })
  const readings = at(Array.from({ length: 5000 }, (_, i) => i * Math.sin(i)))
  const bounds = new Set(reduce(readings, config).map(({ epsilon }) => epsilon))
  assert.ok(bounds.size < 60, `${bounds.size} bounds`)
})
