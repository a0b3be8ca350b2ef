import assert from 'node:assert/strict'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { payloadOf } from '../../firmware-sim/payload.ts'
import { UserError } from '../../shared/failure.ts'
import type { Sample } from '../../shared/trace.ts'
import { type BadRow, survey, Trace } from '../../shared/trace.ts'
import { absent } from '../support/needs.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Debian's user without rights. */
const nobody = 65_534

async function traceOf(t: TestContext, name: string, text: string): Promise<string> {
  const file = join(await temporaryDirectory(t), name)
  await writeFile(file, text)
  return file
}

async function play(file: string): Promise<{ samples: Sample[]; bad: BadRow[] }> {
  const bad: BadRow[] = []
  const trace = await Trace.open(file)
  const samples = await Array.fromAsync(trace.samples((row) => bad.push(row)))
  return { samples: samples.flat(), bad }
}

const sent = (samples: Sample[]) =>
  samples.map((sample) => `${sample.device}/${sample.metric} ${payloadOf(sample)}`)

test('a trace of one value takes its device from its name', async (t) => {
  const file = await traceOf(t, 'boiler 2.csv', 'timestamp,value\n2024-01-01 00:00:00,21.50\n')
  const { samples } = await play(file)
  assert.deepEqual(sent(samples), ['boiler 2/value {"t":1704067200000,"v":21.50}'])
})

test('a wide trace has a metric in each column, and empty cells are no values', async (t) => {
  const file = await traceOf(
    t,
    'p1.CSV',
    '\uFEFFtemp;Timestamp;on;note\r\n20,50;1704067200;true;"a; b"\r\n;1704067201000;;\r\n',
  )
  const { samples, bad } = await play(file)
  assert.deepEqual(sent(samples), [
    'p1/temp {"t":1704067200000,"v":20.50}',
    'p1/on {"t":1704067200000,"v":true}',
    'p1/note {"t":1704067200000,"v":"a; b"}',
  ])
  assert.deepEqual(bad, [])
})

test('a long trace names device and metric in its rows', async (t) => {
  const file = await traceOf(
    t,
    'all.csv',
    'timestamp,device,metric,value\n2024-01-01T00:00:00.000001Z,d1,count,9007199254740993\n2024-01-01,d2,state,run\n',
  )
  const { samples } = await play(file)
  assert.deepEqual(sent(samples), [
    'd1/count {"t":"2024-01-01T00:00:00.000001Z","v":9007199254740993}',
    'd2/state {"t":1704067200000,"v":"run"}',
  ])
})

test('repeated and backward timestamps are data', async (t) => {
  const stamps = ['00:05:00', '00:05:00', '00:01:00', '00:06:00']
  const rows = stamps.map((stamp, i) => `2024-01-01 ${stamp},${i}`)
  const { samples } = await play(await traceOf(t, 'x.csv', `timestamp,value\n${rows.join('\n')}\n`))
  assert.deepEqual(
    samples.map(({ timeMs, value }) => [new Date(timeMs).toISOString().slice(11, 19), value]),
    stamps.map((stamp, i) => [stamp, String(i)]),
  )
  const places = samples.map(({ atMs }) => atMs)
  assert.deepEqual(
    places,
    places.toSorted((a, b) => a - b),
  )
})

test('bad rows are named by line and skipped', async (t) => {
  const file = await traceOf(
    t,
    'all.csv',
    [
      'timestamp,device,metric,value',
      'yesterday,d,m,1',
      '2024-01-01,d,m,2',
      '2024-01-01,d,m',
      '2024-01-01,a/b,m,1',
      '2024-01-01,d,,1',
      '',
      '2024-01-01,d,m,',
      '2024-01-01,d,m,"3',
      '2024-01-01,d,m,4',
    ].join('\r\n'),
  )
  const { samples, bad } = await play(file)
  assert.deepEqual(
    samples.map(({ value }) => value),
    ['2', '4'],
  )
  assert.deepEqual(
    bad.map(({ line }) => line),
    [2, 4, 5, 6, 8, 9],
  )
  assert.match(bad[0]!.reason, /"yesterday" is no time/)
})

test('a file that is no trace, or cannot be read, is one clear line', async (t) => {
  const directory = await temporaryDirectory(t)
  const cases: [string, string | undefined, RegExp, number][] = [
    ['none.csv', undefined, /none\.csv: no such file/, 2],
    ['empty.csv', '', /empty\.csv: unknown header/, 1],
    ['binary.csv', '\u0000\u0001\u0002', /unknown header/, 1],
    ['time.csv', 'time,value\n', /unknown header/, 1],
    ['only.csv', 'timestamp\n', /unknown header/, 1],
    ['twice.csv', 'timestamp,a,a\n', /two columns are named "a"/, 1],
    ['slash.csv', 'timestamp,a/b,c\n', /column 2 "a\/b" cannot stand in a topic/, 1],
    ['five.csv', 'timestamp,device,metric,value,unit\n', /takes no further column/, 1],
    ['a+b.csv', 'timestamp,value\n', /rename the file/, 1],
  ]
  for (const [name, text, message, exitCode] of cases) {
    const file = join(directory, name)
    if (text !== undefined) await writeFile(file, text)
    await assert.rejects(Trace.open(file), (error) => {
      assert.ok(error instanceof UserError, name)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /\n/)
      assert.equal(error.exitCode, exitCode, name)
      return true
    })
  }
  await mkdir(join(directory, 'folder.csv'))
  await assert.rejects(Trace.open(join(directory, 'folder.csv')), /not a regular file/)
})

test('a file without read permission is one clear line', async (t) => {
  const file = await traceOf(t, 'x.csv', 'timestamp,value\n')
  await chmod(dirname(file), 0o755)
  await chmod(file, 0o000)
  const isRoot = process.geteuid!() === 0
  if (isRoot) process.seteuid!(nobody) // Root may read everything.
  try {
    await assert.rejects(Trace.open(file), /no permission to read it/)
  } finally {
    if (isRoot) process.seteuid!(0)
  }
})

test('a long trace is read a piece at a time', async (t) => {
  const rows = Array.from({ length: 200_000 }, (_, i) => `${1704067200 + i},${i}.5`)
  const file = await traceOf(t, 'x.csv', `timestamp,value\n${rows.join('\n')}\n`)
  const trace = await Trace.open(file)
  let [count, largest] = [0, 0]
  for await (const samples of trace.samples()) {
    count += samples.length
    largest = Math.max(largest, samples.length)
  }
  assert.equal(count, 200_000)
  assert.ok(largest < 10_000, `at most one read's worth at a time, not ${largest}`)
})

test('the machine temperature of NAB is played row by row, digit by digit', async (t) => {
  const file = '../shared/data/nab/data/realKnownCause/machine_temperature_system_failure.csv'
  const text = await readFile(file, 'utf8').catch(() => undefined)
  if (text === undefined) return absent(t, `needs ${file}`)
  const rows = text.trimEnd().split('\n').slice(1)
  const { samples, bad } = await play(file)
  assert.deepEqual(
    samples.map(({ timeMs, value }) => {
      const time = new Date(timeMs).toISOString()
      return `${time.slice(0, 10)} ${time.slice(11, 19)},${value}`
    }),
    rows.map((row) => row.trimEnd()),
  )
  assert.deepEqual(bad, [])
  const { devices } = await survey([await Trace.open(file)])
  assert.deepEqual(
    [...devices].map(([device, metrics]) => [device, [...metrics]]),
    [['machine_temperature_system_failure', [['value', 22_695]]]],
  )
})
