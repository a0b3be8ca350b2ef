import type { IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Command } from 'commander'
import { UserError } from '../shared/failure.ts'
import { credentials } from './log-command.ts'
import { printJson, table } from './print.ts'
import type { SinkStatus } from './sinks/runner.ts'

interface CollectorOptions {
  collector?: string
  fleet?: string
  tokenFile?: string
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
      const lines = await ask(options, 'GET', `/${encodeURIComponent(name)}/dead`)
      for await (const chunk of lines) process.stdout.write(chunk)
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
  const answer = await text(await ask(options, 'GET', ''))
  const { sinks } = JSON.parse(answer) as { sinks: SinkStatus[] }
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
  const answer = await ask(options, 'POST', `/${encodeURIComponent(name)}/${what}`, body)
  return JSON.parse(await text(answer)) as SinkStatus
}

async function show(status: SinkStatus, options: CollectorOptions): Promise<void> {
  if (options.json) printJson(status)
  else process.stdout.write(describe([status]))
}

function describe(sinks: readonly SinkStatus[]): string {
  const head = ['sink', 'kind', 'stream', 'phase', 'behind', 'written', 'refused', 'failures']
  const rows = sinks.map(({ name, kind, stream, phase, behind, written, refused, failures }) => [
    name,
    kind,
    stream,
    phase,
    ...[behind, written, refused, failures].map(String),
  ])
  const notes = sinks.flatMap(({ name, problem, again }) => [
    ...(problem ? [`${name}: ${problem.message} (${problem.at})\n`] : []),
    ...(again ? [`${name}: ${again.left} offsets are being written again\n`] : []),
  ])
  return table([head, ...rows]) + notes.join('')
}

async function ask(
  options: CollectorOptions,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<IncomingMessage> {
  const url = options.collector!.replace(/\/+$/, '')
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new UserError(
      `--collector takes an address such as http://127.0.0.1:7070, not "${url}"`,
      { exitCode: 2 },
    )
  const { request } = url.startsWith('https:')
    ? await import('node:https')
    : await import('node:http')
  const { token, tls } = await credentials(options)
  const headers = {
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
    ...(body && { 'content-type': 'application/json' }),
  }
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const settings = { ...tls, allowPartialTrustChain: true, method, headers }
    request(`${url}/v1/sinks${path}`, settings, resolve)
      .on('error', reject)
      .end(body && JSON.stringify(body))
  }).catch((cause: NodeJS.ErrnoException) => {
    const why =
      cause.code === 'ECONNREFUSED' ? 'nobody listens there: is it running?' : cause.message
    throw new UserError(`${url}: ${why}`, { cause })
  })
  if (answer.statusCode === 200) return answer
  throw new UserError(`${url}: ${messageOf(await text(answer)) ?? `answers ${answer.statusCode}`}`)
}

/** What a collector says in an answer; a proxy's page, say, has none. */
function messageOf(body: string): string | undefined {
  try {
    return (JSON.parse(body) as { message?: string }).message
  } catch {
    return undefined
  }
}
