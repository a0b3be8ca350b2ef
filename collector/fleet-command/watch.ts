import type { Command } from 'commander'
import { stopSignal } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import { type CommandName, commandNames } from '../../shared/fleet/reports.ts'
import { printJson, table } from '../print.ts'
import type { AgentView } from './client.ts'
import {
  checkedAgent,
  durationOption,
  type FleetOptions,
  openFleet,
  withBroker,
} from './options.ts'
import { lines, runCommand } from './run-command.ts'

/** Adds the commands that look at gateways, and have them do something once. */
export function registerWatch(command: Command): void {
  withBroker(command.command('ls'))
    .description('list the agents: who is there, what each is to run and runs')
    .option('--group <group>', 'only of a group: boilers, or site=berlin,line=3')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  headgate fleet ls --group boilers')
    .action(list)
  withBroker(command.command('show'))
    .argument('<agent>')
    .description('all that is known of one agent')
    .option('--json', 'print JSON')
    .action(async (agent: string, options: FleetOptions & { json?: boolean }) => {
      const { client } = await openFleet(options)
      await using _ = client
      const view = await client.agent(checkedAgent(agent))
      if (options.json) return printJson(view)
      process.stdout.write(`${lines(view).join('\n')}\n`)
    })
  withBroker(command.command('watch'))
    .argument('[agent]', 'only this one')
    .description('what agents report and what is done to the fleet, as JSON lines, until Ctrl-C')
    .action(watch)
  withBroker(command.command('command'))
    .argument('<command>', commandNames.filter((name) => name !== 'rehearse').join(', '))
    .requiredOption('--agent <name>', 'the gateway')
    .option('--from <time>', 'resend: readings from then on (ISO 8601)')
    .option('--to <time>', 'resend: readings before then')
    .option('--device <name>', 'resend: only of this device')
    .option('--metric <name>', 'resend: only of this metric')
    .option(
      '--timeout <duration>',
      'it is not begun any more after',
      durationOption('--timeout'),
      60_000,
    )
    .description('have a gateway do something, once, and print what comes of it as JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  headgate fleet command flush --agent gw-001\n' +
        '  headgate fleet command resend --agent gw-001 --from 2026-01-31T08:00:00Z --to 2026-01-31T09:00:00Z --device pump-1',
    )
    .action(run)
}

async function list(options: FleetOptions & { group?: string; json?: boolean }): Promise<void> {
  const { client } = await openFleet(options)
  await using _ = client
  const agents = await client.agents(options.group)
  if (options.json) return printJson(agents)
  const head = ['agent', 'state', 'runs', 'desired', 'last heard', 'labels']
  process.stdout.write(table([head, ...agents.map(row)]))
}

function row({ agent, labels, online, revokedAt, desired, reported, lastHeardAt }: AgentView) {
  const state = reported && reported.desired !== null ? reported.state : ''
  return [
    agent,
    revokedAt ? 'revoked' : `${online ? 'online' : 'offline'}${state ? `, ${state}` : ''}`,
    reported ? (reported.version === 0 ? 'own file' : String(reported.version)) : '',
    desired === undefined ? '' : String(desired),
    lastHeardAt ?? '',
    Object.entries(labels)
      .map(([name, value]) => `${name}=${value}`)
      .join(' '),
  ]
}

async function watch(agent: string | undefined, options: FleetOptions): Promise<void> {
  const { client } = await openFleet(options)
  await using _ = client
  const signal = stopSignal()
  try {
    for await (const news of client.events(signal))
      if (agent === undefined || news.agent === agent)
        process.stdout.write(`${JSON.stringify(news)}\n`)
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

interface CommandOptions extends FleetOptions {
  agent: string
  from?: string
  to?: string
  device?: string
  metric?: string
  timeout: number
}

async function run(name: string, options: CommandOptions): Promise<void> {
  if (!(commandNames as readonly string[]).includes(name) || name === 'rehearse')
    throw new UserError(`no command "${name}": one of ${commandNames.join(', ')}`, { exitCode: 2 })
  const given: Document = {}
  for (const key of ['from', 'to', 'device', 'metric'] as const) {
    const value = options[key]
    if (value === undefined) continue
    if (name !== 'resend')
      throw new UserError(`--${key} goes with resend, not with ${name}`, { exitCode: 2 })
    given[key] = value
  }
  const { files, client } = await openFleet(options)
  await using _ = client
  const result = await runCommand(client, files, {
    agent: checkedAgent(options.agent),
    command: name as CommandName,
    given,
    timeoutMs: options.timeout,
  })
  printJson(result)
}
