import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTime, valueText } from '../../shared/trace/cell.ts'

test('a number keeps its digits', () => {
  for (const text of ['21.50', '0', '-0', '1e-7', '18446744073709551615', '-9223372036854775808'])
    assert.equal(valueText(text, false), text)
})

test('what is no JSON is written as JSON', () => {
  const cases = {
    '+5': '5',
    '.50': '0.50',
    '-.5': '-0.5',
    '5.': '5',
    '007.5': '7.5',
    ' 21.5 ': '21.5',
    True: 'true',
    false: 'false',
    null: 'null',
    NaN: '"NaN"',
    '21,5': '"21,5"',
    'a "b"\\': '"a \\"b\\"\\\\"',
    '.': '"."',
    '0x10': '"0x10"',
    '1e': '"1e"',
  }
  for (const [cell, json] of Object.entries(cases)) assert.equal(valueText(cell, false), json)
  assert.equal(valueText('21,50', true), '21.50')
})

test('times are read in UTC, to the nanosecond', () => {
  const day = Date.UTC(2014, 3, 1)
  const cases: [string, number, number][] = [
    ['2014-04-01 00:00:00', day, 0],
    ['2014-04-01T00:00:00Z', day, 0],
    ['2014-04-01T02:00:00+02:00', day, 0],
    ['2014-03-31T18:30:00-0530', day, 0],
    ['2014-04-01', day, 0],
    ['2014-04-01 00:00:00.123456789', day + 123, 456_789],
    ['1396310400', day, 0],
    ['1396310400.5', day + 500, 0],
    ['1396310400123', day + 123, 0],
    ['1396310400123.25', day + 123, 250_000],
    ['0', 0, 0],
    ['-1.5', -1500, 0],
  ]
  for (const [text, timeMs, timeNanos] of cases)
    assert.deepEqual(parseTime(text), { timeMs, timeNanos }, text)
})

test('what is no time is none', () => {
  for (const text of [
    '',
    'now',
    '2014-02-30',
    '2014-04-01 24:00:00',
    '2014-13-01',
    '1e9',
    '12:00',
    '2014-04-01 00:00:60',
    '139631040000000',
  ])
    assert.equal(parseTime(text), undefined, text)
})
