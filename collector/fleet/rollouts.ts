import type { Logger } from '../../shared/log.ts'
import type { Clock } from '../../shared/ports.ts'
import { FleetProblem } from './problem.ts'
import type { Recorder } from './registry.ts'
import { nextStep, type RolloutPlan, type Standing, standing } from './rollout.ts'
import type { FleetState, Outcome, Rollout } from './state.ts'

export interface RolloutsOptions {
  state: FleetState
  record: Recorder
  clock: Clock
  logger: Logger
  isOnline(agent: string): boolean
  /** Sends each agent what it is to run by now. */
  publish(agents: readonly string[]): Promise<void>
}

/** Looked at this often where nothing happens, and at most this often where much does. */
const everyMs = 1_000
const soonMs = 100

/** Drives the rollouts. All it knows is in the fleet's state, so a restart in the middle changes nothing. */
export class Rollouts {
  readonly #options: RolloutsOptions
  #cancel: () => void = () => {}
  #cancelSoon: (() => void) | undefined
  #busy = false
  #again = false
  #stopped = false
  #idle: Promise<void> = Promise.resolve()

  constructor(options: RolloutsOptions) {
    this.#options = options
  }

  start(): void {
    this.look()
    this.#later()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancel()
    this.#cancelSoon?.()
    await this.#idle
  }

  async begin(by: string, id: string, plan: RolloutPlan): Promise<void> {
    await this.#options.record(by, { act: 'rollout', id, plan })
    this.look()
  }

  async halt(by: string, id: string, why: string): Promise<void> {
    const rollout = this.find(id)
    if (rollout.phase !== 'running')
      throw new FleetProblem(409, 'phase', `rollout ${id} is ${rollout.phase}`)
    await this.#halt(by, rollout, why)
  }

  async resume(by: string, id: string): Promise<void> {
    const rollout = this.find(id)
    if (rollout.phase !== 'halted' || rollout.reverted.length > 0)
      throw new FleetProblem(
        409,
        'phase',
        `rollout ${id} is ${rollout.reverted.length > 0 ? 'taken back' : rollout.phase}`,
      )
    await this.#options.record(by, { act: 'resume', id })
    this.look()
  }

  find(id: string): Rollout {
    const rollout = this.#options.state.rollouts.get(id)
    if (!rollout) throw new FleetProblem(404, 'rollout', `no rollout ${id}`)
    return rollout
  }

  standing(rollout: Rollout): Standing {
    return standing(rollout, (agent) => this.#outcome(rollout, agent))
  }

  /** Something may have changed. Thousands of agents that answer at once are looked at together. */
  lookSoon(): void {
    if (this.#stopped) return
    this.#cancelSoon ??= this.#options.clock.timer(soonMs, () => {
      this.#cancelSoon = undefined
      this.look()
    })
  }

  /** Sees whether a rollout can go on. */
  look(): void {
    this.#again = true
    if (this.#busy || this.#stopped) return
    this.#busy = true
    this.#idle = this.#lookAtAll().finally(() => {
      this.#busy = false
      if (this.#again) this.look()
    })
  }

  async #lookAtAll(): Promise<void> {
    this.#again = false
    for (const rollout of this.#options.state.rollouts.values()) {
      if (rollout.phase !== 'running' || this.#stopped) continue
      try {
        await this.#advance(rollout)
      } catch (err) {
        this.#options.logger.error({ err, rollout: rollout.id }, 'a rollout cannot go on')
      }
    }
  }

  async #advance(rollout: Rollout): Promise<void> {
    const { state, record, clock, publish, isOnline } = this.#options
    const { group, version, digest } = rollout.plan
    const sent = new Set(rollout.waves.flatMap(({ agents }) => agents))
    const members = state
      .inGroup(group)
      // Somebody may have been sent something newer meanwhile, which stays.
      .filter(({ name, desired }) => sent.has(name) || (desired?.version ?? 0) <= version)
      .map(({ name }) => name)
    // Who is there comes first: a wave of agents that are away would say nothing.
    const order = [...members.filter(isOnline), ...members.filter((name) => !isOnline(name))]
    const outcomeOf = (agent: string) => this.#outcome(rollout, agent)
    const step = nextStep(rollout, order, outcomeOf, clock.wallMs())
    if (step.do === 'wave') {
      const offline = step.agents.filter((agent) => !isOnline(agent))
      const fact = { act: 'desire', version, digest, agents: step.agents, offline } as const
      await record('collector', { ...fact, group, rollout: rollout.id })
      await publish(step.agents)
    } else if (step.do === 'halt') await this.#halt('collector', rollout, step.why)
    else if (step.do === 'finish') await record('collector', { act: 'finish', id: rollout.id })
    if (step.do === 'wave' || step.do === 'finish') this.#again = true
  }

  async #halt(by: string, rollout: Rollout, why: string): Promise<void> {
    const { state, record, publish } = this.#options
    const { id, plan, waves } = rollout
    await record(by, { act: 'halt', id, why })
    const sent = new Set(waves.flatMap(({ agents }) => agents))
    for (const { version, digest, agents } of plan.reverts) {
      const back = agents.filter(
        (agent) => sent.has(agent) && (state.members.get(agent)?.desired?.version ?? 0) < version,
      )
      if (back.length === 0) continue
      await record('collector', { act: 'desire', version, digest, agents: back, rollout: id })
      await publish(back)
    }
  }

  #outcome(rollout: Rollout, agent: string): Outcome | undefined {
    return this.#options.state.members.get(agent)?.outcomes.get(rollout.plan.version)
  }

  #later(): void {
    this.#cancel = this.#options.clock.timer(everyMs, () => {
      this.look()
      if (!this.#stopped) this.#later()
    })
  }
}
