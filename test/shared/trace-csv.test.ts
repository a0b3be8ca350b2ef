import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CsvLine, CsvReader } from '../../shared/trace/csv.ts'

function read(text: string, { chunk = text.length, delimiter = ',' as ',' | ';' } = {}): CsvLine[] {
  const reader = new CsvReader(delimiter)
  const lines: CsvLine[] = []
  for (let i = 0; i < text.length; i += chunk) lines.push(...reader.feed(text.slice(i, i + chunk)))
  return [...lines, ...reader.end()]
}

test('records are the same however the text is cut', () => {
  const text = 'a,b\r\n"x ""y"", z",2\n"two\nlines",3\n\nlast,"4"'
  const whole = read(text)
  assert.deepEqual(whole, [
    { line: 1, cells: ['a', 'b'] },
    { line: 2, cells: ['x "y", z', '2'] },
    { line: 3, cells: ['two\nlines', '3'] },
    { line: 6, cells: ['last', '4'] },
  ])
  for (const chunk of [1, 2, 3, 7]) assert.deepEqual(read(text, { chunk }), whole)
})

test('a quote that is never closed costs its own line only', () => {
  const rows = Array.from({ length: 200 }, (_, i) => `${i},x`)
  rows[100] = '100,"x'
  const lines = read(rows.join('\n'))
  const bad = lines.filter((line) => line.problem !== undefined)
  const problem = 'a quote that is not closed, or text behind a closing quote'
  assert.deepEqual(bad, [{ line: 101, cells: ['100', '"x'], problem }])
  assert.equal(lines.length, 200)
  assert.deepEqual(lines.at(-1), { line: 200, cells: ['199', 'x'] })
})

test('text behind a closing quote costs its own line only', () => {
  const lines = read('1,"a"b\n2,c\n')
  assert.equal(lines[0]?.line, 1)
  assert.ok(lines[0]?.problem)
  assert.deepEqual(lines[1], { line: 2, cells: ['2', 'c'] })
})

test('a line without an end is given up, not kept', () => {
  const reader = new CsvReader(',')
  const lines: CsvLine[] = reader.feed('1,a\n2,')
  for (let i = 0; i < 100; i++) lines.push(...reader.feed('x'.repeat(10_000)))
  lines.push(...reader.feed('\n3,c\n'), ...reader.end())
  assert.deepEqual(
    lines.map(({ line, problem }) => [line, problem !== undefined]),
    [
      [1, false],
      [2, true],
      [3, false],
    ],
  )
})
