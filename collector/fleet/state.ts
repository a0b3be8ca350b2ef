import { isMember, type Labels } from '../../shared/fleet/groups.ts'
import type { ReportState } from '../../shared/fleet/reports.ts'
import type { Fact, Invitation } from './facts.ts'
import type { Entry } from './journal.ts'
import type { RolloutPlan } from './rollout.ts'

export interface Certificate {
  serial: string
  notAfterMs: number
}

/** An agent as the fleet knows it, whatever it says of itself. */
export interface Member {
  name: string
  labels: Labels
  /** Those that count; more than one while a new one takes over. */
  certificates: Certificate[]
  /** SHA-256 of its public key: a renewal is for the same key. */
  key: string
  enrolledMs: number
  revokedMs: number | undefined
  /** Hash of the token by which it enrolled, until it has used its certificate. */
  unconfirmed: string | undefined
  desired: Desired | undefined
  /** By version: what became of it, the latest word. */
  outcomes: Map<number, Outcome>
  /** Ids of commands that it was sent and has not answered. */
  commands: Set<string>
}
export interface Desired {
  version: number
  digest: string
  atMs: number
}
export interface Outcome {
  state: ReportState
  atMs: number
  why: string | undefined
  /** How often it has changed, the first included. */
  times: number
}

export interface Rollout {
  id: string
  plan: RolloutPlan
  by: string
  startedMs: number
  phase: 'running' | 'halted' | 'finished'
  /** Why it halted. */
  why: string | undefined
  /** When somebody last let it go on though it had halted. */
  resumedMs: number | undefined
  /** Agents that were sent the new version, wave by wave, with the time of each. */
  waves: { agents: readonly string[]; offline: readonly string[]; atMs: number }[]
  /** Those that it took back. */
  reverted: readonly string[]
}

export interface OpenInvitation extends Invitation {
  /** Key that has redeemed it, until it is confirmed. */
  key: string | undefined
}

/** Versions and outcomes of an agent that are looked back on. */
const maxOutcomes = 50
/** An agent that cannot make up its mind about a version is not followed for ever. */
const maxChanges = 10
/** Commands to an agent that may yet be answered. */
const maxOpenCommands = 100
/** Rollouts that have ended and are looked back on: as far as outcomes are. */
const maxEndedRollouts = maxOutcomes
/** Certificates that a gateway may still come with to have one renewed have ended no longer ago than this. */
const certificateAfterlifeMs = 366 * 86_400_000
/** From so many on, invitations that have expired are forgotten. */
const maxInvitations = 10_000
/** Certificates that were revoked are listed until they have expired, and a while longer. */
const listAfterExpiryMs = 30 * 86_400_000

/** All of a state, as it can be kept; what becomes of it when it changes is its owner's affair. */
export interface FleetSum {
  members: Map<string, Member>
  /** By the hash of the token. */
  invitations: Map<string, OpenInvitation>
  rollouts: Map<string, Rollout>
  /** Managers and readers that were revoked, by common name. */
  revokedNames: Map<string, number>
  /** Newest configuration of each group. */
  groups: Map<string, Desired>
  /** Digest of each version that was ever sent. */
  digests: Map<number, string>
  revoked: (Certificate & { atMs: number })[]
  version: number
}

/**
 * The sum of a journal's facts. It holds no clock and does no I/O. What it has grows with agents, people and
 * versions, and not with what has happened to them.
 */
export class FleetState {
  readonly members: FleetSum['members']
  readonly invitations: FleetSum['invitations']
  readonly rollouts: FleetSum['rollouts']
  readonly revokedNames: FleetSum['revokedNames']
  readonly groups: FleetSum['groups']
  readonly digests: FleetSum['digests']
  readonly #sum: FleetSum

  /** @param sum of the facts before, which it goes on with */
  constructor(sum: FleetSum = nothingYet()) {
    this.#sum = sum
    this.members = sum.members
    this.invitations = sum.invitations
    this.rollouts = sum.rollouts
    this.revokedNames = sum.revokedNames
    this.groups = sum.groups
    this.digests = sum.digests
  }

  /** To be read at once: it changes with the state. */
  get sum(): Readonly<FleetSum> {
    return this.#sum
  }

  /** The highest version that was ever used. */
  get version(): number {
    return this.#sum.version
  }

  /** Serials that no longer count though they have not expired, or not long ago. */
  revokedSerials(nowMs: number): readonly { serial: string; atMs: number }[] {
    return this.#sum.revoked.filter(({ notAfterMs }) => notAfterMs + listAfterExpiryMs > nowMs)
  }

  isInvited(agent: string): boolean {
    return this.invitations.values().some((invitation) => invitation.agent === agent)
  }

  inGroup(group: string): Member[] {
    return [...this.members.values()].filter(
      ({ labels, revokedMs }) => revokedMs === undefined && isMember(group, labels),
    )
  }

  /** The newest configuration that is for an agent's groups. */
  groupDesired(labels: Labels): Desired | undefined {
    let newest: Desired | undefined
    for (const [group, desired] of this.groups)
      if (isMember(group, labels) && desired.version > (newest?.version ?? 0)) newest = desired
    return newest
  }

  /**
   * Whether an outcome is worth an entry. So a rogue agent adds a bounded number of them for each version
   * that there is.
   */
  isNews({ outcomes }: Member, version: number, state: ReportState): boolean {
    const known = outcomes.get(version)
    if (known) return known.state !== state && known.times < maxChanges
    return outcomes.size < maxOutcomes || version > Math.min(...outcomes.keys())
  }

  apply({ at, by, fact }: Entry<Fact>): void {
    const atMs = Date.parse(at)
    switch (fact.act) {
      case 'invite': {
        const { act: _, ...invitation } = fact
        if (this.invitations.size >= maxInvitations) this.#forgetExpired(atMs)
        this.invitations.set(fact.hash, { ...invitation, key: undefined })
        return
      }
      case 'enrol':
        this.#enrol(fact, atMs)
        return
      case 'confirm': {
        this.invitations.delete(fact.hash)
        const member = this.members.get(fact.agent)
        if (member) member.unconfirmed = undefined
        return
      }
      case 'renew': {
        const member = this.members.get(fact.agent)
        if (!member) return
        const { serial, notAfterMs } = fact
        const kept = member.certificates.filter(
          (each) => each.notAfterMs + certificateAfterlifeMs > atMs,
        )
        member.certificates = [...kept, { serial, notAfterMs }]
        return
      }
      case 'revoke': {
        this.#withdraw(fact.name)
        const member = this.members.get(fact.name)
        if (member) {
          this.#retire(member, atMs)
          member.revokedMs = atMs
        } else this.revokedNames.set(fact.name, atMs)
        return
      }
      case 'label': {
        const member = this.members.get(fact.agent)
        if (member) member.labels = fact.labels
        return
      }
      case 'desire':
        this.#desire(fact, atMs)
        return
      case 'outcome':
        this.#outcome(fact, atMs)
        return
      case 'command': {
        const commands = this.members.get(fact.agent)?.commands
        if (!commands) return
        commands.add(fact.id)
        if (commands.size > maxOpenCommands) commands.delete(commands.values().next().value!)
        return
      }
      case 'result':
        this.members.get(fact.agent)?.commands.delete(fact.id)
        return
      case 'rollout':
        this.rollouts.set(fact.id, {
          id: fact.id,
          plan: fact.plan,
          by,
          startedMs: atMs,
          phase: 'running',
          why: undefined,
          resumedMs: undefined,
          waves: [],
          reverted: [],
        })
        this.#sum.version = Math.max(this.#sum.version, ...fact.plan.versions)
        return
      case 'halt':
      case 'resume':
      case 'finish': {
        const rollout = this.rollouts.get(fact.id)
        if (!rollout) return
        rollout.phase = ({ halt: 'halted', resume: 'running', finish: 'finished' } as const)[
          fact.act
        ]
        rollout.why = fact.why
        if (fact.act === 'resume') rollout.resumedMs = atMs
        const { group, version, digest } = rollout.plan
        // Something newer may have been pushed while it was under way.
        if (fact.act === 'finish' && version > (this.groups.get(group)?.version ?? 0))
          this.groups.set(group, { version, digest, atMs })
        this.#forgetEnded()
        return
      }
    }
  }

  /** A rollout that has halted may yet be resumed, by whoever does so soon enough. */
  #forgetEnded(): void {
    const ended = [...this.rollouts.values()].filter(({ phase }) => phase !== 'running')
    for (const { id } of ended.slice(0, -maxEndedRollouts)) this.rollouts.delete(id)
  }

  #withdraw(agent: string): void {
    for (const [hash, invitation] of this.invitations)
      if (invitation.agent === agent) this.invitations.delete(hash)
  }

  #forgetExpired(nowMs: number): void {
    for (const [hash, { expiresMs }] of this.invitations)
      if (expiresMs <= nowMs) this.invitations.delete(hash)
  }

  #enrol(fact: Extract<Fact, { act: 'enrol' }>, atMs: number): void {
    const { agent, hash, key, serial, notAfterMs } = fact
    const invitation = this.invitations.get(hash)
    this.#withdraw(agent)
    // This one may be redeemed again with the same key, until its certificate is used.
    if (invitation) this.invitations.set(hash, { ...invitation, key })
    const before = this.members.get(agent)
    if (before) this.#retire(before, atMs)
    this.members.set(agent, {
      name: agent,
      labels: invitation?.labels ?? before?.labels ?? {},
      certificates: [{ serial, notAfterMs }],
      key,
      enrolledMs: atMs,
      revokedMs: undefined,
      unconfirmed: hash,
      desired: before?.desired,
      outcomes: before?.outcomes ?? new Map(),
      commands: new Set(),
    })
  }

  #retire(member: Member, atMs: number): void {
    this.#sum.revoked.push(...member.certificates.map((certificate) => ({ ...certificate, atMs })))
    this.#sum.revoked = this.#sum.revoked.filter(
      ({ notAfterMs }) => notAfterMs + listAfterExpiryMs > atMs,
    )
    member.certificates = []
  }

  #desire(fact: Extract<Fact, { act: 'desire' }>, atMs: number): void {
    const { version, digest, agents, group, rollout: id } = fact
    this.#sum.version = Math.max(this.#sum.version, version)
    this.digests.set(version, digest)
    for (const agent of agents) {
      const member = this.members.get(agent)
      if (member) member.desired = { version, digest, atMs }
    }
    const rollout = id === undefined ? undefined : this.rollouts.get(id)
    if (!rollout) {
      if (group !== undefined) this.groups.set(group, { version, digest, atMs })
    } else if (version === rollout.plan.version)
      rollout.waves.push({ agents, offline: fact.offline ?? [], atMs })
    else rollout.reverted = [...rollout.reverted, ...agents]
  }

  #outcome(fact: Extract<Fact, { act: 'outcome' }>, atMs: number): void {
    const outcomes = this.members.get(fact.agent)?.outcomes
    if (!outcomes) return
    const times = (outcomes.get(fact.version)?.times ?? 0) + 1
    outcomes.set(fact.version, { state: fact.state, atMs, why: fact.why, times })
    if (outcomes.size > maxOutcomes) outcomes.delete(Math.min(...outcomes.keys()))
  }
}

function nothingYet(): FleetSum {
  return {
    members: new Map(),
    invitations: new Map(),
    rollouts: new Map(),
    revokedNames: new Map(),
    groups: new Map(),
    digests: new Map(),
    revoked: [],
    version: 0,
  }
}
