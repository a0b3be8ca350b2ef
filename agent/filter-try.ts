import { mkdir, open, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Command } from 'commander'
import { repeated } from '../shared/command.ts'
import { UserError } from '../shared/failure.ts'
import { formatTime } from '../shared/time-text.ts'
import { Trace } from '../shared/trace.ts'
import { csvText } from '../shared/value-text.ts'
import { loadAgentSections } from './config.ts'
import { defaultRule, type FilterConfig } from './filter/filter.ts'
import type { Labelling } from './trial/labelling.ts'
import { type PlottedAlert, plot } from './trial/plot.ts'
import type { SeriesTrial } from './trial/series-trial.ts'
import { Trial, type TrialReport, type TrialRow } from './trial/trial.ts'

interface Options {
  config?: string
  trace: string[]
  out?: string
  json?: boolean
  plot?: string
}

/** Adds `headgate filter …`. */
export function registerFilter(command: Command): void {
  command
    .command('try')
    .description('run the filter over recorded traces, and see what would have happened')
    .option('--config <file>', 'agent.yaml; without it the default detector, and no reduction')
    .requiredOption('--trace <file>', 'CSV, as `headgate sim` takes it; may be repeated', repeated)
    .option(
      '--out <path>',
      'write a CSV with score, alarm and verdict of each row: a file, or a folder',
    )
    .option('--plot <file>', 'draw series, kept readings and alerts as SVG')
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      `
Each trace is tried by itself, as if its readings arrived when they were measured.

--out writes timestamp,value,anomaly_score,alarm,kept,verdict for each row in order (with device and metric
in front of value where a trace has several series). alarm is 1 where a detection alert is raised. For one
trace it may name a .csv file; else it is a folder, made if need be, for files of the traces' names.

Examples:
  headgate filter try --trace machine_temperature.csv --plot machine.svg
  headgate filter try --config agent.yaml --trace boiler.csv --trace pump.csv --out ./tried --json`,
    )
    .action(tryFilter)
}

async function tryFilter({
  config,
  trace: files,
  out,
  json,
  plot: plotFile,
}: Options): Promise<void> {
  const { rules, labelling } = await settings(config)
  const targets = out === undefined ? undefined : await targetsOf(out, files)
  const reports: TrialReport[] = []
  const series: SeriesTrial[] = []
  for (const file of files) {
    const trace = await Trace.open(file)
    const trial = new Trial(rules, labelling)
    reports.push(await run(trial, trace, targets?.get(file)))
    if (plotFile !== undefined) series.push(...trial.series)
  }
  if (plotFile !== undefined)
    await write(
      plotFile,
      plot(series, reports.flatMap(({ alerts }) => alerts) as unknown as PlottedAlert[]),
    )
  if (json) process.stdout.write(`${JSON.stringify({ traces: reports }, null, 2)}\n`)
  else for (const report of reports) process.stdout.write(`${printed(report)}\n`)
}

async function settings(
  file: string | undefined,
): Promise<{ rules: FilterConfig; labelling: Labelling }> {
  if (file === undefined)
    return { rules: [defaultRule], labelling: { decode: [], agent: undefined } }
  const { filter, decode, agent } = await loadAgentSections(file)
  if (!filter || filter.length === 0)
    throw new UserError(
      `${file}: has no filter rules to try: add a \`filter\` section, or leave --config out`,
    )
  return { rules: filter, labelling: { decode: decode ?? [], agent } }
}

/** Where the rows of each trace go. */
async function targetsOf(out: string, files: readonly string[]): Promise<Map<string, string>> {
  const folder = (await stat(out).catch(() => undefined))?.isDirectory() ?? !/\.csv$/i.test(out)
  if (!folder) {
    if (files.length === 1) return new Map([[files[0]!, out]])
    throw new UserError(`--out ${out}: several traces need a folder`, { exitCode: 2 })
  }
  const targets = new Map(files.map((file) => [file, join(out, basename(file))]))
  if (new Set(targets.values()).size < files.length)
    throw new UserError('--out: two traces have the same name: try them one by one', {
      exitCode: 2,
    })
  return targets
}

async function run(trial: Trial, trace: Trace, target: string | undefined): Promise<TrialReport> {
  if (target === undefined) return drain(trial.run(trace), async () => {})
  try {
    await mkdir(dirname(target), { recursive: true })
    await using handle = await open(target, 'w')
    await handle.write(
      trace.single
        ? 'timestamp,value,anomaly_score,alarm,kept,verdict\n'
        : 'timestamp,device,metric,value,anomaly_score,alarm,kept,verdict\n',
    )
    return await drain(trial.run(trace), async (rows) => {
      await handle.write(rows.map((row) => line(row, trace.single)).join(''))
    })
  } catch (cause) {
    throw unwritable(target, cause)
  }
}

/** Hands each part to `take`, and returns what comes last. */
async function drain(
  rows: AsyncGenerator<TrialRow[], TrialReport>,
  take: (rows: TrialRow[]) => Promise<void>,
): Promise<TrialReport> {
  for (;;) {
    const { value, done } = await rows.next()
    if (done) return value
    await take(value)
  }
}

function line(
  { time, cell, device, metric, score, alarm, verdict }: TrialRow,
  single: boolean,
): string {
  const names = single ? '' : `${csvText(device)},${csvText(metric)},`
  const kept = verdict === 'admitted' ? 1 : 0
  return `${csvText(time)},${names}${csvText(cell)},${score},${alarm ? 1 : 0},${kept},${verdict}\n`
}

/** Series and alerts told one by one. */
const maxSeriesLines = 50
const maxAlertLines = 50

function printed({
  file,
  readings,
  kept,
  suppressed,
  absorbed,
  derived,
  badRows,
  bytes,
  series,
  alerts,
}: TrialReport): string {
  const share = (part: number) => `${((100 * part) / Math.max(1, readings)).toFixed(1)} %`
  const lines = [
    `${file}: ${count(readings)} readings` + (badRows > 0 ? `, ${count(badRows)} bad rows` : ''),
    `  kept ${count(kept)} (${share(kept)}), suppressed ${count(suppressed)}, absorbed ${count(absorbed)}` +
      (derived > 0 ? `, made ${count(derived)}` : ''),
    `  on the wire ${count(bytes.after)} bytes instead of ${count(bytes.before)}`,
  ]
  for (const one of series.slice(0, maxSeriesLines)) {
    const {
      device,
      metric,
      largestError,
      errorBound,
      rmsError,
      anomalies,
      anomaliesPerDay,
      faults,
    } = one
    const error =
      one.suppressed > 0
        ? `, off by at most ${short(largestError)} (bound ${short(errorBound)}), RMS ${short(rmsError)}`
        : ''
    lines.push(
      `  ${device} ${metric}: kept ${count(one.kept)} of ${count(one.readings)}${error}; ` +
        `${anomalies} anomalies (${short(anomaliesPerDay)} a day), ${faults} faults`,
    )
  }
  if (series.length > maxSeriesLines)
    lines.push(`  … and ${series.length - maxSeriesLines} more series`)
  const raised = alerts.filter(({ state }) => state === 'raised')
  for (const alert of raised.slice(0, maxAlertLines)) lines.push(`  ${alertLine(alert)}`)
  if (raised.length > maxAlertLines)
    lines.push(`  … and ${raised.length - maxAlertLines} more alerts (--json has all)`)
  return lines.join('\n')
}

/** Faults whose findings are times, ms. */
const timeFaults = ['stuck', 'missing', 'future', 'backwards']

function alertLine(alert: TrialReport['alerts'][number]): string {
  const { timeMs, kind, device, metric, value, score, expected, found, limit } = alert
  const told = (finding: unknown) =>
    typeof finding !== 'number'
      ? String(finding)
      : timeFaults.includes(kind as string)
        ? `${short(finding / 1000)} s`
        : short(finding)
  const details = [
    value === undefined ? '' : `value ${value}`,
    typeof expected === 'number' ? `expected ${short(expected)}` : '',
    typeof score === 'number' ? `score ${score.toFixed(2)}` : '',
    typeof found === 'number' && found !== value ? `found ${told(found)}` : '',
    limit === undefined ? '' : `limit ${Array.isArray(limit) ? limit.join(' to ') : told(limit)}`,
  ].filter((detail) => detail !== '')
  return `${formatTime(timeMs as number)} ${kind}, ${device} ${metric}: ${details.join(', ')}`
}

const count = (number: number) => number.toLocaleString('en')
const short = (number: number) => String(Number(number.toPrecision(4)))

async function write(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text)
  } catch (cause) {
    throw unwritable(file, cause)
  }
}

/** One line on why a file cannot be written; other errors stay as they are. */
function unwritable(file: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException
  return code === undefined
    ? cause
    : new UserError(`${file}: cannot be written (${code})`, { cause })
}
