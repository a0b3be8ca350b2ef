import { randomBytes } from 'node:crypto'
import type { Command } from 'commander'
import { sleep } from '../../shared/clock.ts'
import { stopSignal } from '../../shared/command.ts'
import { ConfigFailure } from '../../shared/config.ts'
import { UserError } from '../../shared/failure.ts'
import { type Document, open, sign, type Target } from '../../shared/fleet/envelope.ts'
import { groupProblem } from '../../shared/fleet/groups.ts'
import type { CommandName, CommandResult } from '../../shared/fleet/reports.ts'
import { systemClock } from '../../shared/system.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import { type Amount, parseAmount } from '../fleet/rollout.ts'
import type { DocumentCheck } from '../fleet-command.ts'
import type { AgentView, FleetClient, RolloutView } from './client.ts'
import { difference } from './difference.ts'
import {
  checkedAgent,
  durationOption,
  type FleetOptions,
  openFleet,
  printJson,
  table,
  withFleet,
} from './options.ts'
import { Progress } from './progress.ts'

const dayMs = 86_400_000
const defaultExpiryMs = 365 * dayMs
/** A gateway's clock may be so far behind ours. */
const backdateMs = 5 * 60_000
const lookEveryMs = 250

const expires = [
  '--expires <duration>',
  'it is not applied any more after',
  durationOption('--expires'),
  defaultExpiryMs,
] as const

interface PushOptions extends FleetOptions {
  agent?: string
  group?: string
  file: string
  expires: number
  wait: boolean
  timeout: number
}

/** Adds the commands that change what gateways do. */
export function registerDeploy(command: Command, loadCheck: () => Promise<DocumentCheck>): void {
  withFleet(command.command('push'))
    .description('send a configuration: checked here, signed, and watched until it is good')
    .option('--agent <name>', 'to one gateway')
    .option('--group <group>', 'to all of a group at once: boilers, or site=berlin,line=3')
    .requiredOption('--file <doc.yaml>', "as an agent.yaml, less what is the gateway's own")
    .option(...expires)
    .option('--no-wait', 'do not wait until it is good')
    .option('--timeout <duration>', 'how long to wait', durationOption('--timeout'), 900_000)
    .addHelpText('after', '\nExample:\n  headgate fleet push --agent gw-001 --file doc.yaml')
    .action(async (options: PushOptions) => push(options, await loadCheck()))
  withFleet(command.command('revert'))
    .description('send the last good configuration before the present one again, as a new version')
    .requiredOption('--agent <name>', 'the gateway')
    .option('--to <version>', 'this version instead')
    .option(...expires)
    .option('--no-wait', 'do not wait until it is good')
    .option('--timeout <duration>', 'how long to wait', durationOption('--timeout'), 900_000)
    .addHelpText('after', '\nExample:\n  headgate fleet revert --agent gw-001')
    .action(revert)
  withFleet(command.command('rehearse'))
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
      const { client } = await openFleet(options)
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
        const { client } = await openFleet(options)
        await using _ = client
        process.stdout.write(`${describe(await client.steer(id, what))}\n`)
      })
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

interface RevertOptions extends FleetOptions {
  agent: string
  to?: string
  expires: number
  wait: boolean
  timeout: number
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
  const { document } = await documentOf(client, files, version)
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
  client: FleetClient,
  files: ManagerFiles,
  target: Target,
  document: Document,
  { expires, wait, timeout }: { expires: number; wait: boolean; timeout: number },
): Promise<void> {
  const version = (await client.version()) + 1
  const { agents } = await client.push(seal(files, target, version, document, expires))
  process.stdout.write(
    `version ${version} is sent to ${agents.length === 1 ? agents[0] : `${agents.length} agents`}\n`,
  )
  if (wait) await untilGood(client, agents, version, timeout)
}

/** @throws UserError when it is not good everywhere in time, and says why */
async function untilGood(
  client: FleetClient,
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
  const { files, client } = await openFleet(options)
  await using _ = client
  const members = await client.agents(group)
  if (members.length === 0) throw new UserError(`nobody is in group ${group}`)
  const version = (await client.version()) + 1
  const before = [...Map.groupBy(members, runs)]
  for (const [desired] of before)
    if (desired !== undefined)
      process.stdout.write(
        `${diffText((await documentOf(client, files, desired)).document, document, `version ${desired}`)}`,
      )
  const reverts = []
  if (options.revert)
    for (const [desired, views] of before) {
      if (desired === undefined) continue // The gateway's own file: only the agent itself goes back to it.
      const { document: old } = await documentOf(client, files, desired)
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

interface RehearseOptions extends FleetOptions {
  agent: string
  file: string
  from?: string
  to?: string
  timeout: number
  json?: boolean
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

/** What a command gives, a line for each value. */
export function lines(content: object, prefix = ''): string[] {
  return Object.entries(content).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null
      ? lines(value, `${prefix}${key}.`)
      : [`${prefix}${key}: ${value}`],
  )
}

export interface CommandRequest {
  agent: string
  command: CommandName
  given: Document
  timeoutMs: number
}

/**
 * Has an agent do something, once, and waits for what comes of it.
 *
 * @throws UserError when it refuses, fails or does not answer in time
 */
export async function runCommand(
  client: FleetClient,
  files: ManagerFiles,
  { agent, command, given, timeoutMs }: CommandRequest,
): Promise<CommandResult> {
  const id = randomBytes(8).toString('hex')
  const expiresMs = systemClock.wallMs() + timeoutMs
  await client.command(
    sign({ kind: 'command', agent, id, command, arguments: given, expiresMs }, files.configKey),
  )
  const endMs = systemClock.monotonicMs() + timeoutMs
  const signal = stopSignal()
  for (;;) {
    const result = await client.result(agent, id)
    if (result?.state === 'done') return result
    if (result) {
      const problems = result.problems.map(
        ({ path, message }) => `${path ? `${path}: ` : ''}${message}`,
      )
      throw new UserError(`${agent}: ${command} ${result.state}: ${problems.join('; ')}`)
    }
    if (systemClock.monotonicMs() > endMs)
      throw new UserError(`${agent} has not answered in time: ${command} is not begun any more`)
    await sleep(systemClock, lookEveryMs, signal)
  }
}

async function readChecked(file: string, check: DocumentCheck): Promise<Document> {
  const document = await check.readDocument(file)
  const problems = check.documentProblems(document)
  if (problems.length > 0) throw new ConfigFailure(file, problems)
  return document
}

async function documentOf(client: FleetClient, files: ManagerFiles, version: number) {
  return open('configuration', await client.envelope(version), files.configPublic)
}

/**
 * The version that an agent runs, which is not what it was last sent where that was taken back; undefined
 * for the gateway's own file. Who has not been heard of is taken to run what it was sent.
 */
function runs({ reported, desired }: AgentView): number | undefined {
  return reported ? reported.version || undefined : desired
}

async function showDifference(
  client: FleetClient,
  files: ManagerFiles,
  view: AgentView,
  document: Document,
): Promise<void> {
  const version = runs(view)
  if (version === undefined) {
    process.stdout.write(`${view.agent} runs its own file, which is not known here\n`)
    return
  }
  const { document: before } = await documentOf(client, files, version)
  process.stdout.write(diffText(before, document, `version ${version}`))
}

function diffText(before: Document, after: Document, what: string): string {
  const changes = difference(before, after)
  return changes.length === 0
    ? `the same as ${what}\n`
    : `against ${what}\n${changes.map((line) => `  ${line}\n`).join('')}`
}

function seal(
  files: ManagerFiles,
  target: Target,
  version: number,
  document: Document,
  lifeMs: number,
): Uint8Array {
  const nowMs = systemClock.wallMs()
  const times = { notBeforeMs: nowMs - backdateMs, expiresMs: nowMs + lifeMs }
  return sign({ kind: 'configuration', ...target, version, ...times, document }, files.configKey)
}

function checkedGroup(group: string): string {
  const problem = groupProblem(group)
  if (problem) throw new UserError(`--group: ${problem}`, { exitCode: 2 })
  return group
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
