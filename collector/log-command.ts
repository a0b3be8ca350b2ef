import { existsSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { GroupConsumer } from '../shared/client.ts'
import { stopSignal } from '../shared/command.ts'
import { parseDuration } from '../shared/config.ts'
import { UserError } from '../shared/failure.ts'
import type { Stream } from '../shared/reading.ts'
import { systemClock } from '../shared/system.ts'
import { type AskOptions, asking, clientOf } from './ask.ts'
import { type CompletenessAnswer, describeCompleteness } from './completeness.ts'
import { completeness } from './fanout/completeness.ts'
import { type LogReader, nextOffsets, type Query, startsNowhere } from './fanout/fanout.ts'
import { type ShapeName, shapeOf, shapes } from './fanout/shape.ts'
import type { VerifyReport } from './log/audit.ts'
import { nodeDisk } from './log/embedded/disk.ts'
import { FolderView } from './log/embedded/folder-view.ts'
import { verifyLog } from './log/embedded/verify.ts'
import { LogFailure } from './log/engine.ts'
import { table } from './print.ts'
import {
  type CompletenessText,
  checkPartitions,
  parseCompleteness,
  parseQuery,
  QueryProblem,
  type QueryText,
} from './query.ts'
import { RemoteLog, toItem } from './remote-log.ts'
import { describe } from './streams.ts'

interface SourceOptions extends AskOptions {
  data?: string
  json?: boolean
}
type ReadOptions = SourceOptions &
  QueryText & { format: ShapeName; group?: string; consumer?: string; lease?: string }

/** Adds `headgate log …`. */
export function registerLog(command: Command): void {
  withSource(command.command('ls'), 'list the streams: how much, which offsets, which times')
    .option('--json', 'print one JSON document')
    .addHelpText('after', '\nExample:\n  headgate log ls --data ./var/collector')
    .action(act(list))
  withSource(command.command('cat'), 'print records').addHelpText(
    'after',
    '\nExamples:\n  headgate log cat --data ./var/collector --from 1000 --to 2000\n' +
      '  headgate log cat --collector http://127.0.0.1:7070 --from 2026-01-31T08:00:00Z --device pump-1',
  )
  withSource(command.command('tail'), 'print records as they come')
    .addHelpText(
      'after',
      '\nExamples:\n  headgate log tail --data ./var/collector --format ndjson\n' +
        '  headgate log tail --collector http://127.0.0.1:7070 --group etl --consumer etl-1 --format ndjson',
    )
    .option('--group <name>', 'as one of this group, which has each record once it is printed')
    .option('--consumer <name>', 'its name in the group, the same over its restarts')
    .option('--lease <time>', 'how long what it holds waits for it when it is not heard', '30s')
  for (const name of ['cat', 'tail'] as const)
    command.commands
      .find((found) => found.name() === name)!
      .option('--stream <name>', 'readings, alerts, quarantine, gaps or ledger', 'readings')
      .option('--from <offset|time>', 'first offset, or time in ISO 8601')
      .option('--to <offset|time>', 'offset or time before which to stop')
      .option('--partition <n>', 'only of this partition')
      .option('--device <name>', 'only of this device')
      .option('--metric <name>', 'only of this metric')
      .addOption(new Option('--format <format>', 'how to print').choices(shapes).default('csv'))
      .option('--json', 'the same as --format ndjson')
      .action(act((options: ReadOptions) => (name === 'cat' ? cat(options) : tail(options))))
  withSource(command.command('complete'), "say whether a device's readings of some time are whole")
    .requiredOption('--device <name>', 'of this device')
    .requiredOption('--from <time>', 'from this time on, ISO 8601')
    .requiredOption('--to <time>', 'up to this time')
    .option('--agent <name>', 'only as far as this agent knows the device')
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      '\nExits with 0 when complete, 1 when incomplete or not known, 3 when it is too early to say.\n' +
        '\nExample:\n  headgate log complete --collector http://127.0.0.1:7070 --device pump-1 \\\n' +
        '    --from 2026-01-31T08:00:00Z --to 2026-01-31T09:00:00Z',
    )
    .action(act(complete))
  withSource(command.command('verify'), 'check every frame, batch and sequence')
    .option('--json', 'print one JSON document')
    .addHelpText('after', '\nExample:\n  headgate log verify --data ./var/collector')
    .action(act(verify))
  command
    .command('repair')
    .description('cut what a crash left, set aside what makes no sense, say what stays damaged')
    .requiredOption('--data <dir>', "a stopped collector's data folder, or that of an `up`")
    .option('--json', 'print one JSON document')
    .addHelpText('after', '\nExample:\n  headgate log repair --data ./var/collector')
    .action(act(repair))
}

function withSource(command: Command, description: string): Command {
  return command
    .description(description)
    .option('--data <dir>', "a collector's data folder, or that of an `up`; it may be running")
    .option('--collector <url>', 'ask a running collector')
    .option('--fleet <dir>', "with the certificate of a manager or a reader, in a fleet's folder")
    .option('--token-file <file>', 'with a token')
}

/** A wrong call ends with exit code 2. */
function act<Options>(action: (options: Options) => Promise<void>) {
  return async (options: Options): Promise<void> => {
    try {
      await action(options)
    } catch (error) {
      if (error instanceof QueryProblem) throw new UserError(error.message, { exitCode: 2 })
      throw error
    }
  }
}

type Streams = Record<
  string,
  { readings: number; batches: number; bytes: number; first: number; next: number } & {
    from?: string
    to?: string
  }
>

async function list(options: SourceOptions): Promise<void> {
  const source = sourceOf(options)
  const streams =
    source.kind === 'folder'
      ? (describe(await (await openView(source.folder)).statistics()) as Streams)
      : ((await fetchJson(options, '/v1/streams')) as Streams)
  if (options.json) return print(`${JSON.stringify(streams, null, 2)}\n`)
  const rows = Object.entries(streams).map(([name, { readings, batches, bytes, ...rest }]) => [
    name,
    String(readings),
    String(batches),
    String(bytes),
    rest.next > rest.first ? `${rest.first} to ${rest.next - 1}` : '',
    rest.from ?? '',
    rest.to ?? '',
  ])
  const head = ['stream', 'records', 'batches', 'bytes', 'offsets', 'from', 'to']
  await print(table([head, ...rows]))
}

async function cat(options: ReadOptions): Promise<void> {
  const query = parseQuery(options)
  await asking(options.collector, async () =>
    printRecords(await open(options, query.stream), query, shapeIn(options)),
  )
}

async function tail(options: ReadOptions): Promise<void> {
  const query: Query = { ...parseQuery(options), follow: true, signal: stopSignal() }
  const shape = shapeIn(options)
  if (shape === 'parquet') throw new QueryProblem('a Parquet file has an end: take cat')
  await asking(options.collector, async () => {
    if (options.group !== undefined) return followGroup(options, query, shape)
    const log = await open(options, query.stream)
    // A collector begins there by itself.
    if (log instanceof FolderView && startsNowhere(query))
      query.fromOffsets = await nextOffsets(log, query.stream)
    await printRecords(log, query, shape)
  })
}

/** Prints what a group has not had yet, and commits what is printed. */
async function followGroup(options: ReadOptions, query: Query, name: ShapeName): Promise<void> {
  const { group = '', consumer = `${hostname()}-${process.pid}`, collector } = options
  if (collector === undefined)
    throw new UserError('a group is read from a running collector: give --collector', {
      exitCode: 2,
    })
  const { stream, signal } = query
  const client = await clientOf(options)
  if (!startsNowhere(query) || query.toOffset !== undefined || query.partition !== undefined)
    throw new QueryProblem(
      'a group knows itself where it is: leave out --from, --to and --partition',
    )
  const leaseMs = parseDuration(options.lease ?? '30s')
  if (leaseMs === undefined) throw new QueryProblem('--lease takes a duration such as 30s')
  const reader = new GroupConsumer({ client, group, stream, consumer, leaseMs })
  // For ever, as the group itself is read: a consumer is no person who waits.
  const remote = await client.persist(() => RemoteLog.open(client, stream), signal)
  const shape = shapeOf(name, stream)
  await print(shape.head)
  for await (const passage of reader.passages(signal!)) {
    const item = toItem(passage, stream)
    // One batch as a log of its own; what gateways' clocks were is asked of the whole.
    const one: LogReader = {
      partitions: 1,
      read: (asked) => (asked.stream === stream && asked.follow ? only(item) : remote.read(asked)),
    }
    for await (const { chunk, damage } of shape.read(one, query)) {
      await print(chunk)
      if (damage) warnOfDamage(damage.first, damage.last)
    }
    await reader.commit(passage, signal)
  }
  await reader.leave().catch(() => {}) // Else its lease ends by itself.
}

async function* only<T>(item: T): AsyncGenerator<T> {
  yield item
}

function shapeIn({ json, format }: ReadOptions): ShapeName {
  return json ? 'ndjson' : format
}

/** The log to read, here or at a collector. */
async function open(options: ReadOptions, stream: Stream): Promise<LogReader> {
  const source = sourceOf(options)
  if (source.kind === 'folder') return openView(source.folder)
  return RemoteLog.open(await clientOf(options), stream)
}

/** A JSON document of a collector's. */
async function fetchJson(options: SourceOptions, path: string): Promise<unknown> {
  const client = await clientOf(options)
  return asking(options.collector, () => client.json(path))
}

/** Prints at the pace of whoever reads it. */
async function printRecords(log: LogReader, query: Query, name: ShapeName): Promise<void> {
  checkPartitions(query, log.partitions)
  const shape = shapeOf(name, query.stream)
  await print(shape.head)
  for await (const { chunk, damage } of shape.read(log, query)) {
    await print(chunk)
    if (damage) warnOfDamage(damage.first, damage.last)
  }
  await print(shape.end())
}

function warnOfDamage(first: number, last: number): void {
  process.stderr.write(
    `headgate: offsets ${first} to ${last} are damaged (see headgate log verify)\n`,
  )
  process.exitCode = 1
}

async function complete(options: SourceOptions & CompletenessText): Promise<void> {
  const question = parseCompleteness(options)
  const source = sourceOf(options)
  const answer =
    source.kind === 'folder'
      ? describeCompleteness(question, await completeness(await openView(source.folder), question))
      : ((await fetchJson(options, completenessPath(options))) as CompletenessAnswer)
  process.exitCode = { complete: 0, incomplete: 1, unknown: 1, not_yet: 3 }[answer.state]
  await print(options.json ? `${JSON.stringify(answer, null, 2)}\n` : tellCompleteness(answer))
}

function completenessPath(options: CompletenessText): string {
  const parameters = new URLSearchParams()
  for (const name of ['device', 'from', 'to', 'agent'] as const)
    if (options[name] !== undefined) parameters.set(name, options[name])
  return `/v1/completeness?${parameters}`
}

const stateTexts: Record<CompletenessAnswer['state'], string> = {
  complete: 'complete',
  incomplete: 'incomplete',
  not_yet: 'not yet',
  unknown: 'unknown: nobody has sent this device then, or in the day before',
}

function tellCompleteness(answer: CompletenessAnswer): string {
  const { state, asOf, readings, device, from, to, missing, waiting } = answer
  const lines = [
    `${device} ${from} to ${to}: ${stateTexts[state]}${asOf ? `, as of ${asOf}` : ''}`,
    `${readings} readings`,
    ...missing.map(({ agent = 'the log', reason, count, atLeast, metrics, from, to }) => {
      const many = count === undefined ? 'maybe some' : `${atLeast ? 'at least ' : ''}${count}`
      const what = metrics.length > 0 ? ` of ${metrics.join(', ')}` : ''
      const when = from || to ? `, ${from ?? '…'} to ${to ?? '…'}` : ''
      return `missing: ${many}${what}${when} (${agent}: ${reason})`
    }),
    ...waiting.map(({ agent, reason, heard, settled }) => {
      const last = heard ? `last report ${heard}` : 'no report yet'
      return `waiting: ${agent} ${reason}, ${last}${settled ? `, settled up to ${settled}` : ''}`
    }),
  ]
  return `${lines.join('\n')}\n`
}

async function verify(options: SourceOptions): Promise<void> {
  const source = sourceOf(options)
  let report: VerifyReport
  if (source.kind === 'folder') {
    await openView(source.folder) // Says when there is no log.
    report = await verifyLog(nodeDisk(source.folder))
  } else report = (await fetchJson(options, '/v1/verify')) as VerifyReport
  const { problems, segments, frames, bytes, lanes, records } = report
  if (problems.length > 0) process.exitCode = 1
  if (options.json) return print(`${JSON.stringify(report, null, 2)}\n`)
  const counts = Object.entries(records).map(([stream, count]) => `${count} ${stream}`)
  await print(
    `${segments} segments, ${frames} frames, ${bytes} bytes, ${lanes} lanes: ${counts.join(', ')}\n` +
      (problems.length === 0 ? 'all of it is whole\n' : `${problems.join('\n')}\n`),
  )
}

async function repair(options: SourceOptions): Promise<void> {
  const source = sourceOf(options)
  if (source.kind !== 'folder') return
  await openView(source.folder) // Says when there is no log.
  const { repairLog } = await import('./log-repair.ts')
  const report = await repairLog(source.folder)
  const { repaired, problems } = report
  if (problems.length > 0) process.exitCode = 1
  if (options.json) return print(`${JSON.stringify(report, null, 2)}\n`)
  const done = repaired.length > 0 ? repaired : ['nothing to repair']
  const left = problems.length > 0 ? ['what stays damaged:', ...problems] : ['all of it is whole']
  await print(`${[...done, ...left].join('\n')}\n`)
}

type Source = { kind: 'folder'; folder: string } | { kind: 'url' }

function sourceOf(options: SourceOptions): Source {
  const { data, collector } = options
  if ((data === undefined) === (collector === undefined))
    throw new UserError('name the log with either --data or --collector', { exitCode: 2 })
  if (collector !== undefined) return { kind: 'url' }
  // The folder of an `up` has the collector's inside.
  const inside = join(data!, 'collector')
  return { kind: 'folder', folder: existsSync(inside) ? inside : data! }
}

async function openView(folder: string): Promise<FolderView> {
  try {
    if (!statSync(folder).isDirectory()) throw new UserError(`${folder} is no folder`)
    const view = await FolderView.open(nodeDisk(folder), systemClock)
    if (view) return view
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EACCES') throw new UserError(`${folder}: no permission to read it`, { cause })
    if (cause instanceof LogFailure) throw new UserError(`${folder}: ${cause.message}`, { cause })
    if (code !== 'ENOENT') throw cause
  }
  throw new UserError(`${folder}: no log here: --data takes a collector's data folder`)
}

function print(text: string | Uint8Array): Promise<void> | void {
  if (text.length > 0 && !process.stdout.write(text))
    return new Promise((resolve) => process.stdout.once('drain', () => resolve()))
}
