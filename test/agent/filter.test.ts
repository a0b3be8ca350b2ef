import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AdmittedReading, Quality, SeriesTable, type Value } from '../../shared/reading.ts'
import { FilterRun, type Logged } from '../support/filter-run.ts'
import { Seeded } from '../support/seeded.ts'

const start = Date.UTC(2026, 0, 1)
const table = new SeriesTable()

/** A reading `second` seconds after the start; it arrives at once, and its arrival tells it apart. */
function reading(
  second: number,
  value: Value,
  { device = 'pump', metric = 'temperature', unit = 'Cel' } = {},
): AdmittedReading {
  const timeMs = start + Math.round(second * 1000)
  return {
    series: table.intern(device, metric, { unit, labels: { site: 'A' } }),
    timeMs,
    timeNanos: 0,
    value,
    quality: 0,
    arrival: { wallMs: timeMs, monotonicMs: timeMs - start },
  }
}

const seconds = (logged: readonly Logged[]) =>
  logged.map(({ reading }) => (reading.timeMs - start) / 1000)

/**
 * Largest error of any reading over its bound for a consumer that orders what it got by time.
 *
 * @param logged what the log holds of the series
 */
function worst(sent: readonly AdmittedReading[], logged: readonly Logged[]): number {
  const points = logged.map(({ reading }) => reading).sort((a, b) => a.timeMs - b.timeMs)
  let most = 0
  let at = 0
  for (const { timeMs, value } of sent.toSorted((a, b) => a.timeMs - b.timeMs)) {
    while (at + 1 < points.length && points[at + 1]!.timeMs <= timeMs) at++
    const [a, b] = [points[at]!, points[at + 1]]
    assert.ok(a.timeMs <= timeMs, 'the first reading is always there')
    if (a.timeMs === timeMs) {
      assert.deepEqual(a.value, value)
      continue
    }
    if (typeof value !== 'number') {
      assert.deepEqual(a.value, value)
      continue
    }
    assert.ok(typeof a.value === 'number')
    let seen = a.value
    let bound = a.series.epsilon
    if (a.series.between === 'linear') {
      assert.ok(
        b && b.series.between === 'linear' && typeof b.value === 'number',
        'a line has two ends',
      )
      seen = a.value + ((b.value - a.value) * (timeMs - a.timeMs)) / (b.timeMs - a.timeMs)
      bound = b.series.epsilon
    }
    if (seen !== value) most = Math.max(most, Math.abs(seen - value) / bound)
  }
  return most
}

/** A walk with spikes, steps, gaps, nulls and switches, that no two seeds have alike. */
function walk(random: Seeded, count: number, device: string): AdmittedReading[] {
  let second = 0
  let level = 20
  return Array.from({ length: count }, () => {
    second += random.chance(0.01) ? 200 : 0.5 + random.uniform()
    if (random.chance(0.02)) level += random.below(20) - 10
    level += (random.uniform() - 0.5) * random.pick([0, 0.1, 1])
    const value = random.chance(0.005)
      ? random.pick([null, true, 'off'])
      : random.chance(0.01)
        ? 500
        : level
    return reading(second, value, { device })
  })
}

function randomRules(random: Seeded) {
  const alarms = random.chance(0.7)
  return [
    {
      reduce: {
        method: random.pick(['linear', 'deadband']),
        error: random.pick([0.5, 2, '1%']),
        ...(random.chance(0.5) ? { heartbeat: '60s' } : {}),
        ...(random.chance(0.5) ? { maxDelay: '20s' } : {}),
      },
      ...(random.chance(0.5) ? { detect: { threshold: 0.3 } } : {}),
      ...(alarms ? { check: { range: [-100, 100], hold: '5s' } } : {}),
      ...(alarms && random.chance(0.7)
        ? {
            around: random.pick([
              { before: '30s' },
              { after: '10s' },
              { before: '9s', after: '1s' },
            ]),
          }
        : {}),
    },
  ]
}

for (const changing of [false, true])
  test(`whatever happens, the ledger balances and every reading is near enough${changing ? ', whatever the rules become' : ''}`, () => {
    for (let seed = 0; seed < 100; seed++) {
      const random = new Seeded(seed)
      const run = new FilterRun(randomRules(random))
      const devices = ['a', 'b']
      const sent = new Map(devices.map((device) => [device, walk(random, 600, device)]))
      const all = [...sent.values()].flat().sort((a, b) => a.timeMs - b.timeMs)
      for (let from = 0; from < all.length; ) {
        const group = all.slice(from, from + 1 + random.below(40))
        from += group.length
        run.judge(group, { crash: random.chance(0.1) })
        const { arrival } = group.at(-1)!
        if (random.chance(0.3)) run.tick({ ...arrival, monotonicMs: arrival.monotonicMs + 30_000 })
        if (random.chance(0.2)) run.checkpoint()
        if (random.chance(0.2)) run.restart(changing ? randomRules(random) : undefined)
        if (random.chance(0.05)) run.forget(random.pick(devices), 'temperature')
        if (random.chance(0.03)) run.flush()
      }
      run.flush()
      for (const [device, readings] of sent) {
        const logged = run.of(device, 'temperature')
        const all = worst(readings, logged)
        assert.ok(all <= 1 + 1e-9, `seed ${seed}: ${all} of the bound`)
        // Whoever does not read the urgent lane reconstructs the rest as well.
        const urgent = new Set(
          logged.filter(({ lane }) => lane === 'urgent').map(({ reading }) => reading.timeMs),
        )
        const bulk = worst(
          readings.filter(({ timeMs }) => !urgent.has(timeMs)),
          logged.filter(({ lane }) => lane === 'bulk'),
        )
        assert.ok(bulk <= 1 + 1e-9, `seed ${seed}, bulk alone: ${bulk} of the bound`)
      }
      const times = new Set(
        run.log.map(({ reading }) => `${reading.series.device} ${reading.timeMs}`),
      )
      assert.equal(times.size, run.log.length, 'nothing is admitted twice')
    }
  })

test('what a reduction thins comes in its own time, late where it was held', () => {
  const run = new FilterRun([{ reduce: { error: 1 } }])
  run.judge([0, 1, 2, 3].map((second) => reading(second, second)))
  run.judge([reading(4, -20)])
  run.flush()
  assert.deepEqual(
    run.log.map(({ reading: { value, quality, series } }) => [value, quality, series.between]),
    [
      [0, 0, 'linear'],
      [3, Quality.late, 'linear'],
      [-20, Quality.late, 'linear'],
    ],
  )
})

test('an alarm goes first and whole, with what came around it', () => {
  const run = new FilterRun([
    {
      check: { range: [0, 100], hold: '1s' },
      reduce: { error: 5 },
      around: { before: '10s', after: '5s' },
    },
  ])
  const second = Array.from({ length: 100 }, (_, i) => i)
  run.judge(second.slice(0, 50).map((at) => reading(at, 50 + Math.sin(at))))
  run.judge([reading(50, 200)])
  run.judge(second.slice(51).map((at) => reading(at, 50 + Math.sin(at))))
  run.flush()
  const alarm = run.log.findIndex(({ lane }) => lane === 'urgent')
  assert.equal(run.log[alarm]!.reading.value, 200)
  assert.equal(run.log[alarm]!.reading.quality, Quality.outOfRange)
  assert.deepEqual(seconds(run.log.slice(0, alarm)), [0, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49])
  assert.ok(run.log.slice(1, alarm).every(({ reading }) => reading.quality === Quality.late))
  assert.deepEqual(seconds(run.log.slice(alarm + 1, alarm + 6)), [51, 52, 53, 54, 55])
  assert.equal(run.log.length, 11 + 1 + 5 + 1)
  assert.deepEqual(
    run.alerts.map(({ kind, state, value, limit }) => [kind, state, value, limit]),
    [
      ['range', 'raised', 200, [0, 100]],
      ['range', 'cleared', 50 + Math.sin(51), [0, 100]],
    ],
  )
})

test('what an alarm pulls in spoils no line that was there before', () => {
  const run = new FilterRun([
    { check: { range: [-9, 9] }, reduce: { error: 1 }, around: { before: '1h' } },
  ])
  // Every twentieth reading could end the line; those between stray from it by almost the bound.
  const zigzag = (second: number) => (second % 20 === 0 ? 0 : second % 2 ? 0.9 : -0.9)
  for (const before of ['25s', '26s', '44s', '1h']) {
    run.restart([{ check: { range: [-9, 9] }, reduce: { error: 1 }, around: { before } }])
    const base = run.ledger.received * 2
    const sent = Array.from({ length: 1505 }, (_, i) => reading(base + i, zigzag(i)))
    const alarm = reading(base + 1505, 99)
    run.judge([...sent, alarm])
    run.flush()
    const logged = run.log.filter(({ reading: { timeMs } }) => timeMs >= sent[0]!.timeMs)
    assert.ok(worst([...sent, alarm], logged) <= 1, `before ${before}`)
    const wanted = before === '1h' ? 490 : Number.parseInt(before, 10)
    const times = new Set(logged.map(({ reading: { timeMs } }) => timeMs))
    for (let i = 1505 - wanted; i < 1505; i++)
      assert.ok(times.has(sent[i]!.timeMs), `${before}, ${i}`)
    assert.ok(logged.length < wanted + 45, 'and not much more')
  }
})

test('an alert says which series, why, and what came before', () => {
  const run = new FilterRun([{ match: { metric: 'other' } }, { detect: {} }])
  const random = new Seeded(1)
  for (let i = 0; i < 600; i++) run.judge([reading(i * 60, 20 + random.uniform())])
  run.judge([reading(36_000, 90)])
  const { recent, score, ...rest } = run.alerts.at(-1)! as { recent: number[][]; score: number }
  assert.ok(score >= 0.5 && score <= 1)
  assert.equal(recent.length, 8)
  assert.deepEqual(recent.at(-1), [start + 36_000_000, 90])
  const { expected, ...exact } = rest as unknown as { expected: number }
  assert.ok(expected > 20 && expected < 21)
  assert.deepEqual(exact, {
    kind: 'anomaly',
    state: 'raised',
    rule: 1,
    device: 'pump',
    metric: 'temperature',
    unit: 'Cel',
    labels: { site: 'A' },
    timeMs: start + 36_000_000,
    sinceMs: start + 36_000_000,
    value: 90,
    threshold: 0.5,
  })
  assert.equal(run.log.at(-1)!.reading.quality, Quality.anomalous)

  for (let i = 1; i <= 20; i++) run.judge([reading(36_000 + i * 60, 20.5)])
  const { state, sinceMs, ...end } = run.alerts.at(-1)! as Record<string, number | number[][]>
  assert.deepEqual([state, sinceMs], ['cleared', exact.sinceMs])
  assert.ok(Number(end.score) < Number(end.threshold) && Number(end.expected) < 21)
  assert.deepEqual((end.recent as number[][]).at(-1), [end.timeMs, 20.5])
})

test('silence is told when time passes', () => {
  const run = new FilterRun([{ check: { missing: '5m' } }])
  run.judge([reading(0, 1)])
  run.tick({ wallMs: start + 301_000, monotonicMs: 301_000 })
  run.restart()
  run.tick({ wallMs: start + 302_000, monotonicMs: 302_000 })
  assert.deepEqual(
    run.alerts.map(({ kind, state }) => [kind, state]),
    [['missing', 'raised']],
  )
})

test('the first rule that matches decides, and the rest passes whole', () => {
  const run = new FilterRun([
    { match: { device: 'pump-*', metric: 'temp*' }, reduce: { error: 100 } },
    { match: { unit: 'Pa' }, reduce: { error: 100 } },
    { match: { labels: { site: 'B*' } }, reduce: { error: 100 } },
  ])
  const two = (options: { device?: string; metric?: string; unit?: string }) => {
    run.judge([0, 1, 2].map((second) => reading(second, second, options)))
    return run.ledger.held
  }
  assert.equal(two({ device: 'pump-1' }), 1)
  assert.equal(two({ device: 'fan-1' }), 1)
  assert.equal(two({ device: 'fan-1', unit: 'Pa' }), 2)
  assert.equal(two({ device: 'pump-1', metric: 'noise' }), 2)
  assert.equal(run.ledger.admitted, 1 + 3 + 1 + 3)
})

test('series beyond the limit of a rule pass whole and are counted', () => {
  const run = new FilterRun([{ reduce: { error: 100 }, maxSeries: 2 }])
  for (const device of ['a', 'b', 'c'])
    run.judge([0, 1, 2].map((second) => reading(second, second, { device })))
  assert.equal(run.of('c', 'temperature').length, 3)
  assert.equal(run.of('a', 'temperature').length, 1)
  assert.equal(run.counts.series, 2)
  assert.equal(run.counts.beyondMaxSeries, 3)
})

test('what was learned goes on over a restart as of its checkpoint', () => {
  const rule = [{ detect: {} }]
  const [one, other] = [new FilterRun(rule), new FilterRun(rule)]
  const random = new Seeded(4)
  for (let i = 0; i < 3000; i++) {
    const next = reading(i * 60, random.chance(0.004) ? random.uniform() * 50 : random.uniform())
    one.judge([next])
    other.judge([next])
    if (i % 500 !== 100) continue
    other.checkpoint()
    other.restart()
  }
  assert.ok(one.alerts.length > 4)
  assert.deepEqual(other.alerts, one.alerts)
})

test('a checkpoint comes in bounded parts', () => {
  const run = new FilterRun([{ detect: {} }])
  const devices = Array.from({ length: 100 }, (_, i) => `d${i}`)
  for (let i = 0; i < 300; i++) run.judge(devices.map((device) => reading(i, i % 7, { device })))
  const before = run.saved().length
  run.checkpoint(4000)
  const first = run.saved().length - before
  assert.ok(first > 0 && first < 40, `${first} entries`)
  for (let i = 0; i < 100; i++) run.checkpoint(4000)
  assert.deepEqual(run.checkpoint(4000), [], 'nothing was learned since')
  assert.equal(run.saved().filter(({ key }) => key.startsWith('s')).length, 100)
})

test('held readings go on when their rule is gone, and its state goes with them', () => {
  const run = new FilterRun([
    { reduce: { error: 5 }, check: { range: [0, 9] }, around: { before: '9s' } },
  ])
  run.judge([0, 1, 2, 3].map((second) => reading(second, second / 10)))
  run.checkpoint()
  assert.equal(run.ledger.held, 3)
  run.restart([])
  run.judge([reading(4, 0)])
  assert.deepEqual(seconds(run.log), [0, 3, 4])
  assert.deepEqual(run.ledger, { received: 5, admitted: 3, suppressed: 2, absorbed: 0, held: 0 })
  assert.deepEqual(
    run.saved().map(({ key }) => key[0]),
    ['j'],
    'but for word of it',
  )
})

test('a changed rule keeps the state of the series it still matches', () => {
  const run = new FilterRun([{ check: { range: [0, 10] }, detect: {}, reduce: { error: 5 } }])
  const random = new Seeded(6)
  for (let i = 0; i < 500; i++) run.judge([reading(i * 60, random.uniform())])
  run.checkpoint()
  const rules = [
    { match: { device: 'pump' }, check: { range: [0, 9] }, detect: {}, reduce: { error: 4 } },
  ]
  run.restart(rules)
  run.judge([reading(30_000, 70)])
  assert.deepEqual(
    run.alerts.map(({ kind, state }) => [kind, state]),
    [
      ['range', 'raised'],
      ['anomaly', 'raised'],
    ],
    'no second warm-up',
  )
})

test('damaged state is left, and what is whole goes on', () => {
  const run = new FilterRun([{ reduce: { error: 5 }, detect: {} }])
  for (const device of ['a', 'b'])
    run.judge([0, 1].map((second) => reading(second, second, { device })))
  run.checkpoint()
  for (const { key, value } of run.saved()) {
    if (key.endsWith('1')) value.fill(0xff)
  }
  run.restart()
  run.judge([])
  run.judge([2, 3].map((second) => reading(second, 0, { device: 'b' })))
  assert.ok(run.counts.unreadable > 0)
  assert.equal(run.of('b', 'temperature').length, 2)
})
