import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { BoundedMap } from '../../shared/bounded-map.ts'
import { UserError } from '../../shared/failure.ts'
import { type Configuration, EnvelopeFailure, open } from '../../shared/fleet/envelope.ts'
import { isMember, type Labels } from '../../shared/fleet/groups.ts'
import { type FleetTopic, parseFleetTopic, topicsOf } from '../../shared/fleet/topics.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock } from '../../shared/ports.ts'
import { nodeDisk } from '../log/embedded/disk.ts'
import { FleetBook } from './book.ts'
import type { BusHandler, FleetBus } from './bus.ts'
import { Documents, digestOf } from './documents.ts'
import type { Fact, Invitation } from './facts.ts'
import type { CollectorFiles } from './files.ts'
import { JournalBroken } from './journal.ts'
import { FleetProblem } from './problem.ts'
import { Registry } from './registry.ts'
import { Reports } from './reports.ts'
import type { RolloutPlan } from './rollout.ts'
import { Rollouts } from './rollouts.ts'
import type { FleetState, Member } from './state.ts'
import { readCommonName } from './who.ts'

export interface FleetOptions {
  /** Where the fleet's journal and documents are kept. */
  folder: string
  files: CollectorFiles
  /** Of an agent's certificate. */
  lifetimeMs: number
  clock: Clock
  logger: Logger
}

/** States that a version ends in; only these are written down. */
const outcomes: readonly string[] = ['good', 'refused', 'reverted']
/** What agents said last is saved this often. */
const saveEveryMs = 30_000
/** By then every agent has tried to connect again after a restart of the collector. */
const comeBackMs = 300_000
const nothing = new Uint8Array(0)
/** Who sent something over a stock broker, which does not say. */
const somebody = 'broker'
/** Commands that are known again when a broker repeats them. */
const maxKnownCommands = 10_000

/** A fleet: its members, what each is to run, and what became of it. */
export class Fleet implements AsyncDisposable {
  readonly state: FleetState
  readonly registry: Registry
  readonly rollouts: Rollouts
  readonly reports = new Reports()
  readonly #book: FleetBook
  readonly #options: FleetOptions
  readonly #documents: Documents
  /** `<agent> <id>` */
  readonly #knownCommands = new BoundedMap<string, true>(maxKnownCommands)
  #bus: FleetBus | undefined
  #cancelSave: () => void = () => {}
  #startedMs = 0
  #deaf = false
  #closing: Promise<void> | undefined

  /** @throws UserError when the journal was changed by somebody else */
  static async open(options: FleetOptions): Promise<Fleet> {
    const { folder, clock, logger } = options
    const place = { folder, disk: nodeDisk(folder), nowMs: () => clock.wallMs(), logger }
    const book = await FleetBook.open(place).catch((cause) => {
      if (!(cause instanceof JournalBroken)) throw cause
      throw new UserError(
        `${cause.message}: the fleet's journal was changed; put it back from a copy`,
        { cause },
      )
    })
    const documents = await Documents.open(join(folder, 'documents'))
    return new Fleet(options, book, documents)
  }

  private constructor(options: FleetOptions, book: FleetBook, documents: Documents) {
    const { state } = book
    this.#options = options
    this.state = state
    this.#book = book
    this.#documents = documents
    const { files, clock, logger, lifetimeMs } = options
    const record = (by: string, fact: Fact) => this.#record(by, fact)
    this.registry = new Registry({
      state,
      record,
      authority: files.authority,
      clock,
      logger,
      lifetimeMs,
    })
    this.rollouts = new Rollouts({
      state,
      record,
      clock,
      logger,
      isOnline: (agent) => this.#isExpected(agent),
      publish: (agents) => this.#publishDesired(agents),
    })
  }

  /** Connects it with a broker, which then gets all that is retained, and begins to drive rollouts. */
  async start(openBus: (handler: BusHandler) => Promise<FleetBus>): Promise<void> {
    this.#startedMs = this.#options.clock.monotonicMs()
    await this.reports.load(join(this.#options.folder, 'heard.json'))
    this.#bus = await openBus((...message) => this.#heard(...message))
    await this.republish()
    this.rollouts.start()
    this.#saveLater()
  }

  /** Who did what when. */
  get journal(): FleetBook['journal'] {
    return this.#book.journal
  }

  /** Gives the broker what it is to retain, for it may have lost it. */
  async republish(): Promise<void> {
    await this.#publishDesired([...this.state.members.keys()])
  }

  /** The broker says, or where it does not, the agent's own status. */
  isOnline(agent: string): boolean {
    return this.#bus?.isConnected(agent) ?? this.reports.heard.get(agent)?.status?.online ?? false
  }

  /**
   * Whether an agent is there, or was before the collector was started and has not had the time to come
   * back: a rollout must not take the whole fleet for absent.
   */
  #isExpected(agent: string): boolean {
    if (this.isOnline(agent)) return true
    const sinceMs = this.#options.clock.monotonicMs() - this.#startedMs
    return sinceMs < comeBackMs && (this.reports.heard.get(agent)?.status?.online ?? false)
  }

  get configKey() {
    return this.#options.files.configKey
  }

  /** Lets a gateway in; it gets the newest configuration of its groups. */
  async enrol(secret: Uint8Array, request: string, from: string) {
    const enrolled = await this.registry.enrol(secret, request, from)
    const { member } = enrolled
    const desired = this.state.groupDesired(member.labels)
    if (desired && desired.version > (member.desired?.version ?? 0)) {
      const { version, digest } = desired
      await this.#record('collector', { act: 'desire', version, digest, agents: [member.name] })
    }
    // Even where it is what it had before: a revocation in between has taken it from the broker.
    await this.#publishDesired([member.name])
    return enrolled
  }

  async invite(by: string, invitations: readonly Invitation[]): Promise<void> {
    await this.registry.invite(by, invitations)
  }

  /**
   * Throws somebody out: at once from the broker and, through `dropped`, from HTTP.
   *
   * @param name an agent's name, or a common name such as `manager:bob`
   */
  async revoke(by: string, name: string): Promise<void> {
    const member = this.state.members.get(name)
    if (!member && !this.state.isInvited(name)) {
      // Of people no list is kept, but a name that nobody can have was mistyped.
      const who = readCommonName(name)
      if (!who || who.role === 'agent') throw new FleetProblem(404, 'agent', `no agent ${name}`)
    }
    await this.registry.revoke(by, name)
    this.#bus?.drop(name)
    this.dropped(name)
    if (!member) return
    this.reports.forget(name)
    // What it has left behind speaks for it no longer.
    const { desired, reported, status } = topicsOf(name)
    for (const topic of [desired, reported, status])
      await this.#bus?.publish(topic, nothing, { retain: true })
    this.rollouts.look()
  }

  /** Writes down that two gateways seem to have one certificate. */
  cloned(agent: string): void {
    const { logger } = this.#options
    logger.warn({ agent }, 'two seem to come with the certificate of one agent: a cloned gateway?')
    this.#record('collector', { act: 'clone', agent }).catch((err) =>
      logger.error({ err }, 'the fleet’s journal cannot be written'),
    )
  }

  /** Whoever holds connections ends those of a common name. */
  dropped: (commonName: string) => void = () => {}

  async label(by: string, agent: string, labels: Labels): Promise<void> {
    this.member(agent)
    await this.#record(by, { act: 'label', agent, labels })
  }

  member(agent: string): Member {
    const member = this.state.members.get(agent)
    if (!member) throw new FleetProblem(404, 'agent', `no agent ${agent}`)
    return member
  }

  /**
   * Takes a signed configuration and sends it to the agents that it is for.
   *
   * @throws FleetProblem, also when another manager was faster: its version is used up
   */
  async push(by: string, envelope: Uint8Array): Promise<{ version: number; agents: string[] }> {
    const { configuration, digest } = await this.#take(envelope)
    const { version, group } = configuration
    this.#mustBeNewer([version])
    const agents = this.#agentsOf(configuration)
    const fact = {
      act: 'desire',
      version,
      digest,
      agents,
      ...(group !== undefined && { group }),
    } as const
    await this.#record(by, fact)
    await this.#publishDesired(agents)
    return { version, agents }
  }

  /**
   * Begins to roll a configuration out.
   *
   * @param reverts signed in advance: what to go back to should it halt
   */
  async rollout(
    by: string,
    envelope: Uint8Array,
    reverts: readonly { envelope: Uint8Array; agents: readonly string[] }[],
    plan: Omit<RolloutPlan, 'group' | 'version' | 'digest' | 'reverts' | 'versions'>,
  ): Promise<string> {
    const { configuration, digest } = await this.#take(envelope)
    const { group, version } = configuration
    if (group === undefined)
      throw new FleetProblem(400, 'target', 'a rollout is for a group, not for one agent')
    this.#agentsOf(configuration)
    const taken = await Promise.all(
      reverts.map(async ({ envelope, agents }) => ({ ...(await this.#take(envelope)), agents })),
    )
    const versions = [version, ...taken.map(({ configuration }) => configuration.version)]
    this.#mustBeNewer(versions)
    for (const other of this.state.rollouts.values())
      if (other.phase === 'running' && other.plan.group === group)
        throw new FleetProblem(
          409,
          'busy',
          `rollout ${other.id} is under way in ${group}: halt it first`,
        )
    const id = randomUUID().slice(0, 8)
    await this.rollouts.begin(by, id, {
      ...plan,
      group,
      version,
      digest,
      versions,
      reverts: taken.map(({ configuration, digest, agents }) => ({
        version: configuration.version,
        digest,
        agents,
      })),
    })
    return id
  }

  /** Passes a signed command on. @throws FleetProblem */
  async command(by: string, envelope: Uint8Array): Promise<void> {
    const { agent, id, command } = this.#open('command', envelope)
    const member = this.member(agent)
    if (member.revokedMs !== undefined)
      throw new FleetProblem(409, 'revoked', `${agent} was revoked`)
    if (!this.isOnline(agent))
      throw new FleetProblem(
        409,
        'offline',
        `${agent} is offline: commands are for now, not for later`,
      )
    this.#knownCommands.set(`${agent} ${id}`, true)
    await this.#record(by, { act: 'command', agent, id, command })
    await this.#bus?.publish(topicsOf(agent).command(id), envelope, { retain: false })
  }

  /** The signed bytes of a version, while they are kept. */
  async envelope(version: number): Promise<Uint8Array> {
    const digest = this.state.digests.get(version)
    const bytes = digest === undefined ? undefined : await this.#documents.get(digest)
    if (!bytes) throw new FleetProblem(404, 'version', `no version ${version}`)
    return bytes
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  /** Hears nobody any more: the last wills of those that are disconnected now would be ours, not theirs. */
  stopListening(): void {
    this.#deaf = true
  }

  async #shutDown(): Promise<void> {
    this.stopListening()
    this.#cancelSave()
    await this.rollouts.stop()
    await this.#bus?.[Symbol.asyncDispose]()
    await this.#save()
    await this.#book[Symbol.asyncDispose]()
  }

  /** Applied at once, unless the journal is broken. Asynchronous, so that even that is a rejection. */
  async #record(by: string, fact: Fact): Promise<void> {
    const { entry, durable } = this.#book.record(by, fact)
    this.reports.tell({ kind: 'fleet', what: { at: entry.at, by, ...fact } })
    await durable
  }

  #heard(topic: string, payload: Uint8Array, by: string = somebody): void {
    if (this.#deaf) return
    const { clock, logger } = this.#options
    const target = parseFleetTopic(topic)
    const member = target && this.state.members.get(target.agent)
    // A stock broker lets a revoked agent talk until it reads its list of certificates anew.
    if (!member || member.revokedMs !== undefined) return
    if (target.kind === 'desired' || target.kind === 'command') {
      this.#sentStraight(member, target, payload, by).catch((err) =>
        logger.error({ err, topic }, 'what was sent over the broker cannot be written down'),
      )
      return
    }
    // Unasked, or said again: it would fill the journal, and push the results of others out.
    if (target.kind === 'result' && !member.commands.has(target.id)) return
    const news = this.reports.take(topic, payload, clock.wallMs())
    if (!news || news.kind === 'fleet') return
    const failed = (err: unknown) => logger.error({ err }, 'the fleet’s journal cannot be written')
    if (news.kind === 'result') {
      const { agent, result } = news
      const { id, state } = result
      this.#record(agent, { act: 'result', agent, id, state }).catch(failed)
    }
    if (news.kind === 'reported') {
      const { agent } = news
      const { desired, state, problems } = news.reported
      const known = desired !== null && this.state.digests.has(desired)
      if (known && outcomes.includes(state) && this.state.isNews(member, desired, state)) {
        const [problem] = problems
        const why = problem
          ? `${problem.path ? `${problem.path}: ` : ''}${problem.message}`
          : undefined
        this.#record(agent, {
          act: 'outcome',
          agent,
          version: desired,
          state,
          ...(why !== undefined && { why: why.slice(0, 500) }),
        }).catch(failed)
      }
    }
    this.rollouts.lookSoon()
  }

  /**
   * Writes down what a manager has sent without us, where an agent may take it: so its version is used up, and
   * a broker that has lost it gets it again. What we have sent ourselves comes here too, and is known.
   */
  async #sentStraight(
    { name, labels, desired }: Member,
    target: FleetTopic,
    envelope: Uint8Array,
    by: string,
  ): Promise<void> {
    if (envelope.length === 0) return // Taken back.
    try {
      if (target.kind === 'command') {
        const { agent, id, command, expiresMs } = this.#open('command', envelope)
        const known = `${agent} ${id}`
        if (agent !== name || id !== target.id || this.#knownCommands.get(known)) return
        if (expiresMs <= this.#options.clock.wallMs()) return
        this.#knownCommands.set(known, true)
        return await this.#record(by, { act: 'command', agent, id, command })
      }
      // Most of what a stock broker keeps for thousands of agents: it is not opened for each.
      if (digestOf(envelope) === desired?.digest) return
      const { agent, group, version } = this.#open('configuration', envelope)
      if (group === undefined ? agent !== name : !isMember(group, labels)) return
      if (version <= this.state.version) return
      const { digest } = await this.#take(envelope)
      if (version <= this.state.version) return // Somebody was faster.
      await this.#record(by, { act: 'desire', version, digest, agents: [name] })
    } catch (error) {
      if (error instanceof FleetProblem) return // Nothing that an agent would take.
      throw error
    }
    // It may have been told an older one in the meantime, by us.
    await this.#publishDesired([name])
  }

  #open<Kind extends 'configuration' | 'command'>(kind: Kind, envelope: Uint8Array) {
    try {
      return open(kind, envelope, this.configKey)
    } catch (error) {
      if (error instanceof EnvelopeFailure) throw new FleetProblem(400, error.code, error.message)
      throw error
    }
  }

  async #take(envelope: Uint8Array): Promise<{ configuration: Configuration; digest: string }> {
    const configuration = this.#open('configuration', envelope)
    if (configuration.expiresMs <= this.#options.clock.wallMs())
      throw new FleetProblem(400, 'expired', `version ${configuration.version} has expired`)
    return { configuration, digest: await this.#documents.put(envelope) }
  }

  #mustBeNewer(versions: readonly number[]): void {
    const { version: latest } = this.state
    const ascending = versions.every((version, i) => version > (versions[i - 1] ?? latest))
    if (!ascending)
      throw new FleetProblem(
        409,
        'version',
        `version ${versions[0]} is used: somebody else has pushed up to version ${latest}`,
      )
  }

  #agentsOf({ agent, group }: Configuration): string[] {
    if (agent !== undefined) {
      if (this.member(agent).revokedMs !== undefined)
        throw new FleetProblem(409, 'revoked', `${agent} was revoked`)
      return [agent]
    }
    const agents = this.state.inGroup(group).map(({ name }) => name)
    if (agents.length === 0) throw new FleetProblem(404, 'group', `nobody is in group ${group}`)
    return agents
  }

  /** Each agent's own topic, as of now. Ten thousand agents share the bytes of one document. */
  async #publishDesired(agents: readonly string[]): Promise<void> {
    const { logger } = this.#options
    let last: { digest: string; bytes: Uint8Array | undefined } | undefined
    for (const agent of agents) {
      const member = this.state.members.get(agent)
      if (!member?.desired || member.revokedMs !== undefined) continue
      const { digest, version } = member.desired
      if (last?.digest !== digest) last = { digest, bytes: await this.#documents.get(digest) }
      // Something newer, or a revocation, may have come while it was read, and looks after itself.
      const now = this.state.members.get(agent)
      if (now?.desired?.version !== version || now.revokedMs !== undefined) continue
      if (last.bytes)
        await this.#bus?.publish(topicsOf(agent).desired, last.bytes, { retain: true })
      else logger.error({ agent, version, digest }, 'a configuration is damaged or gone')
    }
  }

  #saveLater(): void {
    this.#cancelSave = this.#options.clock.timer(saveEveryMs, () => {
      void this.#save().finally(() => this.#saveLater())
    })
  }

  async #save(): Promise<void> {
    await this.reports
      .save(join(this.#options.folder, 'heard.json'))
      .catch((err) => this.#options.logger.warn({ err }, 'what agents said cannot be saved'))
  }
}
