import { mkdir, open, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { repeated } from '../shared/command.ts'
import { UserError } from '../shared/failure.ts'
import { Trace } from '../shared/trace.ts'
import { csvText } from '../shared/value-text.ts'
import { loadAgentSections } from './config.ts'
import { defaultRule, type FilterConfig } from './filter/filter.ts'
import { readMeta } from './outbox/format.ts'
import { openLevel } from './outbox/level.ts'
import { hasTail } from './outbox/tail.ts'
import { outboxFolder } from './outbox-command.ts'
import type { Labelling } from './trial/labelling.ts'
import { type PlottedAlert, plot } from './trial/plot.ts'
import { type Recording, recordingOfTail, recordingOfTrace } from './trial/recording.ts'
import type { SeriesTrial } from './trial/series-trial.ts'
import { summary } from './trial/summary.ts'
import { Trial, type TrialReport, type TrialRow } from './trial/trial.ts'

interface Options {
  config?: string
  trace?: string[]
  outbox?: string
  out?: string
  json?: boolean
  plot?: string
}

/** Adds `headgate filter …`. */
export function registerFilter(command: Command): void {
  command
    .command('try')
    .description('run the filter over what was recorded, and see what would have happened')
    .option('--config <file>', 'agent.yaml; without it the default detector, and no reduction')
    .option('--trace <file>', 'CSV, as `headgate sim` takes it; may be repeated', repeated)
    .option('--outbox <dir>', "a stopped agent's data folder: what its `outbox.tail` has kept")
    .option(
      '--out <path>',
      'write a CSV with score, alarm and verdict of each row: a file, or a folder',
    )
    .option('--plot <file>', 'draw series, kept readings and alerts as SVG')
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      `
Each trace is tried by itself, as if its readings came when they were measured; those of a tail come when
they came.

--out writes timestamp,value,anomaly_score,alarm,kept,verdict for each row in order, with device and metric
in front of value where a recording has several series. alarm is 1 where a detection alert is raised. A row
that cannot be read keeps its place with the verdict bad. For one recording it may name a file; a folder,
made if need be, gets files of the inputs' names. What is there is overwritten.

Examples:
  headgate filter try --trace machine_temperature.csv --plot machine.svg
  headgate filter try --config agent.yaml --trace boiler.csv --trace pump.csv --out ./tried --json
  headgate filter try --config new.yaml --outbox ./var/gw-001`,
    )
    .action(tryFilter)
}

async function tryFilter({ config, trace = [], outbox, out, json, plot: file }: Options) {
  if (trace.length === 0 && outbox === undefined)
    throw new UserError('what to try it on? name a --trace file, or an --outbox folder', {
      exitCode: 2,
    })
  const { rules, labelling } = await settings(config)
  const inputs = [...trace, ...(outbox === undefined ? [] : [`${resolve(outbox)}.csv`])]
  const targets = out === undefined ? undefined : await targetsOf(out, inputs)
  const reports: TrialReport[] = []
  const series: SeriesTrial[] = []
  const work = async (recording: Recording, input: string) => {
    const trial = new Trial(rules)
    reports.push(await run(trial, recording, targets?.get(input)))
    if (file !== undefined) series.push(...trial.series)
  }
  for (const input of trace) await work(recordingOfTrace(await Trace.open(input), labelling), input)
  if (outbox !== undefined) await withTail(outbox, (recording) => work(recording, inputs.at(-1)!))
  if (file !== undefined)
    await write(
      file,
      plot(series, reports.flatMap(({ alerts }) => alerts) as unknown as PlottedAlert[]),
    )
  if (json) process.stdout.write(`${JSON.stringify({ recordings: reports }, null, 2)}\n`)
  else for (const report of reports) process.stdout.write(`${summary(report)}\n`)
}

/** @throws UserError where there is no tail, or another process has it open */
async function withTail(
  data: string,
  work: (recording: Recording) => Promise<void>,
): Promise<void> {
  const store = await openLevel(await outboxFolder(data))
  try {
    await readMeta(store)
    if (!(await hasTail(store)))
      throw new UserError(
        `${data}: keeps no raw readings: set \`outbox.tail\` in agent.yaml, and let the agent run for a while`,
      )
    await work(recordingOfTail(data, store))
  } finally {
    await store.close()
  }
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

/** Where the rows of each recording go. */
async function targetsOf(out: string, inputs: readonly string[]): Promise<Map<string, string>> {
  const wrong = (why: string) => new UserError(`--out ${out}: ${why}`, { exitCode: 2 })
  const folder = (await stat(out).catch(() => undefined))?.isDirectory() ?? !isFileName(out)
  if (!folder && inputs.length > 1) throw wrong('several recordings need a folder')
  const targets = new Map(inputs.map((input) => [input, folder ? join(out, basename(input)) : out]))
  const files = new Set([...targets.values()].map((target) => resolve(target)))
  if (files.size < inputs.length)
    throw wrong('two recordings have the same name: try them one by one')
  if (inputs.some((input) => files.has(resolve(input))))
    throw wrong('would overwrite the recording itself: name another place')
  return targets
}

/** What is not there is taken for a file where its name ends like one's. */
function isFileName(path: string): boolean {
  return extname(path) !== '' && !path.endsWith('/')
}

async function run(
  trial: Trial,
  recording: Recording,
  target: string | undefined,
): Promise<TrialReport> {
  if (target === undefined) return drain(trial.run(recording), async () => {})
  const names = recording.single ? '' : 'device,metric,'
  try {
    await mkdir(dirname(target), { recursive: true })
    await using handle = await open(target, 'w')
    await handle.write(`timestamp,${names}value,anomaly_score,alarm,kept,verdict\n`)
    return await drain(trial.run(recording), async (rows) => {
      await handle.write(rows.map((row) => line(row, recording.single)).join(''))
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
