import { sleep } from '../../shared/clock.ts'
import { version } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import type { Logger } from '../../shared/log.ts'
import { proxyFor } from '../../shared/proxy.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import type { Agent } from '../agent.ts'
import type { AgentConfig } from '../config.ts'
import type { CollectorClock } from './collector-clock.ts'
import { openFleetDialer } from './dial.ts'
import { privateDisk } from './disk.ts'
import { Fleet } from './fleet.ts'
import { readMembership } from './membership.ts'

export interface FleetHostOptions {
  data: string
  /** The gateway's own configuration file. */
  local: AgentConfig
  log: Logger
  collectorClock: CollectorClock
  /** Ends the process in order, to be started again. */
  restart(): void
  /** Called once, where the agent takes part. */
  joined(fleet: Fleet): void
}

/** An enrolment, or a repair, that comes while the agent runs is seen after at most this time. */
const enrolledMs = 2_000
const membershipMs = 30_000

/** Gives the agent's part in its fleet, on the real machine; undefined while it is in none. */
export type FleetOpener = () => Promise<Fleet | undefined>

/**
 * Where what is known of the fleet is damaged, that is said once, and readings go on without it: the next look
 * may find it repaired.
 */
export function fleetOpener(options: FleetHostOptions): FleetOpener {
  let told: string | undefined
  return async () => {
    try {
      return await openFleet(options)
    } catch (error) {
      const { message } = error as Error
      if (message !== told) {
        const ours = error instanceof UserError
        options.log.error(ours ? {} : { err: error }, `no part in the fleet: ${message}`)
      }
      told = message
      return undefined
    }
  }
}

async function openFleet(options: FleetHostOptions): Promise<Fleet | undefined> {
  const { data, local, log, collectorClock, restart } = options
  const membership = await readMembership(data)
  return (
    membership &&
    Fleet.open(membership, local, {
      clock: systemClock,
      random: systemRandom,
      log,
      disk: privateDisk(data),
      environment: process.env,
      versions: { headgate: version, node: process.versions.node },
      openDialer: (url, proxy) =>
        openFleetDialer(url, membership.files, proxy ?? proxyFor(url, process.env)),
      memoryBytes: () => process.memoryUsage.rss(),
      clockOffsetMs: () => collectorClock.offsetMs,
      restart,
    })
  )
}

/** Takes part until `signal` aborts: at once, or as soon as the agent is enrolled. */
export async function takePart(
  opened: Fleet | undefined,
  open: FleetOpener,
  options: FleetHostOptions,
  agent: Agent,
  signal: AbortSignal,
): Promise<void> {
  let fleet = opened
  while (!fleet && !signal.aborted) {
    await sleep(systemClock, enrolledMs, signal).catch(() => {})
    fleet = await open()
  }
  if (!fleet) return
  // One that was damaged at the start may have had a configuration before.
  if (!opened && fleet.config !== options.local) await agent.change(fleet.config)
  options.joined(fleet)
  const ended = new AbortController()
  const both = AbortSignal.any([signal, ended.signal])
  await Promise.all([
    fleet.run(agent, signal).finally(() => ended.abort()),
    watchMembership(fleet, options.data, both),
  ])
}

/** What the fleet says of the gateway is asked for by who keeps its identity, and written there. */
async function watchMembership(fleet: Fleet, data: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(systemClock, membershipMs, signal).catch(() => {})
    const membership = await readMembership(data).catch(() => undefined)
    if (membership) fleet.learn(membership)
  }
}
