import type { Command } from 'commander'
import { sleep } from '../../shared/clock.ts'
import { stopSignal } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import { systemClock } from '../../shared/system.ts'
import { type Amount, parseAmount } from '../fleet/rollout.ts'
import type { DocumentCheck } from '../fleet-command.ts'
import { printJson } from '../print.ts'
import type { FleetClient, RolloutView } from './client.ts'
import { checkedGroup, diffText, documentOf, expires, readChecked, runs, seal } from './document.ts'
import { durationOption, type FleetOptions, openApi, withFleet } from './options.ts'
import { Progress } from './progress.ts'

const lookEveryMs = 250

interface RolloutOptions extends FleetOptions {
  group: string
  file: string
  waves: string
  pause: number
  maxFailures: string
  minGood: string
  timeout: number
  revert?: boolean
  expires: number
  wait: boolean
}

/** Adds `headgate fleet rollout` and what looks after rollouts. */
export function registerRollout(command: Command, loadCheck: () => Promise<DocumentCheck>): void {
  withFleet(command.command('rollout'))
    .description('send a configuration to a group in waves, as long as all goes well')
    .requiredOption('--group <group>', 'boilers, or site=berlin,line=3')
    .requiredOption('--file <doc.yaml>', "as an agent.yaml, less what is the gateway's own")
    .option('--waves <list>', 'how many have it after each wave', '1,10%,100%')
    .option('--pause <duration>', 'between waves', durationOption('--pause'), 600_000)
    .option('--max-failures <n|p%>', 'halt when more have failed', '0')
    .option('--min-good <p%>', 'share that must be good before the next wave', '90%')
    .option(
      '--timeout <duration>',
      'halt when a wave takes longer',
      durationOption('--timeout'),
      3_600_000,
    )
    .option('--revert', 'when it halts, send those that have it what they had before')
    .option(...expires)
    .option('--no-wait', 'do not watch it; the collector goes on with it either way')
    .addHelpText(
      'after',
      '\nExample:\n  headgate fleet rollout --group boilers --file doc.yaml --waves 1,10%,100% --pause 10m --revert',
    )
    .action(async (options: RolloutOptions) => rollout(options, await loadCheck()))
  withFleet(command.command('rollouts'))
    .argument('[id]', 'one of them')
    .description('how far the rollouts are')
    .option('--json', 'print JSON')
    .action(async (id: string | undefined, options: FleetOptions & { json?: boolean }) => {
      const { client } = await openApi(options)
      await using _ = client
      const found = id === undefined ? await client.rollouts() : [await client.rolloutOf(id)]
      if (options.json) return printJson(found)
      for (const view of found) process.stdout.write(`${describe(view)}\n`)
    })
  for (const what of ['halt', 'resume'] as const)
    withFleet(command.command(what))
      .argument('<rollout>', 'its id')
      .description(what === 'halt' ? 'stop a rollout where it is' : 'let a halted rollout go on')
      .action(async (id: string, options: FleetOptions) => {
        const { client } = await openApi(options)
        await using _ = client
        process.stdout.write(`${describe(await client.steer(id, what))}\n`)
      })
}

async function rollout(options: RolloutOptions, check: DocumentCheck): Promise<void> {
  const group = checkedGroup(options.group)
  const plan = {
    waves: options.waves.split(',').map((wave) => checkedAmount('--waves', wave)),
    pauseMs: options.pause,
    maxFailures: checkedAmount('--max-failures', options.maxFailures),
    minGoodPercent: checkedPercent('--min-good', options.minGood),
    timeoutMs: options.timeout,
  }
  const document = await readChecked(options.file, check)
  const { files, client } = await openApi(options)
  await using _ = client
  const members = await client.agents(group)
  if (members.length === 0) throw new UserError(`nobody is in group ${group}`)
  const version = (await client.version()) + 1
  const before = [...Map.groupBy(members, runs)]
  for (const [desired] of before)
    if (desired !== undefined)
      process.stdout.write(
        diffText(await documentOf(client, files, desired), document, `version ${desired}`),
      )
  const reverts = []
  if (options.revert)
    for (const [desired, views] of before) {
      if (desired === undefined) continue // The gateway's own file: only the agent itself goes back to it.
      const old = await documentOf(client, files, desired)
      if (!old)
        throw new UserError(
          `what version ${desired} was is not known here, so nobody can be sent it again: leave --revert out`,
        )
      reverts.push({
        envelope: seal(files, { group }, version + 1 + reverts.length, old, options.expires),
        agents: views.map(({ agent }) => agent),
      })
    }
  const envelope = seal(files, { group }, version, document, options.expires)
  const started = await client.rollout({ ...plan, envelope, reverts })
  process.stdout.write(`rollout ${started.id}: version ${version} to ${members.length} agents\n`)
  if (options.wait) await untilDone(client, started)
}

/** @throws UserError when it halts */
async function untilDone(client: FleetClient, started: RolloutView): Promise<void> {
  const signal = stopSignal()
  using progress = new Progress()
  for (let view = started; ; view = await client.rolloutOf(view.id)) {
    progress.show(describe(view))
    if (view.phase === 'finished') return
    if (view.phase === 'halted') throw new UserError(`rollout ${view.id} has halted: ${view.why}`)
    await sleep(systemClock, lookEveryMs, signal)
  }
}

function describe(view: RolloutView): string {
  const { id, group, version, phase, waves, wavesPlanned, members, good, failed, pending } = view
  return (
    `rollout ${id}: version ${version} to ${group}, wave ${waves.length}/${wavesPlanned}, ` +
    `${good} good, ${failed} failed, ${pending} pending of ${members}, ${phase}` +
    (view.why ? ` (${view.why})` : '') +
    (view.reverted > 0 ? `, ${view.reverted} sent back` : '')
  )
}

function checkedAmount(name: string, text: string): Amount {
  const amount = parseAmount(text)
  if (!amount)
    throw new UserError(`${name} takes numbers or shares such as 1 or 10%, not "${text}"`, {
      exitCode: 2,
    })
  return amount
}

function checkedPercent(name: string, text: string): number {
  const amount = parseAmount(text)
  if (!amount || !('percent' in amount))
    throw new UserError(`${name} takes a share such as 90%, not "${text}"`, { exitCode: 2 })
  return amount.percent
}
