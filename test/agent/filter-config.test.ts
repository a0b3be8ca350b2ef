import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { z } from 'zod'
import { filterSchema } from '../../agent/filter/filter.ts'
import { glob } from '../../agent/filter/match.ts'
import { ConfigFailure, parseConfig } from '../../shared/config.ts'

const schema = z.strictObject({ filter: filterSchema })

function problems(text: string): string[] {
  try {
    parseConfig(schema, text, { file: 'agent.yaml' })
    return []
  } catch (error) {
    if (!(error instanceof ConfigFailure)) throw error
    return error.problems.map(({ path, message }) => `${path}: ${message}`)
  }
}

test('the filter of the manual runs as written', () => {
  const { filter } = parseConfig(
    schema,
    `
filter:
  - match: { device: '*', metric: temperature, unit: Cel }
    check:   { range: [-40, 125], rate: 5/s, stuck: 10m, missing: 5m }
    detect:  { method: surprise, alarmsPerDay: 2 }
    reduce:  { error: 0.2, heartbeat: 10m }
    around:  { before: 30s, after: 30s }
  - match: { metric: vibration }
    window:  { every: 10s, emit: [min, max, mean, count, p95] }
`,
    { file: 'agent.yaml' },
  )
  const [first, second] = filter
  assert.deepEqual(first!.check, {
    range: [-40, 125],
    rate: 0.005,
    stuck: 600_000,
    missing: 300_000,
    future: 300_000,
    backwards: 0,
    hold: 60_000,
    remind: 3_600_000,
  })
  assert.deepEqual(first!.detect, {
    method: 'surprise',
    threshold: 0.5,
    alarmsPerDay: 2,
    window: 31,
    halfLife: 200,
    limit: 1,
  })
  assert.deepEqual(first!.reduce, {
    method: 'linear',
    error: { absolute: 0.2 },
    heartbeat: 600_000,
  })
  assert.deepEqual(first!.around, { before: 30_000, after: 30_000 })
  assert.deepEqual(second!.window, {
    every: 10_000,
    emit: ['min', 'max', 'mean', 'count', 'p95'],
    lateness: 0,
  })
})

test('the examples of docs/FILTER.md are good', () => {
  const examples = readFileSync('docs/FILTER.md', 'utf8').matchAll(/```yaml\n([\s\S]*?)```/g)
  const found = [...examples].map(([, text]) => problems(text!))
  assert.ok(found.length >= 2)
  assert.deepEqual(found.flat(), [])
})

test('notations: errors in percent, open ranges, rates by the hour, checks turned off', () => {
  const { filter } = parseConfig(
    schema,
    `
filter:
  - check: { range: [null, 9], rate: 3.6e3/h, future: off, backwards: off }
    detect: { method: hampel }
    reduce: { method: deadband, error: 0.5% }
`,
    { file: 'agent.yaml' },
  )
  const { check, detect, reduce } = filter[0]!
  assert.deepEqual(check!.range, [null, 9])
  assert.equal(check!.rate, 0.001)
  assert.deepEqual([check!.future, check!.backwards], ['off', 'off'])
  assert.equal(detect!.limit, 6)
  assert.deepEqual(reduce!.error, { share: 0.005 })
})

test('every mistake is told with its path', () => {
  assert.deepEqual(
    problems(`
filter:
  - check: { range: [9, 1], rate: fast }
    reduce: { error: 120% }
    window: { every: 7s, size: 10s, emit: [median, p0] }
  - reduce: { error: -1 }
    around: { before: 30s }
  - around: { after: 1s }
  - window: { every: 10ms, size: 1h, emit: [p50] }
  - detect: { method: magic, window: 30 }
  - sample: 5
`).map((problem) => problem.replace(/: .*(such as|one of).*/, ': …')),
    [
      'filter.0.check.rate: …',
      'filter.0.reduce.error: …',
      'filter.0.window.emit.0: …',
      'filter.0.window.emit.1: …',
      'filter.0.window.size: must be a multiple of every',
      'filter.1.reduce.error: …',
      'filter.2.around: does nothing: without reduce or window every reading passes',
      'filter.2.around: does nothing: no check or detect raises alarms',
      'filter.3.window.every: too many windows at once: size and lateness may span 100 of it',
      'filter.4.detect.method: …',
      'filter.4.detect.window: must be odd',
      'filter.5.sample: unknown key',
    ],
  )
})

test('what contradicts itself is told once its parts are right', () => {
  assert.deepEqual(
    problems(`
filter:
  - check: { range: [9, 1] }
  - check: { range: [0, 10], hysteresis: 5 }
  - window: { every: 7s, size: 10s, emit: [min, min] }
  - reduce: { error: 1 }
    window: { every: 1s, emit: [min] }
  - reduce: { error: 1 }
    around: { before: 30s }
`),
    [
      'filter.0.check.range: expected [least, most]',
      'filter.1.check.hysteresis: leaves nothing of the range',
      'filter.2.window.emit: named twice',
      'filter.2.window.size: must be a multiple of every',
      'filter.3.window: either reduce or window',
      'filter.4.around: does nothing: no check or detect raises alarms',
    ],
  )
})

test('a glob takes any characters for a star and one for a question mark', () => {
  for (const [pattern, text, wanted] of [
    ['*', '', true],
    ['pump-*', 'pump-', true],
    ['pump-*', 'pump', false],
    ['*-1', 'a-1-1', true],
    ['*-1', 'a-1-2', false],
    ['a?c', 'abc', true],
    ['a?c', 'ac', false],
    ['a*b*c', 'aXbXbXc', true],
    ['', 'a', false],
    ['a.c', 'abc', false],
  ] as const)
    assert.equal(glob(pattern, text), wanted, `${pattern} ${text}`)
  const began = process.cpuUsage().user
  assert.equal(glob(`${'*a'.repeat(500)}b`, 'a'.repeat(5000)), false)
  assert.ok(process.cpuUsage().user - began < 500_000, 'no pattern takes long')
})
