import type { Command } from 'commander'
import type { Document } from '../../shared/fleet/envelope.ts'
import type { DocumentCheck } from '../fleet-command.ts'
import { printJson, table } from '../print.ts'
import { readChecked } from './document.ts'
import {
  checkedAgent,
  durationOption,
  type FleetOptions,
  openFleet,
  withBroker,
} from './options.ts'
import { runCommand } from './run-command.ts'

interface RehearseOptions extends FleetOptions {
  agent: string
  file: string
  from?: string
  to?: string
  timeout: number
  json?: boolean
}

/** Adds `headgate fleet rehearse`. */
export function registerRehearse(command: Command, loadCheck: () => Promise<DocumentCheck>): void {
  withBroker(command.command('rehearse'))
    .description(
      "run a configuration's filter over a gateway's recent readings, there, applying nothing",
    )
    .requiredOption('--agent <name>', 'the gateway')
    .requiredOption('--file <doc.yaml>', 'the candidate')
    .option('--from <time>', 'readings from then on (ISO 8601)')
    .option('--to <time>', 'readings before then')
    .option('--timeout <duration>', 'how long to wait', durationOption('--timeout'), 120_000)
    .option('--json', 'print the result as JSON')
    .addHelpText('after', '\nExample:\n  headgate fleet rehearse --agent gw-001 --file doc.yaml')
    .action(async (options: RehearseOptions) => rehearse(options, await loadCheck()))
}

async function rehearse(options: RehearseOptions, check: DocumentCheck): Promise<void> {
  const document = await readChecked(options.file, check)
  const { agent, from, to, timeout } = options
  const given: Document = { document, ...(from && { from }), ...(to && { to }) }
  const { files, client } = await openFleet(options)
  await using _ = client
  const { result = {} } = await runCommand(client, files, {
    agent: checkedAgent(agent),
    command: 'rehearse',
    given,
    timeoutMs: timeout,
  })
  if (options.json) return printJson(result)
  process.stdout.write(describeRehearsal(result as unknown as Rehearsal))
}

/** What of a rehearsal's result is printed for a person. */
interface Rehearsal {
  readings: number
  from?: string
  to?: string
  truncated: boolean
  running: Record<string, number>
  candidate: Record<string, number>
  gained: object[]
  lost: object[]
  decodeDiffers: boolean
}

function describeRehearsal(rehearsal: Rehearsal): string {
  const { readings, from, to, truncated, running: now, candidate, gained, lost } = rehearsal
  const words = ['kept', 'suppressed', 'absorbed', 'derived', 'bytes', 'alerts']
  const row = (name: string, made: Record<string, number>) => [
    name,
    ...words.map((word) => String(made[word] ?? '')),
  ]
  const alerts = (what: string, list: object[]) =>
    list.map((alert) => `${what} alert: ${JSON.stringify(alert)}\n`).join('')
  return (
    `${readings} readings${from ? ` from ${from} to ${to}` : ', so nothing can be said: is outbox.tail set?'}` +
    `${truncated ? ', and there were more' : ''}\n` +
    table([['', ...words], row('running', now), row('candidate', candidate)]) +
    alerts('gained', gained) +
    alerts('lost', lost) +
    (rehearsal.decodeDiffers ? 'the candidate decodes otherwise, which is not rehearsed\n' : '')
  )
}
