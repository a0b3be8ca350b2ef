import { Agent, type AgentStatus } from '../../agent/agent.ts'
import type { AgentConfig } from '../../agent/config.ts'
import type { StoreChange } from '../../shared/ports.ts'
import { Seeded } from '../support/seeded.ts'
import type { Broker } from './broker.ts'
import { openHttp, type Server } from './http.ts'
import { type Death, type Machine, Process, seededRandom } from './machine.ts'
import type { Network } from './network.ts'
import { SimulatedStore } from './store.ts'
import type { WorldLog } from './world-log.ts'

export interface GatewayOptions {
  config: AgentConfig
  machine: Machine
  broker: Broker
  network: Network
  /** Where the uplink leads at the moment. */
  server(): Server | undefined
  log: WorldLog
  writeBufferBytes: number
  written(gateway: Gateway, changes: readonly StoreChange[]): () => void
  /** It begins anew on its store. */
  opened(gateway: Gateway): void
  /** The agent has ended by itself. */
  died(gateway: Gateway, error: unknown): void
}

/** A machine with an agent on it: the shipped code, on simulated ports. */
export class Gateway {
  readonly machine: Machine
  readonly store: SimulatedStore
  readonly #options: GatewayOptions
  #process: Process | undefined
  #agent: Agent | undefined
  #stopping = new AbortController()
  #ended: Promise<void> = Promise.resolve()
  #isOff = false
  /** Requests of its uplink that are under way. */
  requests = 0

  constructor(options: GatewayOptions) {
    const { machine, network } = options
    this.machine = machine
    this.#options = options
    this.store = new SimulatedStore({
      seeded: new Seeded(machine.seeded.below(2 ** 32)),
      coverage: network.coverage,
      writeBufferBytes: options.writeBufferBytes,
      written: (changes) => options.written(this, changes),
      opened: () => options.opened(this),
    })
  }

  get isUp(): boolean {
    return this.#process !== undefined
  }

  get status(): AgentStatus | undefined {
    return this.#agent?.status
  }

  /** Timers that the agent has set. */
  get timers(): number {
    return this.#process?.timers ?? 0
  }

  /** @param randomSeed where two processes are to be one memory snapshot, resumed twice */
  start(randomSeed = this.machine.seeded.below(2 ** 32)): void {
    if (this.#process || this.#isOff) return
    const { config, machine, broker, network, server, log } = this.#options
    const process = new Process(machine.timeline)
    this.#process = process
    this.#stopping = new AbortController()
    this.requests = 0
    log.say('gateway starts', machine.name)
    this.#agent = new Agent(config, {
      clock: machine.clock(process),
      random: seededRandom(randomSeed),
      boot: machine.boot,
      openReserve: () => this.store.reserve(process),
      openStore: () => this.store.open(process),
      openDialer: () => ({
        dial: (handlers, signal) => broker.dial(machine.name, process, handlers, signal),
      }),
      openUplink: () =>
        openHttp({
          network,
          process,
          server,
          open: (change) => {
            if (process.alive) this.requests += change
          },
        }),
      log: log.logger(machine.name),
    })
    this.#ended = this.#agent.run(this.#stopping.signal).then(
      () => this.#over(process, undefined),
      (error) => this.#over(process, error),
    )
  }

  #over(process: Process, error: unknown): void {
    if (!process.alive) return
    process.end('killed')
    this.#options.broker.orphan(this.machine.name, 'killed')
    this.#process = undefined
    this.#agent = undefined
    if (!this.#stopping.signal.aborted || error !== undefined) this.#options.died(this, error)
  }

  /** As a service manager does, with SIGTERM; resolves once the process has ended. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#ended
  }

  /** Calls back as the next write to disk begins. */
  onWrite(callback: () => void): void {
    this.store.nextWrite = callback
  }

  /** For good. */
  switchOff(): void {
    this.crash('power cut')
    this.#isOff = true
  }

  crash(how: Death): void {
    const process = this.#process
    if (!process) return
    this.#options.log.say(`gateway: ${how}`, this.machine.name)
    process.end(how)
    this.#options.broker.orphan(this.machine.name, how)
    this.#process = undefined
    this.#agent = undefined
    if (how === 'power cut') {
      this.store.crash()
      this.machine.reboot()
    }
  }
}
