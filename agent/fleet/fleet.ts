import { isDeepStrictEqual } from 'node:util'
import { UserError } from '../../shared/failure.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import { maxEnvelopeBytes } from '../../shared/fleet/envelope.ts'
import type { Reported } from '../../shared/fleet/reports.ts'
import { parseFleetTopic, topicsOf } from '../../shared/fleet/topics.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk, Random } from '../../shared/ports.ts'
import type { Agent } from '../agent.ts'
import type { AgentConfig } from '../config.ts'
import { applyDocument } from '../document.ts'
import {
  type BrokerDialer,
  type Message,
  Source,
  type SourceStatus,
  sourceSchema,
} from '../source/source.ts'
import { type Actions, CommandProblem, Commands } from './commands.ts'
import { Governor } from './governor.ts'
import { fleetReach } from './health.ts'
import type { Membership } from './membership.ts'
import { rehearse } from './rehearsal.ts'
import { redacted, report, shortened } from './report.ts'

/** An agent's world as far as its fleet goes. */
export interface FleetPorts {
  clock: Clock
  random: Random
  log: Logger
  /** The data folder. */
  disk: Disk
  environment: NodeJS.ProcessEnv
  versions: { headgate: string; node: string }
  openDialer(url: string, proxy: string | undefined): BrokerDialer
  /** Resident memory of the process. */
  memoryBytes(): number
  /** Gateway's clock less the collector's. */
  clockOffsetMs(): number | undefined
  /** Ends the process in order, to be started again. */
  restart(): void
}

export type FleetStatus = Reported & {
  /** Of the link to the fleet broker, and why it is down. */
  phase: SourceStatus['phase']
  trouble: string | undefined
}

/** How often health is looked at. */
const tickMs = 1_000

/**
 * An agent as a member of its fleet: takes configurations and commands from the fleet broker, and tells what
 * became of them. What it does without the broker, it does all the same: going back to the last good
 * configuration above all.
 */
export class Fleet {
  readonly #membership: Member
  /** Where the fleet says that its broker is. */
  #broker: string
  readonly #local: AgentConfig
  readonly #ports: FleetPorts
  /** Shared with whoever judges by them. */
  readonly #labels: Record<string, string>
  readonly #topics: ReturnType<typeof topicsOf>
  readonly #filters: readonly string[]
  readonly #governor: Governor
  readonly #startedMs: number
  #commands!: Commands
  #agent!: Agent
  #source!: Source
  #reach: (ReturnType<typeof fleetReach> & { url: string }) | undefined
  /** The newest message on the desired topic, until it is looked at. */
  #desired: Message | undefined
  /** Settled unless the link is being made anew. */
  #turning: PromiseWithResolvers<void> | undefined
  /** The connection on which the fleet was told of this agent. */
  #greeted = 0
  #wake = () => {}
  /** When the status was told last, monotonic clock. */
  #toldMs = -Infinity

  private constructor(
    membership: Member,
    local: AgentConfig,
    labels: Record<string, string>,
    ports: FleetPorts,
    governor: Governor,
  ) {
    this.#membership = membership
    this.#broker = membership.fleetBroker
    this.#local = local
    this.#labels = labels
    this.#ports = ports
    this.#topics = topicsOf(membership.agent)
    this.#filters = [this.#topics.desired, this.#topics.commands]
    this.#governor = governor
    this.#startedMs = ports.clock.monotonicMs()
  }

  /**
   * Decides with which configuration the agent begins; it is in `config`.
   *
   * @param local the gateway's own configuration file
   * @throws UserError where the identity is of another agent
   */
  static async open(membership: Member, local: AgentConfig, ports: FleetPorts): Promise<Fleet> {
    const { agent, configKey } = membership
    if (agent !== local.agent)
      throw new UserError(
        `the gateway is enrolled as "${agent}", the configuration names "${local.agent}": use one name`,
      )
    const { clock, log, disk, environment, memoryBytes } = ports
    const labels = { ...membership.labels, ...local.fleet.labels }
    const governor = await Governor.open({
      disk,
      clock,
      log,
      local,
      labels,
      environment,
      configKey,
      memoryBytes,
    })
    const fleet = new Fleet(membership, local, labels, ports, governor)
    fleet.#commands = await Commands.open({
      disk,
      clock,
      log,
      receiver: () => ({ agent, labels, configKey, nowMs: clock.wallMs() }),
      actions: fleet.#actions(),
      publish: (result) => fleet.#tell(fleet.#topics.result(result.id), result, { retain: false }),
    })
    governor.onReport(() => fleet.#report())
    return fleet
  }

  /**
   * The fleet says something else of the gateway by now, or has moved to another broker; what its own file says
   * wins still.
   */
  learn({ labels, fleetBroker }: Pick<Membership, 'labels' | 'fleetBroker'>): void {
    this.#broker = fleetBroker
    for (const name of Object.keys(this.#labels)) delete this.#labels[name]
    Object.assign(this.#labels, labels, this.#local.fleet.labels)
  }

  /** What the agent is to begin with. */
  get config(): AgentConfig {
    return this.#governor.config
  }

  /** For who asks at the gateway. */
  get status(): FleetStatus {
    const source: Source | undefined = this.#source // It may not run yet.
    const { phase = 'closed', lastError } = source?.status() ?? {}
    return { ...this.#governor.reported, phase, trouble: lastError?.message }
  }

  /** Runs beside the agent until `signal` aborts. */
  async run(agent: Agent, signal: AbortSignal): Promise<void> {
    this.#agent = agent
    if (this.#governor.paused) await agent.pause()
    this.#governor.govern(agent)
    this.#connect()
    const stop = () => {
      this.#wake()
      this.#tell(this.#topics.status, { agent: this.#membership.agent, online: false })
      void this.#source.close()
    }
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    await Promise.all([this.#receive(signal), this.#govern(signal)])
    await this.#governor.stopped()
  }

  async #receive(signal: AbortSignal): Promise<void> {
    for (let source = this.#source; ; source = this.#source) {
      for await (const group of source) {
        // Once what is sent to it now reaches it.
        if (group.session.subscribed.length === this.#filters.length) this.#greet(group.connection)
        for (const message of group.messages) await this.#take(message)
        source.acknowledge(group)
      }
      if (signal.aborted) return
      await this.#turning?.promise // Closed to be made anew.
    }
  }

  async #take(message: Message): Promise<void> {
    const topic = parseFleetTopic(message.topic)
    if (topic?.agent !== this.#membership.agent) return
    if (topic.kind === 'desired') {
      // Retained, so nobody but the newest counts; a message without content takes it away.
      if (message.payload.length === 0) return
      this.#desired = message
      this.#wake()
    } else if (topic.kind === 'command') await this.#commands.take(topic.id, message.payload)
  }

  /** Looks at what is desired, at how the agent is, and tells of it: one after the other. */
  async #govern(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#ports
    let lookMs = -Infinity
    while (!signal.aborted) {
      const message = this.#desired
      this.#desired = undefined
      try {
        if (message) await this.#governor.consider(message.payload, message.oversize?.size)
        // However often something comes, time is told.
        if (clock.monotonicMs() - lookMs >= tickMs) {
          lookMs = clock.monotonicMs()
          await this.#governor.tick(this.#connected)
        }
      } catch (error) {
        // There is nothing to go back to: a new start may help. A disk in trouble is waited for.
        if (error instanceof UserError) throw error
        log.error({ err: error }, 'what the fleet wants cannot be stored')
      }
      if (clock.monotonicMs() - this.#toldMs >= this.config.fleet.statusEvery) this.#tellStatus()
      await this.#reconnect(signal)
      if (!this.#desired) await this.#idle(signal)
    }
  }

  /** Where the way to the fleet broker has changed, it is taken. */
  async #reconnect(signal: AbortSignal): Promise<void> {
    if (isDeepStrictEqual(this.#wantedReach, this.#reach) || signal.aborted) return
    this.#turning = Promise.withResolvers()
    await this.#source.close()
    if (!signal.aborted) this.#connect()
    this.#turning.resolve()
  }

  /** Until something comes, the signal, or a tick has passed. */
  #idle(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const cancel = this.#ports.clock.timer(tickMs, () => this.#wake())
      this.#wake = () => {
        cancel()
        resolve()
      }
    })
  }

  get #wantedReach() {
    const reach = fleetReach(this.config.fleet)
    return { ...reach, url: reach.url ?? this.#broker }
  }

  #connect(): void {
    const { clock, random, log, openDialer } = this.#ports
    const { agent } = this.#membership
    const { fleet } = this.config
    const { url } = this.#wantedReach
    this.#reach = this.#wantedReach
    this.#greeted = 0
    this.#source = Source.open({
      config: {
        ...linkDefaults,
        url,
        topics: this.#filters,
        keepalive: fleet.keepalive,
        retry: fleet.retry,
        clientId: `headgate-fleet-${agent}`,
      },
      agent,
      dialer: openDialer(url, fleet.proxy),
      clock,
      random,
      log,
      marks: { session: undefined },
      renews: true,
      section: 'fleet',
      will: {
        topic: this.#topics.status,
        payload: encode({ agent, online: false }),
      },
      onEvent: ({ type }) => {
        if (type === 'subscription-refused') this.#greet(this.#source.connections)
      },
    })
  }

  /** Tells the fleet what it should know, once a connection. */
  #greet(connection: number): void {
    if (this.#greeted === connection) return
    this.#greeted = connection
    this.#report()
    this.#tellStatus()
    void this.#commands.settle()
  }

  get #connected(): boolean {
    return this.#source.status().phase === 'connected'
  }

  #report(): void {
    this.#tell(this.#topics.reported, this.#governor.reported)
  }

  #tellStatus(): void {
    const { clock, versions, clockOffsetMs } = this.#ports
    this.#toldMs = clock.monotonicMs()
    const content = report({
      agent: this.#membership.agent,
      status: this.#agent.status,
      versions: { ...versions, config: this.#governor.version },
      uptimeS: (clock.monotonicMs() - this.#startedMs) / 1_000,
      nowMs: clock.wallMs(),
      clockOffsetMs: clockOffsetMs(),
    })
    this.#tell(this.#topics.status, content)
  }

  /** What is retained is told anew at each connect, so it need not wait for one. */
  #tell(topic: string, content: object, { retain = true } = {}): void {
    if (retain && !this.#connected) return
    this.#source.publish(topic, encode(content), { qos: 1, retain })
  }

  #actions(): Actions {
    return {
      flush: async () => {
        await this.#agent.flush()
        return {}
      },
      restart: async () => {
        this.#ports.restart()
        return {}
      },
      diagnostics: async () => ({
        reported: this.#governor.reported,
        // As it was sent: what its variables stand for is the gateway's own, and may be secret.
        document: this.#governor.document,
        config: redacted(this.#local),
        versions: this.#ports.versions,
        memoryBytes: this.#ports.memoryBytes(),
        status: shortened(this.#agent.status),
      }),
      pause: async () => {
        await this.#governor.setPaused(true)
        await this.#agent.pause()
        return {}
      },
      resume: async () => {
        await this.#governor.setPaused(false)
        await this.#agent.resume()
        return {}
      },
      resend: async ({ from, to, device, metric }) => {
        if (!this.config.outbox.tail) throw noTail()
        const readings = await this.#agent.resend({
          fromMs: from,
          toMs: to,
          match: { device, metric },
        })
        return { readings }
      },
      rehearse: async ({ document, from, to }) => {
        const { environment } = this.#ports
        const { config, problems } = applyDocument(document as Document, this.#local, {
          labels: this.#labels,
          environment,
        })
        if (problems) throw new CommandProblem(problems)
        const readings = this.#agent.tail({ fromMs: from ?? -Infinity, toMs: to ?? Infinity })
        if (!readings) throw noTail()
        return { ...(await rehearse(readings, this.config, config)) }
      },
    }
  }
}

type Member = Pick<Membership, 'agent' | 'labels' | 'fleetBroker' | 'configKey'>

/** What a source has that a fleet's link does not configure; 3.1.1 gives retained messages at each start. */
const linkDefaults = {
  ...sourceSchema.parse({ url: 'mqtt://fleet' }),
  maxMessageBytes: maxEnvelopeBytes,
  maxUnackedBytes: 4 * 1024 * 1024,
  linger: 0,
}

function noTail(): CommandProblem {
  return new CommandProblem([{ path: 'outbox.tail', message: 'no raw readings are kept here' }])
}

function encode(content: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(content))
}
