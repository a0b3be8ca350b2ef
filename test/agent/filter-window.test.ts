import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StateReader, StateWriter } from '../../agent/filter/state-bytes.ts'
import { Sketch } from '../../agent/filter/window/sketch.ts'
import { type AdmittedReading, Quality, SeriesTable, type Value } from '../../shared/reading.ts'
import { FilterRun } from '../support/filter-run.ts'
import { Seeded } from '../support/seeded.ts'

const start = Date.UTC(2026, 0, 1)
const table = new SeriesTable()

/** A reading `second` seconds after the start, which arrives then or at second `arrived`. */
function reading(
  second: number,
  value: Value,
  { device = 'pump', metric = 'vibration', arrived = second } = {},
): AdmittedReading {
  return {
    series: table.intern(device, metric, { unit: 'm/s2', labels: { site: 'A' } }),
    timeMs: start + Math.round(second * 1000),
    timeNanos: 0,
    value,
    quality: 0,
    arrival: { wallMs: start + Math.round(arrived * 1000), monotonicMs: arrived * 1000 },
  }
}

/** What windows have told: `metric@second` to value. */
function told(run: FilterRun): Map<string, Value> {
  const found = new Map<string, Value>()
  for (const { reading, derived } of run.log) {
    if (!derived) continue
    const { series, timeMs, value } = reading
    const key = `${series.device} ${series.metric}@${(timeMs - start) / 1000}`
    assert.ok(!found.has(key), `${key} is told once`)
    found.set(key, value)
  }
  return found
}

const all = ['count', 'sum', 'mean', 'min', 'max', 'range', 'first', 'last', 'p50', 'p95']

test('a window tells its aggregates at its start, once the next one has begun', () => {
  const run = new FilterRun([{ window: { every: '10s', emit: all } }])
  run.judge([3, 1, 2, 5, 4].map((value, i) => reading(i * 2, value)))
  assert.equal(told(run).size, 0)
  assert.equal(run.ledger.absorbed, 5)
  run.judge([reading(10, 99)])
  const wanted = { count: 5, sum: 15, mean: 3, min: 1, max: 5, range: 4, first: 3, last: 4 }
  for (const [name, value] of Object.entries(wanted))
    assert.equal(told(run).get(`pump vibration.${name}@0`), value, name)
  const { series, timeMs } = run.log[1]!.reading
  assert.deepEqual([series.unit, series.labels, timeMs], ['m/s2', { site: 'A' }, start])
  assert.equal(run.of('pump', 'vibration.count')[0]!.reading.series.unit, undefined)
  assert.equal(run.log.length, all.length)
})

test('aggregates hold exactly, whatever is killed and however it is grouped', () => {
  for (let seed = 0; seed < 40; seed++) {
    const random = new Seeded(seed)
    const [every, size, lateness] = random.pick([
      [10, 10, 0],
      [10, 10, 7],
      [10, 30, 0],
      [5, 60, 20],
    ] as const)
    const run = new FilterRun([
      {
        match: { metric: 'vibration' },
        window: { every: `${every}s`, size: `${size}s`, lateness: `${lateness}s`, emit: all },
      },
    ])
    let second = 0
    const sent = Array.from({ length: 800 }, () => {
      second += random.chance(0.01) ? 100 : random.uniform()
      // Out of order, yet never later than is waited for.
      const behind = random.chance(0.3) ? random.uniform() * lateness : 0
      return reading(Math.max(0, second - behind), random.below(1000) - 500)
    })
    for (let from = 0; from < sent.length; ) {
      const group = sent.slice(from, from + 1 + random.below(30))
      from += group.length
      run.judge(group, { crash: random.chance(0.2) })
      if (random.chance(0.2)) run.restart()
    }
    run.flush()
    assert.equal(run.counts.late, 0)
    const found = told(run)
    let windows = 0
    for (let from = -size + every; from <= second; from += every) {
      const inside = sent.filter(
        ({ timeMs }) => timeMs >= start + from * 1000 && timeMs < start + (from + size) * 1000,
      )
      const of = (name: string) => found.get(`pump vibration.${name}@${from}`) as number
      if (inside.length === 0) {
        assert.equal(of('count'), undefined)
        continue
      }
      windows++
      const values = inside.map(({ value }) => value as number)
      const sum = values.reduce((a, b) => a + b)
      const sorted = values.toSorted((a, b) => a - b)
      const times = inside.map(({ timeMs }) => timeMs)
      const exact = {
        count: values.length,
        sum,
        mean: sum / values.length,
        min: sorted[0]!,
        max: sorted.at(-1)!,
        range: sorted.at(-1)! - sorted[0]!,
        first: values[times.indexOf(Math.min(...times))]!,
        last: values[times.lastIndexOf(Math.max(...times))]!,
      }
      for (const [name, value] of Object.entries(exact))
        assert.equal(of(name), value, `seed ${seed}, ${name}@${from}`)
      for (const [name, share] of [
        ['p50', 0.5],
        ['p95', 0.95],
      ] as const) {
        const wanted = sorted[Math.ceil(share * sorted.length) - 1]!
        assert.ok(Math.abs(of(name) - wanted) <= Math.abs(wanted) * 0.0011, `${name}@${from}`)
      }
    }
    assert.equal(found.size, windows * all.length, `seed ${seed}: nothing else is told`)
  }
})

test('a reading behind its closed window passes, marked and counted', () => {
  const run = new FilterRun([{ window: { every: '10s', lateness: '5s', emit: ['count'] } }])
  for (const second of [1, 11, 2, 16, 3]) run.judge([reading(second, 1)])
  assert.equal(told(run).get('pump vibration.count@0'), 2)
  const late = run.of('pump', 'vibration')
  assert.deepEqual(
    late.map(({ reading }) => [reading.timeMs - start, reading.quality]),
    [[3000, Quality.late]],
  )
  assert.equal(run.counts.late, 1)
})

test('windows of a silent series close with the time of its device, and no other', () => {
  const run = new FilterRun([{ window: { every: '10s', emit: ['count'] } }])
  run.judge([
    reading(1, 1, { metric: 'a' }),
    reading(2, 1, { metric: 'b' }),
    reading(3, 1, { device: 'fan' }),
  ])
  run.judge([reading(12, 1, { metric: 'a' })])
  assert.deepEqual([...told(run).keys()], ['pump a.count@0', 'pump b.count@0'])
  run.restart()
  run.judge([reading(4, 1, { metric: 'b' }), reading(25, 1, { metric: 'a' })])
  assert.equal(run.counts.late, 1, 'what is closed stays closed')
  assert.deepEqual([...told(run).keys()].slice(2), ['pump a.count@10'])
})

test('windows of a silent device close when time passes', () => {
  const run = new FilterRun([{ window: { every: '10s', lateness: '5s', emit: ['count'] } }])
  run.judge([reading(1, 1)])
  run.tick({ wallMs: start + 16_000, monotonicMs: 16_000 })
  assert.equal(told(run).size, 0)
  run.restart()
  run.tick({ wallMs: start + 17_000, monotonicMs: 17_000 })
  run.tick({ wallMs: start + 32_000, monotonicMs: 32_000 })
  assert.equal(told(run).size, 0, 'after a start silence counts from there')
  run.tick({ wallMs: start + 33_000, monotonicMs: 33_000 })
  assert.equal(told(run).get('pump vibration.count@0'), 1)
  run.judge([reading(2, 1)])
  assert.equal(run.counts.late, 1)
})

test('a time ahead of the gateway closes no windows', () => {
  const run = new FilterRun([{ check: {}, window: { every: '10s', emit: ['count', 'max'] } }])
  run.judge([reading(1, 1), reading(5000, 7, { arrived: 2 }), reading(3, 1)])
  assert.equal(told(run).size, 0)
  run.judge([reading(11, 1)])
  assert.equal(told(run).get('pump vibration.count@0'), 2)
  assert.equal(run.counts.late, 0)
})

test('what is no number passes', () => {
  const run = new FilterRun([{ window: { every: '10s', emit: ['count'] } }])
  run.judge([true, 'on', null, Number.NaN, 2n ** 60n].map((value) => reading(1, value)))
  run.flush()
  assert.equal(run.ledger.admitted, 5)
  assert.equal(told(run).size, 0)
})

test('an aggregate carries the marks of its readings', () => {
  const run = new FilterRun([{ check: { range: [0, 9] }, window: { every: '10s', emit: ['max'] } }])
  run.judge([reading(1, 1), reading(11, 50)])
  run.restart()
  run.judge([reading(12, 1), reading(21, 1), reading(31, 1)])
  const marks = run.of('pump', 'vibration.max').map(({ reading }) => reading.quality)
  assert.deepEqual(marks, [0, Quality.outOfRange, 0])
})

test('around an alarm the readings pass too, besides counting in their window', () => {
  const run = new FilterRun([
    {
      check: { range: [0, 9], hold: '1s' },
      around: { before: '3s', after: '2s' },
      window: { every: '100s', emit: ['count'] },
    },
  ])
  for (let second = 0; second < 40; second++)
    run.judge([reading(second, second === 20 ? 99 : 1)], { crash: second % 7 === 0 })
  run.flush()
  assert.equal(told(run).get('pump vibration.count@0'), 40)
  assert.deepEqual(
    run
      .of('pump', 'vibration')
      .map(({ reading, lane }) => [
        (reading.timeMs - start) / 1000,
        lane,
        reading.quality & Quality.late,
      ]),
    [
      [17, 'bulk', Quality.late],
      [18, 'bulk', Quality.late],
      [19, 'bulk', Quality.late],
      [20, 'urgent', 0],
      [21, 'bulk', 0],
      [22, 'bulk', 0],
    ],
  )
  assert.equal(run.ledger.absorbed, 34)
})

test('windows that were open close as they were meant when the rule has changed', () => {
  const run = new FilterRun([{ window: { every: '10s', emit: ['sum'] } }])
  run.judge([reading(1, 5), reading(2, 6)])
  run.restart([{ window: { every: '60s', emit: ['count'] } }])
  run.judge([reading(3, 7)])
  assert.equal(told(run).get('pump vibration.sum@0'), 11)
  run.restart([])
  run.judge([reading(4, 8)])
  assert.equal(told(run).get('pump vibration.count@0'), 1)
  assert.equal(run.ledger.admitted, 1)
  assert.deepEqual(
    run.saved().map(({ key }) => key[0]),
    ['j'],
    'but for word of it',
  )
})

test('a sketch tells quantiles of any magnitude and sign, and merges', () => {
  const random = new Seeded(9)
  const kinds: Record<string, () => number> = {
    offset: () => 20 + random.uniform(),
    signed: () => random.uniform() * 10 - 5,
    zeros: () => random.below(3) - 1,
    wide: () => (random.chance(0.5) ? -1 : 1) * 10 ** (random.uniform() * 12 - 6),
  }
  for (const [name, kind] of Object.entries(kinds)) {
    const values = Array.from({ length: 4000 }, kind)
    const [whole, odd, even] = [new Sketch(), new Sketch(), new Sketch()]
    for (const [i, value] of values.entries()) {
      whole.add(value)
      ;(i % 2 ? odd : even).add(value)
    }
    even.merge(odd)
    const writer = new StateWriter()
    even.save(writer)
    const reader = new StateReader(writer.take())
    const restored = Sketch.load(reader)
    reader.end()
    const sorted = values.toSorted((a, b) => a - b)
    for (const share of [0.001, 0.05, 0.5, 0.95, 1]) {
      const wanted = sorted[Math.ceil(share * values.length) - 1]!
      const found = whole.quantile(share)
      const error = { wide: 0.035, signed: 0.005 }[name] ?? 0.0011
      assert.ok(
        Math.abs(found - wanted) <= Math.abs(wanted) * error,
        `${name}: ${found} for ${wanted}`,
      )
      assert.equal(restored.quantile(share), found, `${name}, ${share}`)
    }
  }
})
