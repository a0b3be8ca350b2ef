import type { Command } from 'commander'
import { sleep } from '../../shared/clock.ts'
import { stopSignal } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import type { Document, Target } from '../../shared/fleet/envelope.ts'
import { systemClock } from '../../shared/system.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import type { DocumentCheck } from '../fleet-command.ts'
import type { AgentView, FleetAccess } from './client.ts'
import { checkedGroup, documentOf, expires, readChecked, seal, showDifference } from './document.ts'
import {
  checkedAgent,
  durationOption,
  type FleetOptions,
  openFleet,
  withBroker,
} from './options.ts'
import { Progress } from './progress.ts'

const lookEveryMs = 250

interface PushOptions extends FleetOptions {
  agent?: string
  group?: string
  file: string
  expires: number
  wait: boolean
  timeout: number
}

interface RevertOptions extends FleetOptions {
  agent: string
  to?: string
  expires: number
  wait: boolean
  timeout: number
}

/** Adds `headgate fleet push` and `headgate fleet revert`. */
export function registerPush(command: Command, loadCheck: () => Promise<DocumentCheck>): void {
  withBroker(command.command('push'))
    .description('send a configuration: checked here, signed, and watched until it is good')
    .option('--agent <name>', 'to one gateway')
    .option('--group <group>', 'to all of a group at once: boilers, or site=berlin,line=3')
    .requiredOption('--file <doc.yaml>', "as an agent.yaml, less what is the gateway's own")
    .option(...expires)
    .option('--no-wait', 'do not wait until it is good')
    .option('--timeout <duration>', 'how long to wait', durationOption('--timeout'), 900_000)
    .addHelpText('after', '\nExample:\n  headgate fleet push --agent gw-001 --file doc.yaml')
    .action(async (options: PushOptions) => push(options, await loadCheck()))
  withBroker(command.command('revert'))
    .description('send the last good configuration before the present one again, as a new version')
    .requiredOption('--agent <name>', 'the gateway')
    .option('--to <version>', 'this version instead')
    .option(...expires)
    .option('--no-wait', 'do not wait until it is good')
    .option('--timeout <duration>', 'how long to wait', durationOption('--timeout'), 900_000)
    .addHelpText('after', '\nExample:\n  headgate fleet revert --agent gw-001')
    .action(revert)
}

async function push(options: PushOptions, check: DocumentCheck): Promise<void> {
  const { agent, group, file } = options
  if ((agent === undefined) === (group === undefined))
    throw new UserError('name either --agent or --group', { exitCode: 2 })
  const document = await readChecked(file, check)
  const { files, client } = await openFleet(options)
  await using _ = client
  const target: Target =
    agent !== undefined ? { agent: checkedAgent(agent) } : { group: checkedGroup(group!) }
  if (agent !== undefined) await showDifference(client, files, await client.agent(agent), document)
  await send(client, files, target, document, options)
}

async function revert(options: RevertOptions): Promise<void> {
  const { files, client } = await openFleet(options)
  await using _ = client
  const view = await client.agent(checkedAgent(options.agent))
  const version = options.to === undefined ? lastGood(view) : Number(options.to)
  if (version === undefined || !Number.isSafeInteger(version))
    throw new UserError(
      `${view.agent} has had no other good version: name one with --to, or push another file`,
    )
  const document = await documentOf(client, files, version)
  if (!document)
    throw new UserError(`what version ${version} was is not known here: push its file instead`)
  process.stdout.write(`back to what version ${version} was\n`)
  await showDifference(client, files, view, document)
  await send(client, files, { agent: view.agent }, document, options)
}

/** The newest version that was good, other than the one it is to run. */
function lastGood({ desired = 0, history = [] }: AgentView): number | undefined {
  const good = history.filter(({ version, state }) => state === 'good' && version < desired)
  return good.length > 0 ? Math.max(...good.map(({ version }) => version)) : undefined
}

async function send(
  client: FleetAccess,
  files: ManagerFiles,
  target: Target,
  document: Document,
  { expires, wait, timeout }: { expires: number; wait: boolean; timeout: number },
): Promise<void> {
  const version = (await client.version(target.agent)) + 1
  const { agents } = await client.push(seal(files, target, version, document, expires))
  process.stdout.write(
    `version ${version} is sent to ${agents.length === 1 ? agents[0] : `${agents.length} agents`}\n`,
  )
  if (wait) await untilGood(client, agents, version, timeout)
}

/** @throws UserError when it is not good everywhere in time, and says why */
async function untilGood(
  client: FleetAccess,
  agents: readonly string[],
  version: number,
  timeoutMs: number,
): Promise<void> {
  const endMs = systemClock.monotonicMs() + timeoutMs
  const signal = stopSignal()
  using progress = new Progress()
  const wanted = new Set(agents)
  for (;;) {
    const views =
      agents.length === 1
        ? [await client.agent(agents[0]!)]
        : (await client.agents()).filter(({ agent }) => wanted.has(agent))
    const states = views.map((view) => stateOf(view, version))
    progress.show(`version ${version}: ${summary(states)}`)
    if (states.every((state) => state === 'good')) return
    const bad = views.find((_, i) => states[i] === 'refused' || states[i] === 'reverted')
    if (bad) {
      const { reported } = bad
      const problems = (reported?.problems ?? []).map(
        ({ path, message }) => `\n  ${path ? `${path}: ` : ''}${message}`,
      )
      throw new UserError(
        `${bad.agent} has ${stateOf(bad, version)} version ${version} and runs ${running(reported?.version)}${problems.join('')}`,
      )
    }
    if (systemClock.monotonicMs() > endMs)
      throw new UserError(`version ${version} is not good in time: ${summary(states)}`)
    await sleep(systemClock, lookEveryMs, signal)
  }
}

/** What an agent says of a version: its state, or that it has not got there. */
function stateOf({ reported, online, history }: AgentView, version: number): string {
  if (reported?.desired === version) return reported.state
  const past = history?.find((entry) => entry.version === version)
  return past?.state ?? (online ? 'sent' : 'offline')
}

function summary(states: readonly string[]): string {
  if (states.length === 1) return states[0]!
  const counts = Map.groupBy(states, (state) => state)
  return [...counts].map(([state, all]) => `${all.length} ${state}`).join(', ')
}

function running(version: number | undefined): string {
  return version === 0 ? 'its own file' : `version ${version ?? '?'}`
}
