import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AlarmGate, gateTuning, readAlarms } from '../../agent/filter/detect/alarm-gate.ts'
import { Detection, type DetectionConfig, methods } from '../../agent/filter/detect/detection.ts'
import { Hampel } from '../../agent/filter/detect/hampel.ts'
import { Novelty } from '../../agent/filter/detect/novelty.ts'
import { StateProblem, StateReader, StateWriter } from '../../agent/filter/state-bytes.ts'
import { type Recording, recordings } from '../support/recordings.ts'
import { Seeded } from '../support/seeded.ts'

const defaults: DetectionConfig = {
  method: 'surprise',
  threshold: 0.5,
  alarmsPerDay: 10,
  window: 31,
  halfLife: 200,
  limit: 6,
}
const minute = 60_000
const day = 86_400_000
const start = Date.UTC(2026, 0, 5)

function scoreOf(detection: Detection, value: number, timeMs: number): number {
  detection.take({ value, timeMs })
  return detection.score
}

function scoresOf(
  { times, values }: Pick<Recording, 'times' | 'values'>,
  detection = new Detection(defaults),
): number[] {
  return values.map((value, i) => scoreOf(detection, value, times[i]!))
}

/** Rows that raise an alarm. */
const alarmsOf = (scores: readonly number[]) =>
  scores.flatMap((score, row) => (score >= defaults.threshold ? [row] : []))

/** Noise about a daily cycle, one reading in five minutes, with faults put in by `change`. */
function cycle(days: number, change: (value: number, row: number) => number = (value) => value) {
  const random = new Seeded(3)
  const times = Array.from({ length: days * 288 }, (_, row) => start + row * 5 * minute)
  const values = times.map((_, row) => {
    const daily = Math.sin((row / 288) * 2 * Math.PI) * 10
    return change(50 + daily + random.uniform() + random.uniform() - 1, row)
  })
  return { times, values }
}

function copyOf(detection: Detection, config = defaults): Detection {
  const writer = new StateWriter()
  detection.save(writer)
  detection.saveSoft(writer)
  const reader = new StateReader(writer.take())
  const copy = new Detection(config)
  copy.load(readAlarms(reader))
  copy.loadSoft(reader)
  reader.end()
  return copy
}

test('a score does not depend on what comes after it', (t) => {
  for (const recording of recordings(t) ?? []) {
    const half = recording.times.length >> 1
    const { times, values } = recording
    const prefix = scoresOf({ times: times.slice(0, half), values: values.slice(0, half) })
    assert.deepEqual(scoresOf(recording).slice(0, half), prefix, recording.name)
  }
})

test('value → a·value + b raises the same alarms', (t) => {
  for (const recording of recordings(t) ?? []) {
    const { times, values } = recording
    const own = alarmsOf(scoresOf(recording))
    for (const [a, b] of [
      [1.8, 32],
      [-1, 0],
      [1e-3, -5],
      [-7e5, 1e6],
    ] as const) {
      const mapped = alarmsOf(scoresOf({ times, values: values.map((value) => a * value + b) }))
      assert.deepEqual(mapped, own, `${recording.name}: ${a}·value + ${b}`)
    }
  }
})

for (const method of methods)
  test(`${method}: state saved and restored at any moment gives the same scores`, (t) => {
    const config = { ...defaults, method }
    for (const { name, times, values } of recordings(t) ?? []) {
      const whole = new Detection(config)
      let copied = new Detection(config)
      values.forEach((value, row) => {
        if (row % 97 === 50) copied = copyOf(copied, config)
        const score = scoreOf(whole, value, times[row]!)
        assert.equal(scoreOf(copied, value, times[row]!), score, `${name}, row ${row}`)
        assert.ok(score >= 0 && score <= 1)
        assert.equal(score >= config.threshold, whole.event === 'raised')
      })
    }
  })

test('what another method has learned is refused', () => {
  const config = { ...defaults, window: 31, halfLife: 31 }
  const detection = new Detection({ ...config, method: 'ewma' })
  assert.throws(() => copyOf(detection, { ...config, method: 'hampel' }), StateProblem)
  assert.throws(() => copyOf(detection, { ...config, method: 'ewma', halfLife: 30 }), StateProblem)
})

test('hampel scores the distance from the median in scaled deviations', () => {
  const random = new Seeded(8)
  const hampel = new Hampel({ window: 9, limit: 5 })
  const values: number[] = []
  const middle = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[4]!
  for (let i = 0; i < 500; i++) {
    const value = random.below(20) + (random.chance(0.05) ? 100 : 0)
    const window = values.slice(-9)
    hampel.take({ value })
    const { score } = hampel
    if (window.length === 9) {
      const median = middle(window)
      const deviation = 1.4826 * middle(window.map((other) => Math.abs(other - median)))
      const distance = Math.abs(value - median)
      const wanted = distance === 0 ? 0 : Math.min(1, distance / deviation / 10)
      assert.ok(Math.abs(score - wanted) < 1e-12)
    }
    values.push(value)
  }
})

test('it sees a spike, a dip, a wrong time of day and a value in a gap', () => {
  const faults: Record<string, (value: number, row: number) => number> = {
    spike: (value, row) => (row === 4000 ? value + 30 : value),
    dip: (value, row) => (row === 4000 ? value - 30 : value),
    night: (value, row) => (row >= 4032 + 72 && row < 4032 + 90 ? 45 : value),
  }
  for (const [name, change] of Object.entries(faults)) {
    const alarms = alarmsOf(scoresOf(cycle(20, change)))
    assert.ok(
      alarms.some((row) => row >= 4000 && row < 4130),
      `${name}: ${alarms}`,
    )
  }
  // Two habits, on and off, and then a value between them.
  const times = Array.from({ length: 2001 }, (_, row) => start + row * minute)
  const values = times.map((_, row) => (row === 2000 ? 5 : Math.floor(row / 50) % 2 ? 10 : 0))
  assert.deepEqual(
    alarmsOf(scoresOf({ times, values })).filter((row) => row > 1700),
    [2000],
  )
})

test('it is quiet about noise, steps that recur and what never changes', () => {
  const random = new Seeded(11)
  const rows = 20_000
  const times = Array.from({ length: rows }, (_, row) => start + row * 5 * minute)
  const kinds: Record<string, (row: number) => number> = {
    even: () => random.uniform(),
    bell: () => Array.from({ length: 12 }, () => random.uniform()).reduce((a, b) => a + b) - 6,
    steps: (row) => (row % 100 < 50 ? 0 : 10),
    constant: () => 21.5,
    counting: () => random.below(4),
  }
  for (const [name, value] of Object.entries(kinds)) {
    const alarms = alarmsOf(scoresOf({ times, values: times.map((_, row) => value(row)) }))
    assert.ok(alarms.length <= (rows / 10_000) * 12, `${name}: ${alarms.length} alarms`)
  }
})

test('an anomaly that goes on is one alarm, and over when it has been quiet', () => {
  const detection = new Detection(defaults)
  const { times, values } = cycle(20, (value, row) => (row >= 5000 && row < 5040 ? 95 : value))
  const events: [number, string][] = []
  values.forEach((value, row) => {
    detection.take({ value, timeMs: times[row]! })
    if (row >= 4990 && detection.event) events.push([row, detection.event])
  })
  assert.deepEqual(events[0], [5000, 'raised'])
  assert.equal(events[1]![1], 'cleared')
  assert.ok(events[1]![0] >= 5020 && events[1]![0] < 5100)
})

test('times before 1970 are times', () => {
  const { times, values } = cycle(20, (value, row) => (row === 4000 ? value + 30 : value))
  const scores = scoresOf({ times, values })
  const days = 20_454 * 2 * day
  const shifted = scoresOf({ times: times.map((timeMs) => timeMs - days), values })
  assert.deepEqual(shifted, scores)
})

test('the budget bounds the alarms of a day', () => {
  const gate = new AlarmGate({ threshold: 0.5, alarmsPerDay: 3 }, { ...gateTuning, fatigue: 0 })
  const perDay = Array.from({ length: 20 }, () => 0)
  for (let row = 0; row < 20 * 1440; row++) {
    gate.take({ score: row % 30 === 0 ? 1 : 0 }, { timeMs: start + row * minute })
    if (gate.event === 'raised') perDay[Math.floor(row / 1440)]!++
  }
  assert.ok(perDay[0]! <= 6, 'a full budget and what the day adds')
  assert.ok(
    perDay.slice(1).every((alarms) => alarms === 3),
    `${perDay}`,
  )
})

test('a clock that jumped years ahead and back does not end the alarms', () => {
  const { times, values } = cycle(60, (value, row) => (row >= 12_000 && row < 12_003 ? 95 : value))
  const detection = new Detection({ ...defaults, alarmsPerDay: 0.2 })
  const alarms: number[] = []
  values.forEach((value, row) => {
    const timeMs = times[row]! + (row === 300 ? 3650 * day : 0)
    detection.take({ value, timeMs })
    if (detection.event === 'raised') alarms.push(row)
  })
  assert.ok(alarms.includes(12_000), `${alarms}`)
})

test('an alert can say what it expected and what came before', () => {
  const detection = new Detection(defaults)
  const { times, values } = cycle(20, (value, row) => (row === 5000 ? 500 : value))
  for (let row = 0; row <= 5000; row++) detection.take({ value: values[row]!, timeMs: times[row]! })
  assert.equal(detection.event, 'raised')
  assert.ok(detection.expected > 38 && detection.expected < 62, `${detection.expected}`)
  const context = detection.recent
  assert.equal(context.length, 8)
  assert.deepEqual(context.at(-1), [times[5000], 500])
  assert.deepEqual(context[0], [times[4993], values[4993]])
})

test('a forgetful histogram follows a level that it has seen for long enough', () => {
  const novelty = new Novelty()
  const random = new Seeded(2)
  const bitsOf = (value: number) => {
    novelty.take(value)
    return Math.log2(novelty.rarity)
  }
  for (let i = 0; i < 1000; i++) novelty.take(random.uniform())
  assert.ok(bitsOf(1000) > 10, 'a new level is a surprise')
  let bits = 0
  for (let i = 0; i < 200_000; i++) bits = bitsOf(1000 + random.uniform())
  assert.ok(bits < 3, 'and no longer is one')
  assert.ok(bitsOf(1000.5) < 3, 'and the grid lies over it alone')
  assert.ok(bitsOf(1002) > 10)
  assert.ok(bitsOf(0.5) > 10, 'the old one is forgotten')
})
