import type { KeyObject } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Problem } from '../../shared/config.ts'
import { UserError } from '../../shared/failure.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import type { Labels } from '../../shared/fleet/groups.ts'
import type { Reported, ReportState } from '../../shared/fleet/reports.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk } from '../../shared/ports.ts'
import { formatTime } from '../../shared/time-text.ts'
import type { Agent, AgentStatus } from '../agent.ts'
import type { AgentConfig } from '../config.ts'
import { applyDocument } from '../document.ts'
import { acceptConfiguration } from './acceptance.ts'
import { type Health, HealthWatch, judge, sampleOf } from './health.ts'
import { tellable } from './report.ts'
import { Vault } from './vault.ts'

/** What a governor needs of the agent that it governs. */
export type Governed = Pick<Agent, 'change'> & { readonly status: AgentStatus | undefined }

export interface GovernorOptions {
  disk: Disk
  clock: Clock
  log: Logger
  /** The gateway's own configuration file: version 0. */
  local: AgentConfig
  labels: Labels
  environment: NodeJS.ProcessEnv
  configKey: KeyObject
  memoryBytes(): number
}

/** So many starts within so long, ms, are a crash loop. */
const crashLoop = { starts: 3, withinMs: 5 * 60_000 }
/** A process that has just begun is looked at for so long before it is changed, ms, or for a probation. */
const longestLookMs = 15_000
/** Problems that are told of one configuration. */
const maxProblems = 100

interface Outcome {
  desired: number | null
  state: ReportState
  problems: Problem[]
}

/**
 * Decides which configuration runs. It takes only what is authentic, newer than all before, and valid; watches
 * what it has taken; and goes back to the last good one by itself.
 *
 * Invariant: what is to run is on disk before it runs. Calls are not to overlap.
 */
export class Governor {
  readonly #options: GovernorOptions
  readonly #vault: Vault
  readonly #watch = new HealthWatch()
  #config: AgentConfig
  #agent: Governed | undefined
  /** A message whose time may come. */
  #pending: Uint8Array | undefined
  /** About the last message, where nothing came of it. */
  #refused: Outcome | undefined
  /** Since when what runs is being watched, monotonic clock. */
  #probationMs = 0
  #onReport = () => {}

  private constructor(options: GovernorOptions, vault: Vault) {
    this.#options = options
    this.#vault = vault
    this.#config = options.local
  }

  /** Says which configuration to start with: after a crash loop, or where one is no longer valid, the last good. */
  static async open(options: GovernorOptions): Promise<Governor> {
    const vault = await Vault.open(options.disk, options.configKey, options.clock.wallMs())
    const governor = new Governor(options, vault)
    await governor.#start()
    return governor
  }

  /** What runs, or should. */
  get config(): AgentConfig {
    return this.#config
  }

  get version(): number {
    return this.#vault.state.running
  }

  /** What runs as it was sent, its variables as they are written; undefined where it is the file. */
  get document(): Document | undefined {
    return this.#vault.document(this.version)
  }

  get paused(): boolean {
    return this.#vault.state.paused
  }

  /** Survives a restart. */
  async setPaused(paused: boolean): Promise<void> {
    await this.#vault.change({ paused })
  }

  /** What is told to the fleet. */
  get reported(): Reported {
    const { running, sinceMs, outcome } = this.#vault.state
    const { problems, ...rest } = this.#refused ?? outcome
    const since = formatTime(sinceMs, 0)
    return { version: running, since, ...rest, problems: tellable(problems) }
  }

  /** `callback` is called whenever there is something new to report. */
  onReport(callback: () => void): void {
    this.#onReport = callback
  }

  /** The agent runs with `config`; from now on this governs it. */
  govern(agent: Governed): void {
    this.#agent = agent
  }

  /** The process ends in order: no crash. */
  async stopped(): Promise<void> {
    const { probation } = this.#vault.state
    if (!probation || probation.starts.length === 0) return
    await this.#vault.change({
      probation: { ...probation, starts: probation.starts.slice(0, -1) },
    })
  }

  /**
   * Takes what has come as the desired configuration.
   *
   * @param size of the message, where it was too large to be kept whole
   */
  async consider(bytes: Uint8Array, size = bytes.length): Promise<void> {
    this.#pending = undefined
    const { clock, local, labels, configKey, environment } = this.#options
    if (size > bytes.length)
      return this.#refuse(null, [
        { path: '', message: `larger than an envelope may be: ${size} bytes` },
      ])
    const receiver = { agent: local.agent, labels, configKey, nowMs: clock.wallMs() }
    const found = acceptConfiguration(bytes, receiver)
    if ('refusal' in found) {
      const { desired, message, later } = found.refusal
      if (desired !== null && desired === this.#vault.state.accepted) return this.#again()
      if (later) this.#pending = bytes.slice()
      return this.#refuse(desired, [{ path: '', message }])
    }
    const { version, document } = found.configuration
    const { accepted } = this.#vault.state
    if (version === accepted && this.#vault.isAccepted(document)) return this.#again()
    if (version <= accepted)
      return this.#refuse(version, [
        {
          path: '',
          message:
            version === accepted
              ? `version ${version} was accepted before, with other content: sign it under a new version`
              : `older than version ${accepted}, which was accepted before`,
        },
      ])
    const { config, problems } = applyDocument(document, local, { labels, environment })
    if (problems) return this.#refuse(version, problems)
    if (!this.#knowsBefore) {
      this.#pending = bytes.slice()
      return
    }
    await this.#adopt(version, document, config)
  }

  /** Time passes: about once a second. @param fleetConnected to the fleet broker */
  async tick(fleetConnected: boolean): Promise<void> {
    const sample = this.#sample(fleetConnected)
    const { probation, running } = this.#vault.state
    if (sample && probation && !this.#watch.since()) this.#watch.change(sample)
    else if (sample) this.#watch.take(sample)
    if (this.#pending) return this.consider(this.#pending)
    if (!probation) return
    const elapsedMs = this.#options.clock.monotonicMs() - this.#probationMs
    if (elapsedMs < this.#config.fleet.probation) return
    const since = this.#watch.since()
    if (!since) return
    const verdict = judge(
      probation.before,
      since,
      this.#goodConfig() ?? this.#options.local,
      this.#config,
    )
    if (verdict === 'wait') return
    if (verdict !== 'good') return this.#revert(verdict)
    await this.#settle({ desired: running, state: 'good', problems: [] }, { good: running })
    this.#options.log.info({ version: running }, 'the configuration is good')
  }

  /** The process begins with what ran last, unless that is what ends it again and again. */
  async #start(): Promise<void> {
    const { clock, log } = this.#options
    const { running, probation } = this.#vault.state
    for (const { message } of this.#vault.damage) log.error(message)
    if (this.#vault.damage.length > 0)
      this.#refused = {
        desired: this.#vault.state.accepted,
        state: 'reverted',
        problems: [...this.#vault.damage],
      }
    if (running === 0) return
    if (probation) {
      const nowMs = clock.wallMs()
      // A start that lies ahead was before the clock was set back.
      const recent = probation.starts.filter((ms) => ms > nowMs || nowMs - ms <= crashLoop.withinMs)
      const starts = [...recent, nowMs]
      if (starts.length >= crashLoop.starts)
        return this.#revert([
          {
            path: '',
            message: `the agent was started ${starts.length} times in five minutes with it`,
          },
        ])
      await this.#vault.change({ probation: { ...probation, starts } })
    }
    const { config, problems } = this.#compile(running)
    if (!config) return this.#revert(problems)
    this.#config = config
    this.#probationMs = clock.monotonicMs()
  }

  async #adopt(version: number, document: Document, config: AgentConfig): Promise<void> {
    const { clock, log } = this.#options
    const { running, good, probation } = this.#vault.state
    const before = probation?.before ?? this.#watch.lately() ?? unknown
    this.#refused = undefined
    await this.#vault.accept(document, {
      accepted: version,
      running: version,
      good: probation ? good : running,
      sinceMs: clock.wallMs(),
      outcome: { desired: version, state: 'applied', problems: [] },
      probation: { before, starts: [] },
    })
    log.info({ version }, 'a new configuration is applied')
    this.#onReport()
    try {
      await this.#change(config)
    } catch (error) {
      return this.#revert([{ path: '', message: (error as Error).message }])
    }
    await this.#settle({ desired: version, state: 'probation', problems: [] })
  }

  /** Back to the last good one; to the file where that is not there any more. */
  async #revert(problems: Problem[]): Promise<void> {
    const { clock, log, local } = this.#options
    const { running, good } = this.#vault.state
    const config = this.#goodConfig()
    log.error({ version: running, problems }, 'the configuration is taken back')
    this.#refused = undefined
    await this.#vault.change({
      running: config ? good : 0,
      good: config ? good : 0,
      sinceMs: clock.wallMs(),
      outcome: { desired: running, state: 'reverted', problems: problems.slice(0, maxProblems) },
      probation: undefined,
    })
    try {
      await this.#change(config ?? local)
    } catch (cause) {
      throw new UserError(`cannot go back to version ${good}: ${(cause as Error).message}`, {
        cause,
      })
    }
    this.#onReport()
  }

  async #change(config: AgentConfig): Promise<void> {
    const before = this.#config
    this.#config = config
    try {
      await this.#agent?.change(config)
    } catch (error) {
      this.#config = before
      throw error
    }
    this.#probationMs = this.#options.clock.monotonicMs()
    const sample = this.#sample(false)
    if (sample) this.#watch.change(sample)
  }

  async #settle(outcome: Outcome, changes: { good?: number } = {}): Promise<void> {
    const { probation } = this.#vault.state
    this.#refused = undefined // There is newer news.
    await this.#vault.change({
      ...changes,
      outcome,
      probation: outcome.state === 'probation' ? probation : undefined,
    })
    this.#onReport()
  }

  #refuse(desired: number | null, problems: Problem[]): void {
    const refused = { desired, state: 'refused' as const, problems: problems.slice(0, maxProblems) }
    if (isDeepStrictEqual(refused, this.#refused)) return
    this.#options.log.warn({ version: desired, problems }, 'a configuration is refused')
    this.#refused = refused
    this.#onReport()
  }

  /** What was accepted last has come again. */
  #again(): void {
    this.#refused = undefined
    this.#onReport()
  }

  /** Only against a time before can the time after be judged. */
  get #knowsBefore(): boolean {
    if (!this.#agent || this.#vault.state.probation) return true
    return this.#watch.spanMs >= Math.min(this.#config.fleet.probation, longestLookMs)
  }

  #compile(version: number): ReturnType<typeof applyDocument> {
    const document = this.#vault.document(version)
    if (!document)
      return { problems: [{ path: '', message: `the document of version ${version} is damaged` }] }
    const { local, labels, environment } = this.#options
    return applyDocument(document, local, { labels, environment })
  }

  #goodConfig(): AgentConfig | undefined {
    const { good } = this.#vault.state
    return good === 0 ? this.#options.local : this.#compile(good).config
  }

  #sample(fleet: boolean) {
    const status = this.#agent?.status
    if (!status) return undefined
    const atMs = this.#options.clock.monotonicMs()
    return sampleOf(status, { atMs, fleet, memoryBytes: this.#options.memoryBytes() })
  }
}

/** Of an agent that was never looked at: nothing is asked of its successor. */
const unknown: Health = {
  seconds: 0,
  connectedSeconds: 0,
  connected: false,
  received: 0,
  quarantined: 0,
  alerts: 0,
  evicted: 0,
  delivering: false,
  waiting: false,
  failing: false,
  fleet: false,
  memoryBytes: 0,
}
