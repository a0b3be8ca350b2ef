import { once } from 'node:events'
import type { Command } from 'commander'
import type { LogClient } from '../shared/client.ts'
import { type AskOptions, asking, clientOf } from './ask.ts'
import { printJson, table } from './print.ts'
import type { SinkStatus } from './sinks/runner.ts'

interface CollectorOptions extends AskOptions {
  json?: boolean
}
type RangeOptions = CollectorOptions & { from?: string; to?: string }

/** Adds `headgate sink …`. */
export function registerSink(command: Command): void {
  withCollector(command.command('ls'), 'list the sinks: how far each is, and what troubles it')
    .option('--json', 'print one JSON document')
    .addHelpText('after', '\nExample:\n  headgate sink ls --collector http://127.0.0.1:7070')
    .action(list)
  for (const what of ['pause', 'resume'] as const)
    withCollector(
      command.command(what).argument('<name>'),
      what === 'pause'
        ? 'have a sink write nothing, over restarts too, until it is resumed'
        : 'have a sink go on where it was',
    )
      .option('--json', 'print one JSON document')
      .addHelpText('after', `\nExample:\n  headgate sink ${what} history`)
      .action(async (name: string, options: CollectorOptions) => {
        await show(await change(options, name, what, {}), options)
      })
  withCollector(
    command.command('backfill').argument('<name>'),
    'have a range written again, up to where the sink is; what is new goes on beside it',
  )
    .option('--from <offset|time>', 'first offset, or time in ISO 8601; default: the beginning')
    .option('--to <offset|time>', 'offset or time before which to stop')
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      '\nExample:\n  headgate sink backfill history --from 2026-01-31T08:00:00Z',
    )
    .action(async (name: string, { from, to, ...options }: RangeOptions) => {
      await show(await change(options, name, 'backfill', { from, to }), options)
    })
  withCollector(
    command.command('dead').argument('<name>'),
    'print what the output would not take: when, why and the record, a JSON document a line',
  )
    .addHelpText('after', '\nExample:\n  headgate sink dead history')
    .action(async (name: string, options: CollectorOptions) => {
      await ask(options, async (client) => {
        for await (const chunk of await client.bytes(pathOf(name, 'dead')))
          if (!process.stdout.write(chunk)) await once(process.stdout, 'drain')
      })
    })
}

function withCollector(command: Command, description: string): Command {
  return command
    .description(description)
    .option('--collector <url>', 'the running collector', 'http://127.0.0.1:7070')
    .option('--fleet <dir>', "with the certificate of a manager, in a fleet's folder")
    .option('--token-file <file>', "with a manager's token")
}

async function list(options: CollectorOptions): Promise<void> {
  const answer = await ask(options, (client) => client.json('/v1/sinks'))
  const { sinks } = answer as { sinks: SinkStatus[] }
  if (options.json) return printJson(sinks)
  if (sinks.length === 0) process.stdout.write('no sinks: see `sinks` in collector.yaml\n')
  else process.stdout.write(describe(sinks))
}

async function change(
  options: CollectorOptions,
  name: string,
  what: string,
  body: object,
): Promise<SinkStatus> {
  const answer = await ask(options, (client) => client.post(pathOf(name, what), body))
  return answer as SinkStatus
}

async function show(status: SinkStatus, options: CollectorOptions): Promise<void> {
  if (options.json) printJson(status)
  else process.stdout.write(describe([status]))
}

function describe(sinks: readonly SinkStatus[]): string {
  const head = ['sink', 'kind', 'stream', 'phase', 'behind', 'written', 'refused', 'failures']
  const rows = sinks.map(
    ({ name, kind, stream, phase, at, behind, written, refused, failures }) => [
      name,
      kind,
      stream,
      at === undefined ? phase : `${phase} (${at})`,
      ...[behind, written, refused, failures].map(String),
    ],
  )
  const notes = sinks.flatMap(({ name, problem, again }) => [
    ...(problem ? [`${name}: ${problem.message} (${problem.at})\n`] : []),
    ...(again ? [`${name}: ${again.left} offsets are being written again\n`] : []),
  ])
  return table([head, ...rows]) + notes.join('')
}

async function ask<T>(options: AskOptions, work: (client: LogClient) => Promise<T>): Promise<T> {
  const client = await clientOf(options)
  return asking(options.collector, () => work(client))
}

function pathOf(sink: string, what: string): string {
  return `/v1/sinks/${encodeURIComponent(sink)}/${what}`
}
