import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Tail } from '../../agent/outbox/tail.ts'
import { absent } from '../support/needs.ts'
import { groupOf, openOutbox } from '../support/outbox.ts'
import { Headgate } from '../support/process.ts'
import { readings } from '../support/readings.ts'
import { nabFolder, nabScorer } from '../support/recordings.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const start = Date.UTC(2026, 0, 5)

/** A week of noise about a daily cycle, one reading in five minutes, with a spike near its end. */
function week(spike: number): { time: string; value: string }[] {
  const random = new Seeded(4)
  return Array.from({ length: 2016 }, (_, row) => {
    const daily = 10 * Math.sin((row / 288) * 2 * Math.PI)
    const value = 50 + daily + random.uniform() + (row === 1900 ? spike : 0)
    const time = new Date(start + row * 300_000).toISOString().replace('T', ' ').slice(0, 19)
    return { time, value: value.toFixed(3) }
  })
}

async function traceIn(folder: string, name: string, spike = 40): Promise<string> {
  const file = join(folder, name)
  const lines = week(spike).map(({ time, value }) => `${time},${value}\n`)
  await writeFile(file, `timestamp,value\n${lines.join('')}`)
  return file
}

async function tried(t: TestContext, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await Headgate.run(t, ['filter', 'try', ...args])
  assert.equal(code, 0, stderr)
  return stdout
}

async function rowsOf(file: string): Promise<{ header: string; rows: string[][] }> {
  const [header, ...lines] = (await readFile(file, 'utf8')).trimEnd().split('\n')
  return { header: header!, rows: lines.map((line) => line.split(',')) }
}

test('without a configuration each row gets score, alarm and verdict of the default detector', async (t) => {
  const folder = await temporaryDirectory(t)
  const traces = [await traceIn(folder, 'boiler.csv'), await traceIn(folder, 'pump.csv', 0)]
  const out = join(folder, 'tried')
  await mkdir(out)
  await writeFile(join(out, 'pump.csv'), 'of an earlier time')
  await tried(t, ...traces.flatMap((trace) => ['--trace', trace]), '--out', out)
  for (const name of ['boiler.csv', 'pump.csv']) {
    const given = (await rowsOf(join(folder, name))).rows
    const { header, rows } = await rowsOf(join(out, name))
    assert.equal(header, 'timestamp,value,anomaly_score,alarm,kept,verdict')
    assert.deepEqual(
      rows.map(([time, value]) => [time, value]),
      given,
      'as in the input, row by row',
    )
    for (const [, , score, alarm, kept, verdict] of rows) {
      assert.ok(Number(score) >= 0 && Number(score) <= 1)
      assert.equal(alarm, Number(score) >= 0.5 ? '1' : '0')
      assert.deepEqual([kept, verdict], ['1', 'admitted'])
    }
    const alarms = rows.flatMap(([, , , alarm], row) => (alarm === '1' ? [row] : []))
    assert.equal(alarms.includes(1900), name === 'boiler.csv', `${name}: ${alarms}`)
  }
})

test('a configuration says what is kept, and how far the rest is off', async (t) => {
  const folder = await temporaryDirectory(t)
  const trace = await traceIn(folder, 'boiler.csv')
  const config = join(folder, 'agent.yaml')
  await writeFile(
    config,
    `decode:
  - { topic: 'plant/{device}/{metric}', format: json, unit: Cel }
filter:
  - match: { device: 'boil*', unit: Cel }
    check: { range: [0, 80] }
    detect: {}
    reduce: { error: 0.5 }
`,
  )
  const out = join(folder, 'one.csv')
  const text = await tried(t, '--config', config, '--trace', trace, '--out', out, '--json')
  const [report] = JSON.parse(text).recordings
  const { rows } = await rowsOf(out)
  const keptRows = rows.flatMap(([, , , , kept], row) => (kept === '1' ? [row] : []))
  assert.equal(report.kept, keptRows.length)
  assert.equal(report.kept + report.suppressed, 2016)
  assert.ok(report.kept < 1700)
  assert.ok(report.bytes.after < report.bytes.before)
  let worst = 0
  for (const [i, to] of keptRows.entries()) {
    const from = keptRows[i - 1] ?? to
    const [a, b] = [Number(rows[from]![1]), Number(rows[to]![1])]
    for (let row = from + 1; row < to; row++) {
      const line = a + ((b - a) * (row - from)) / (to - from)
      worst = Math.max(worst, Math.abs(Number(rows[row]![1]) - line))
      assert.equal(rows[row]![5], 'suppressed')
    }
  }
  const [series] = report.series
  assert.ok(worst > 0.3 && worst <= 0.5)
  assert.ok(Math.abs(series.largestError - worst) < 1e-9, `${series.largestError}, not ${worst}`)
  assert.equal(series.errorBound, 0.5)
  assert.ok(series.rmsError > 0.05 && series.rmsError < worst)
  const alert = report.alerts.find(
    ({ kind, timeMs }: { kind: string; timeMs: number }) =>
      kind === 'anomaly' && timeMs === start + 1900 * 300_000,
  )
  assert.equal(alert.state, 'raised')
  assert.ok(alert.score >= alert.threshold)
  assert.ok(Math.abs(series.anomaliesPerDay - (series.anomalies / 7) * (2016 / 2015)) < 1e-9)
  const range = report.alerts.filter(({ kind }: { kind: string }) => kind === 'range')
  assert.deepEqual(
    range.map(({ state }: { state: string }) => state),
    ['raised', 'cleared'],
  )
})

test('a plot draws each series, what was kept, and each alert', async (t) => {
  const folder = await temporaryDirectory(t)
  const file = join(folder, 'both.svg')
  const traces = [await traceIn(folder, 'a&b.csv'), await traceIn(folder, 'pump.csv', 0)]
  const text = await tried(t, ...traces.flatMap((trace) => ['--trace', trace]), '--plot', file)
  const svg = await readFile(file, 'utf8')
  assert.match(svg, /^<svg [\s\S]*<\/svg>\n$/)
  assert.match(svg, /a&amp;b value: [^<]* 2016 of 2016 kept/)
  const told = text.split('\n').filter((line) => / anomaly, /.test(line)).length
  assert.ok(told >= 1)
  assert.equal(svg.split('<title>anomaly ').length - 1, told)
})

test('what the agent itself received can be tried on', async (t) => {
  const folder = await temporaryDirectory(t)
  const config = { tail: { bytes: 1 << 20, age: 3_600_000 } }
  const received = [...readings(300), ...readings(200, 1, 'valve-7')]
  {
    await using outbox = await openOutbox(join(folder, 'outbox'), { config })
    await outbox.commit(groupOf([], { raw: Tail.encode(received) }))
  }
  const out = join(folder, 'tried.csv')
  const text = await tried(t, '--outbox', folder, '--out', out)
  assert.match(text, /500 readings/)
  const { header, rows } = await rowsOf(out)
  assert.equal(header, 'timestamp,device,metric,value,anomaly_score,alarm,kept,verdict')
  assert.deepEqual(
    rows.map(([, device, , value]) => [device, Number(value)]),
    received.map(({ series, value }) => [series.device, value]),
  )
})

for (const [what, args, code, words] of [
  ['nothing to try it on', [], 2, /--trace .*--outbox/],
  ['a trace that is none', ['--trace', '/none/x.csv'], 2, /x\.csv: no such file/],
  ['no outbox', ['--outbox', '/none'], 1, /holds no outbox/],
  ['no such configuration', ['--trace', 'a.csv', '--config', '/none.yaml'], 1, /--config/],
] as const)
  test(`${what} is told in one line`, async (t) => {
    const ended = await Headgate.run(t, ['filter', 'try', ...args])
    assert.equal(ended.code, code)
    assert.match(ended.stderr, words)
    assert.equal(ended.stderr.trimEnd().split('\n').length, 1)
  })

test('rows go to a file or a folder, and never over what they come from', async (t) => {
  const folder = await temporaryDirectory(t)
  const trace = await traceIn(folder, 'boiler.csv')
  const given = await readFile(trace, 'utf8')
  const ended = await Headgate.run(t, ['filter', 'try', '--trace', trace, '--out', folder])
  assert.equal(ended.code, 2)
  assert.match(ended.stderr, /would overwrite the recording/)
  assert.equal(await readFile(trace, 'utf8'), given)
  await tried(t, '--trace', trace, '--out', join(folder, 'rows.txt'))
  await tried(t, '--trace', trace, '--out', join(folder, 'results'))
  const rows = await readFile(join(folder, 'rows.txt'), 'utf8')
  assert.equal(await readFile(join(folder, 'results', 'boiler.csv'), 'utf8'), rows)
})

test('a row that is none keeps its place, and what stands there', async (t) => {
  const folder = await temporaryDirectory(t)
  const trace = join(folder, 'x.csv')
  const out = join(folder, 'out.csv')
  const begun = '2026-01-01 00:00:00,1'
  const bad = [
    'yesterday,2',
    '2026-01-01 00:00:02,',
    '2026-01-01 00:00:03,3,4',
    '2026-01-01 00:00:04',
    '2026-01-01 00:00:05,"6',
    '',
  ]
  for (const metric of ['value', 'temperature']) {
    await writeFile(trace, [`timestamp,${metric}`, begun, ...bad].join('\n'))
    await tried(t, '--trace', trace, '--out', out)
    const { header, rows } = await rowsOf(out)
    assert.equal(header, 'timestamp,value,anomaly_score,alarm,kept,verdict')
    assert.deepEqual(
      rows.map((row) => row.join()),
      [
        '2026-01-01 00:00:00,1,0,0,1,admitted',
        'yesterday,2,0,0,0,bad',
        '2026-01-01 00:00:02,,0,0,0,bad',
        '2026-01-01 00:00:03,3,0,0,0,bad',
        '2026-01-01 00:00:04,,0,0,0,bad',
        '2026-01-01 00:00:05,"""6",0,0,0,bad',
      ],
    )
  }
})

test('what a rule has no room for, and what comes behind its window, is told', async (t) => {
  const folder = await temporaryDirectory(t)
  const trace = join(folder, 'plant.csv')
  const config = join(folder, 'agent.yaml')
  await writeFile(
    trace,
    `timestamp,device,metric,value
2026-01-01 00:00:00,pump-1,flow,1
2026-01-01 00:00:00,pump-2,flow,1
2026-01-01 00:00:10,pump-1,flow,2
2026-01-01 00:00:09,pump-1,flow,3
`,
  )
  await writeFile(config, 'filter:\n  - { maxSeries: 1, window: { every: 10s, emit: [mean] } }\n')
  const text = await tried(t, '--config', config, '--trace', trace)
  assert.match(text, /kept 2 \(50\.0 %\), suppressed 0, absorbed 2, made 2/)
  assert.match(text, /\n {2}1 passed whole: of series beyond maxSeries of their rule\n/)
  assert.match(text, /\n {2}1 passed whole: came behind their window\n/)
  assert.match(text, /pump-1 flow: kept 1 of 3, absorbed 2;/)
  const [report] = JSON.parse(
    await tried(t, '--config', config, '--trace', trace, '--json'),
  ).recordings
  assert.deepEqual([report.beyondMaxSeries, report.late], [1, 1])
})

test('the default detector finds labelled anomalies of real recordings', async (t) => {
  if (!existsSync(nabFolder) || !existsSync(nabScorer)) {
    absent(t, `needs the NAB recordings and scorer beside the project: ${nabFolder}`)
    return
  }
  const folder = await temporaryDirectory(t)
  const data = join(nabFolder, 'data')
  const categories = new Map<string, string[]>()
  for (const name of globSync('*/*.csv', { cwd: data }))
    categories.set(dirname(name), [...(categories.get(dirname(name)) ?? []), join(data, name)])
  for (const [category, files] of categories)
    await tried(
      t,
      ...files.flatMap((file) => ['--trace', file]),
      ...['--out', join(folder, category)],
    )
  const windows = join(nabFolder, 'labels', 'combined_windows.json')
  const args = ['--windows', windows, '--results', folder, '--data', data]
  const { standard, reward_low_FP_rate: lowFp } = JSON.parse(
    execFileSync('python3', [nabScorer, ...args, '--threshold', '0.5', '--json'], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    }),
  )
  assert.ok(standard.score >= 66, `standard ${standard.score}`)
  assert.ok(lowFp.score >= 60, `reward_low_FP ${lowFp.score}`)
  assert.ok(standard.fp_per_10k <= 8, `${standard.fp_per_10k} false alarms in 10,000`)
  // The alarm column is what the score says at the threshold.
  const [any] = categories.keys()
  const name = globSync(join(folder, any!, '*.csv'))[0]!
  for (const line of readFileSync(name, 'utf8').trimEnd().split('\n').slice(1)) {
    const [, , score, alarm] = line.split(',')
    assert.equal(alarm === '1', Number(score) >= 0.5)
  }
})
