import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Check, type CheckConfig, type FaultReport, readFaults } from '../../agent/filter/check.ts'
import { StateReader, StateWriter } from '../../agent/filter/state-bytes.ts'
import { type AdmittedReading, qualityText, type Value } from '../../shared/reading.ts'
import { reading } from '../support/readings.ts'

const start = Date.UTC(2026, 0, 1)
const nothing: CheckConfig = {
  range: undefined,
  hysteresis: 0,
  ratePerMs: undefined,
  stuckMs: undefined,
  missingMs: undefined,
  futureMs: undefined,
  backwardsMs: undefined,
  holdMs: 60_000,
  remindMs: 3_600_000,
}

/** A value and the second at which it was measured, and arrived where that is not the same. */
type Row = [second: number, value: Value, arrived?: number]

function readingAt([second, value, arrived = second]: Row): AdmittedReading {
  const timeMs = start + second * 1000
  const arrival = { wallMs: start + arrived * 1000, monotonicMs: arrived * 1000 }
  return { ...reading({ timeMs, value }), arrival }
}

function checked(config: Partial<CheckConfig>, rows: readonly Row[]) {
  const reports: FaultReport[] = []
  const check = new Check({ ...nothing, ...config }, { fault: (report) => reports.push(report) })
  const raised: number[] = []
  const marks = rows.map((row, index) => {
    const one = readingAt(row)
    if (check.take(one)) raised.push(index)
    return qualityText(one.quality)
  })
  const told = reports.map(
    ({ fault, state, timeMs }) => `${fault} ${state} ${(timeMs - start) / 1000}`,
  )
  return { marks, told, reports, raised, check }
}

test('a value out of range is marked, and one alert tells of it', () => {
  const { marks, told, reports, raised } = checked({ range: [-40, 125] }, [
    [0, 20],
    [10, 126],
    [20, 130],
    [30, 20],
    [40, 126],
    [50, 20],
    [99, 20],
    [100, 20],
  ])
  assert.deepEqual(marks.slice(0, 4), ['good', 'outOfRange', 'outOfRange', 'good'])
  // It flickered at 40, so the minute of calm counts from there.
  assert.deepEqual(told, ['range raised 10', 'range cleared 100'])
  assert.deepEqual(raised, [1])
  assert.deepEqual([reports[0]!.found, reports[0]!.limit], [126, [-40, 125]])
})

test('near the limit a fault neither begins nor ends', () => {
  const config = { range: [0, 100], hysteresis: 2 } as const
  assert.deepEqual(checked(config, [[0, 99]]).told, [])
  const { told } = checked(config, [
    [0, 101],
    [100, 99],
    [200, 99],
    [300, 98],
  ])
  assert.deepEqual(told, ['range raised 0', 'range cleared 300'])
})

test('a fault that lasts is told again every so often', () => {
  const rows = Array.from({ length: 20 }, (_, i): Row => [i * 600, 200])
  const { told } = checked({ range: [0, 100] }, rows)
  assert.deepEqual(told, [
    'range raised 0',
    'range still 3600',
    'range still 7200',
    'range still 10800',
  ])
})

test('a change faster than the limit is marked; time that stands or turns has no rate', () => {
  const { marks, reports } = checked({ ratePerMs: 5 / 1000 }, [
    [0, 0],
    [1, 5],
    [2, 11],
    [2, 99],
    [1, 0],
    [11, 50],
  ])
  assert.deepEqual(marks, ['good', 'good', 'rateExceeded', 'good', 'good', 'good'])
  assert.deepEqual([reports[0]!.found, reports[0]!.limit], [6, 5])
})

test('a value that stays the same for too long is stuck until it moves', () => {
  const rows: Row[] = [0, 300, 599, 600, 900].map((second) => [second, 'on'])
  const { marks, told } = checked({ stuckMs: 600_000 }, [...rows, [1000, 'off'], [1100, 'on']])
  assert.deepEqual(marks, ['good', 'good', 'good', 'stuck', 'stuck', 'good', 'good'])
  assert.deepEqual(told, ['stuck raised 600', 'stuck cleared 1000'])
})

test('silence is told while it lasts', () => {
  const { check, reports } = checked({ missingMs: 300_000 }, [[0, 1]])
  check.tick(300_000)
  assert.equal(reports.length, 0)
  check.tick(301_000)
  check.tick(302_000)
  check.take(readingAt([400, 1]))
  check.take(readingAt([430, 1]))
  check.take(readingAt([460, 1]))
  assert.deepEqual(
    reports.map(({ fault, state, timeMs }) => [fault, state, (timeMs - start) / 1000]),
    [
      ['missing', 'raised', 301],
      ['missing', 'cleared', 460],
    ],
  )
})

test('silence is told from the times of a recording that is played fast', () => {
  const { told, raised } = checked({ missingMs: 300_000 }, [
    [0, 1, 0],
    [1000, 1, 1],
    [1100, 1, 2],
  ])
  assert.deepEqual(told, ['missing raised 300', 'missing cleared 1100'])
  assert.deepEqual(raised, [1])
})

test('after a start silence counts from the start', () => {
  const before = checked({ missingMs: 300_000 }, [[0, 1]]).check
  const writer = new StateWriter()
  before.saveSoft(writer)
  const { check, reports } = checked({ missingMs: 300_000 }, [])
  Check.loadSoft(new StateReader(writer.take()), check)
  check.tick(9_000_000)
  check.tick(9_299_000)
  assert.equal(reports.length, 0)
  check.tick(9_301_000)
  assert.equal(reports[0]?.state, 'raised')
})

test('what is no number and finite is marked', () => {
  const { marks, told } = checked({}, [
    [0, 1],
    [1, NaN],
    [2, -Infinity],
    [70, 1],
  ])
  assert.deepEqual(marks, ['good', 'notFinite', 'notFinite', 'good'])
  assert.deepEqual(told, ['notFinite raised 1', 'notFinite cleared 70'])
})

test('a time ahead of the gateway is marked and makes no later time look old', () => {
  const config = { futureMs: 60_000, backwardsMs: 0 }
  const { marks, told } = checked(config, [
    [0, 1],
    [4000, 1, 10],
    [20, 1],
    [80, 1],
  ])
  assert.deepEqual(marks, ['good', 'timeInFuture', 'good', 'good'])
  assert.deepEqual(told, ['future raised 10', 'future cleared 80'])
})

test('a gateway whose clock is not set says nothing of the future', () => {
  const check = new Check({ ...nothing, futureMs: 60_000 }, { fault: () => assert.fail() })
  const one = reading({ timeMs: start })
  one.arrival = { wallMs: 5000, monotonicMs: 5000 }
  check.take(one)
  assert.equal(qualityText(one.quality), 'good')
})

test('a time behind an earlier one is marked', () => {
  const { marks } = checked({ backwardsMs: 1000 }, [
    [10, 1],
    [9, 1],
    [8, 1],
    [11, 1],
    [9, 1],
  ])
  assert.deepEqual(marks, ['good', 'good', 'timeBackwards', 'good', 'timeBackwards'])
})

test('a fault raised before a restart is not raised again', () => {
  const { check } = checked({ range: [0, 100] }, [[0, 200]])
  const writer = new StateWriter()
  check.save(writer)
  const reports: FaultReport[] = []
  const after = new Check(
    { ...nothing, range: [0, 100] },
    { fault: (report) => reports.push(report) },
  )
  after.load(readFaults(new StateReader(writer.take())))
  after.take(readingAt([10, 200]))
  after.take(readingAt([80, 50]))
  assert.deepEqual(
    reports.map(({ state, sinceMs }) => [state, sinceMs]),
    [['cleared', start]],
  )
})
