import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { stopSignal } from '../shared/command.ts'
import { ask } from '../shared/control.ts'
import { UserError } from '../shared/failure.ts'
import { makeFolder } from '../shared/folder.ts'
import { type Logger, makeLogger } from '../shared/log.ts'
import type { Store } from '../shared/ports.ts'
import { bootId, systemClock, systemRandom } from '../shared/system.ts'
import { reportToSystemd } from '../shared/systemd.ts'
import { Agent } from './agent.ts'
import { type AgentConfig, agentWarnings, describeAgent, loadAgentConfig } from './config.ts'
import { openControl } from './control.ts'
import { identityFolder } from './enrol/identity.ts'
import { keepIdentity } from './enrol/keeper.ts'
import { registerEnrol } from './enrol-command.ts'
import { registerFilter } from './filter-try.ts'
import { CollectorClock } from './fleet/collector-clock.ts'
import type { Fleet } from './fleet/fleet.ts'
import { type FleetHostOptions, fleetOpener, takePart } from './fleet/host.ts'
import { openMetrics } from './metrics.ts'
import { OutboxFailure } from './outbox/failure.ts'
import { openHealed } from './outbox/heal.ts'
import { registerOutbox } from './outbox-command.ts'
import { openReserve } from './reserve.ts'
import { openDialer } from './source/dial.ts'
import { printStatus } from './status.ts'
import { openHttpLink } from './uplink/http.ts'

/** Adds `headgate agent …`, `headgate outbox …` or `headgate filter …`. */
export function register(command: Command, name: string): void {
  if (name === 'filter') {
    registerFilter(command)
    return
  }
  if (name === 'outbox') {
    registerOutbox(command)
    return
  }
  command
    .command('run')
    .description('run the agent until it is stopped')
    .requiredOption('--config <file>', 'agent.yaml')
    .addHelpText('after', '\nExample:\n  headgate agent run --config agent.yaml')
    .action(({ config }: { config: string }) => run(config))
  command
    .command('check')
    .description('check a configuration: every problem at once, with its path')
    .requiredOption('--config <file>', 'agent.yaml')
    .option('--json', 'print the configuration as it would run, defaults included')
    .addHelpText('after', '\nExample:\n  headgate agent check --config agent.yaml')
    .action(check)
  registerEnrol(command)
  command
    .command('status')
    .description('ask the running agent: links, ledger, what waits, topics')
    .option('--config <file>', 'agent.yaml of the running agent')
    .option('--data <dir>', 'its data folder, or the folder of an `up`')
    .option('--json', 'print one JSON document')
    .addHelpText('after', '\nExample:\n  headgate agent status --config agent.yaml')
    .action(async (options: { config?: string; data?: string; json?: boolean }) => {
      const text = await ask(await dataFolder(options), 'GET', '/status')
      process.stdout.write(options.json ? `${text}\n` : printStatus(JSON.parse(text)))
    })
  command
    .command('tap')
    .description('watch messages and readings pass through the running agent, as JSON lines')
    .option('--config <file>', 'agent.yaml of the running agent')
    .option('--data <dir>', 'its data folder, or the folder of an `up`')
    .addHelpText('after', '\nExample:\n  headgate agent tap --data ./var/gw-001 | grep temperature')
    .action(async (options: { config?: string; data?: string }) => {
      await ask(await dataFolder(options), 'GET', '/tap', (text) => process.stdout.write(text))
    })
  command
    .command('flush')
    .description('let the running agent send everything it holds now')
    .option('--config <file>', 'agent.yaml of the running agent')
    .option('--data <dir>', 'its data folder, or the folder of an `up`')
    .addHelpText('after', '\nExample:\n  headgate agent flush --data ./var/gw-001')
    .action(async (options: { config?: string; data?: string }) => {
      await ask(await dataFolder(options), 'POST', '/flush')
    })
}

async function dataFolder({ config, data }: { config?: string; data?: string }): Promise<string> {
  if (data !== undefined) {
    const ofUp = join(data, 'agent')
    return existsSync(join(ofUp, 'outbox')) ? ofUp : data
  }
  if (!config) throw new UserError('name the agent with --config or --data', { exitCode: 2 })
  return (await loadAgentConfig(config)).data
}

async function check({ config: file, json }: { config: string; json?: boolean }): Promise<void> {
  const config = await loadAgentConfig(file)
  if (json) {
    const { password, ...source } = config.source
    const shown = {
      ...config,
      source: password === undefined ? source : { ...source, password: '(set)' },
      ...(config.enrol?.token !== undefined && { enrol: { ...config.enrol, token: '(set)' } }),
    }
    process.stdout.write(`${JSON.stringify(shown, null, 2)}\n`)
    return
  }
  for (const { path, message } of agentWarnings(config))
    process.stdout.write(`warning: ${path}: ${message}\n`)
  process.stdout.write(`${file}: good. ${describeAgent(config)}\n`)
}

async function run(file: string): Promise<void> {
  const config = await loadAgentConfig(file)
  const log = makeLogger('agent')
  const failed = new AbortController()
  const signal = AbortSignal.any([stopSignal(), failed.signal])
  const data = await makeDataFolder(config)
  const identity = identityFolder(data)
  const collectorClock = new CollectorClock(systemClock)
  let member: Fleet | undefined
  const membership: FleetHostOptions = {
    data,
    local: config,
    log,
    collectorClock,
    restart: () => failed.abort(),
    joined(fleet) {
      member = fleet
    },
  }
  // Its lock first: what a fleet's member remembers is this process's alone from then on.
  let store = await openStore(data, log).catch((error: unknown) => {
    if (error instanceof OutboxFailure) return undefined // The agent knows how to wait for it.
    throw error
  })
  const openFleet = fleetOpener(membership)
  const fleet = await openFleet()
  const begun = fleet?.config ?? config
  const agent = new Agent(begun, {
    clock: systemClock,
    random: systemRandom,
    boot: bootId(),
    async openStore() {
      const opened = store ?? (await openStore(data, log))
      store = undefined
      return opened
    },
    openReserve: (bytes) => openReserve(join(data, 'reserve'), bytes),
    openDialer,
    openUplink: (uplink) => collectorClock.watch(openHttpLink({ ...uplink, identity })),
    log,
  })
  const running = agent.run(signal)
  const keeping = keepIdentity(
    {
      agent: config.agent,
      folder: identity,
      enrol: config.enrol,
      clock: systemClock,
      random: systemRandom,
      log,
    },
    signal,
  )
  let takingPart: Promise<void> | undefined
  try {
    // A second agent must not take the first one's socket: wait until the store's lock is ours.
    await Promise.race([running, agent.opened])
    takingPart = takePart(fleet, openFleet, membership, agent, signal).finally(() => failed.abort())
    takingPart.catch(() => {}) // It is told at the end.
    await using _control = await openControl(agent, data, () => member?.status)
    await using _metrics = config.metrics && (await openMetrics(agent, config.metrics))
    const { source, uplink } = begun
    for (const { path, message } of agentWarnings(begun)) log.warn({ path }, message)
    log.info(
      { agent: config.agent, source: source.url, topics: source.topics, uplink: uplink.url, data },
      'agent is running',
    )
    using _service = reportToSystemd(log, () => agent.stuckForMs)
    await running
  } finally {
    failed.abort()
    await running
    await keeping
    await takingPart
  }
  log.info('agent has stopped')
}

async function openStore(data: string, log: Logger): Promise<Store> {
  const stamp = new Date().toISOString().replaceAll(':', '-')
  const { store, report } = await openHealed(join(data, 'outbox'), join(data, 'damaged'), stamp)
  for (const line of report) log.error(line)
  return store
}

async function makeDataFolder({ data }: AgentConfig): Promise<string> {
  try {
    await makeFolder(join(data, 'outbox'))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(
      `${data}: cannot make the data folder (${code}): check \`data\` in the configuration and who may write there`,
      { cause },
    )
  }
  return data
}
