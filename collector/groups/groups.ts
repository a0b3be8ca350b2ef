import type { Logger } from '../../shared/log.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import { type Change, Document } from '../log/document.ts'
import { type LogEngine, LogFailure } from '../log/engine.ts'
import type { Notes } from '../log/notes.ts'
import { Group, type GroupState, type Heard, stateSchema } from './group.ts'

/** A request that cannot be fulfilled, with the status of its answer. */
export class GroupProblem extends Error {
  readonly status: number
  readonly code: string
  readonly more: object

  constructor(status: number, code: string, message: string, more: object = {}) {
    super(message)
    this.status = status
    this.code = code
    this.more = more
  }
}

export interface GroupsOptions {
  log: LogEngine
  notes: Notes
  clock: Clock
  random: Random
  logger: Logger
}

/** Groups that there may be, each of some kilobytes at most. */
export const maxGroups = 1_000
/** Groups whose leases are followed here; more have been removed, or never were. */
const maxKept = 2 * maxGroups
/** Code of the problem that there is no such group. */
const noGroup = 'group'
const prefix = 'groups/'
export const groupPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/

/** A group's note, and who of it was heard. */
interface Kept {
  document: Document<GroupState>
  heard: Heard
}

/**
 * Groups of readers, each on one stream: where they are, and who of them reads what. Each is a note, which any
 * collector changes by what it is, so that it does not matter which of them a consumer asks.
 */
export class Groups {
  readonly #options: GroupsOptions
  readonly #kept = new Map<string, Kept>()

  static async open(options: GroupsOptions): Promise<Groups> {
    const groups = new Groups(options)
    // Leases run anew from the start on. Those that others may have renewed are looked at when asked for.
    if (!options.notes.isShared)
      for (const { group, stream } of await groups.list()) await groups.#load(group, stream)
    return groups
  }

  private constructor(options: GroupsOptions) {
    this.#options = options
  }

  /** A file that makes no sense is set aside: its group begins anew, which repeats and loses nothing. */
  async #load(group: string, stream: Stream): Promise<void> {
    const { notes, logger } = this.#options
    try {
      await this.#look(group, stream)
    } catch (err) {
      if (!(err instanceof GroupProblem) || err.code !== 'format') throw err
      logger.error({ err, group, stream }, 'the group cannot be read: it begins anew')
      await notes.setAside?.(nameOf(group, stream))
      this.#kept.delete(nameOf(group, stream))
    }
  }

  /** Every group with its stream. @throws GroupProblem */
  async list(): Promise<{ group: string; stream: Stream }[]> {
    const names = await this.#answered(() => this.#options.notes.list(prefix))
    return names.map(partsOf).filter((parts) => parts !== undefined)
  }

  /** What a group has read, what is left, and who reads it. @throws GroupProblem */
  async describe(group: string, stream: Stream) {
    const known = await this.#look(group, stream)
    const consumers = known.consumers(this.#options.clock.monotonicMs())
    const ranges = await this.#ranges(stream)
    return {
      group,
      stream,
      partitions: known.state.partitions.map(({ next, holder }, partition) => ({
        partition,
        next,
        ...ranges[partition],
        // Offsets, of which retention may have removed some.
        behind: Math.max(0, (ranges[partition]?.end ?? next) - next),
        consumer: holder?.consumer,
      })),
      consumers,
    }
  }

  /** @throws GroupProblem */
  async lease(
    group: string,
    stream: Stream,
    asked: {
      consumer: string
      session: string | undefined
      leaseMs: number
      /** Where a group begins that there is not yet. */
      from: 'beginning' | 'end'
    },
  ) {
    const { random, log } = this.#options
    const ranges = await this.#ranges(stream)
    const fresh = Buffer.from(random.bytes(16)).toString('hex')
    const lease = (known: Group, nowMs: number) => {
      if (known.isFull && !known.has(asked.consumer)) {
        known.consumers(nowMs) // Whose time has ended make room.
        if (known.isFull)
          throw new GroupProblem(429, 'full', 'the group has all the consumers that it may have')
      }
      known.growTo(log.partitions)
      return known.lease(asked, fresh, nowMs)
    }
    const partitions = ranges.map(({ end }) => ({ next: asked.from === 'end' ? end : 0 }))
    const leased = await this.#change(group, stream, lease).catch(async (error) => {
      if (!(error instanceof GroupProblem) || error.code !== noGroup) throw error
      await this.#checkRoom()
      return this.#change(group, stream, lease, { version: 1, partitions })
    })
    if (leased === 'ended')
      throw new GroupProblem(
        409,
        'ended',
        'the leases of this session have ended: begin without one',
      )
    if (leased === 'taken')
      throw new GroupProblem(409, 'taken', 'another consumer of this name has taken its place')
    return {
      session: leased.session,
      leaseMs: asked.leaseMs,
      partitions: leased.partitions.map((each) => ({ ...each, ...ranges[each.partition] })),
    }
  }

  /** Resolves once the cursors survive a power cut. @throws GroupProblem */
  async commit(
    group: string,
    stream: Stream,
    { session, next }: { session: string; next: ReadonlyMap<number, number> },
  ): Promise<void> {
    const ranges = await this.#ranges(stream)
    await this.#change(group, stream, (known, nowMs) => {
      for (const [partition, offset] of next)
        if (offset > (ranges[partition]?.end ?? 0))
          throw new GroupProblem(
            400,
            'query',
            `offset ${offset} of partition ${partition} is beyond its end`,
          )
      const lost = known.commit(session, next, nowMs)
      if (lost.length > 0)
        throw new GroupProblem(
          409,
          'lost',
          `partitions ${lost.join(', ')} are not this session's any more`,
          { lost },
        )
    })
  }

  /** @throws GroupProblem */
  async leave(group: string, stream: Stream, session: string): Promise<void> {
    await this.#change(group, stream, (known) => known.leave(session))
  }

  /** @param next an offset of each partition @throws GroupProblem */
  async seek(group: string, stream: Stream, next: readonly number[]): Promise<void> {
    const { partitions } = this.#options.log
    await this.#change(group, stream, (known, nowMs) => {
      if (next.length !== partitions)
        throw new GroupProblem(400, 'query', `next takes ${partitions} offsets, one a partition`)
      known.growTo(partitions)
      if (!known.seek(next, nowMs))
        throw new GroupProblem(
          409,
          'busy',
          'the group is being read from: stop its consumers first',
        )
    })
  }

  /** Forgets a group, its cursors and leases. @throws GroupProblem */
  async remove(group: string, stream: Stream): Promise<void> {
    await this.#edit(group, stream, (state) => {
      if (!state) throw absent(group, stream)
      return { value: undefined, answer: undefined }
    })
    this.#kept.delete(nameOf(group, stream))
  }

  /**
   * Resolves to what `change` says, once what it did is durable. It may be called more than once.
   *
   * @param initial of a group that is there not yet; without it there must be one
   */
  #change<Answer>(
    group: string,
    stream: Stream,
    change: (known: Group, nowMs: number) => Answer,
    initial?: GroupState,
  ): Promise<Answer> {
    return this.#edit(group, stream, (state = initial, heard) => {
      if (!state) throw absent(group, stream)
      const known = this.#open(state, heard)
      const answer = change(known, this.#options.clock.monotonicMs())
      return { value: known.state, answer }
    })
  }

  #edit<Answer>(
    group: string,
    stream: Stream,
    edit: (state: GroupState | undefined, heard: Heard) => Change<GroupState, Answer>,
  ): Promise<Answer> {
    const { document, heard } = this.#keptOf(group, stream)
    return this.#answered(() => document.change((state) => edit(state, heard)))
  }

  /** A group as it is now. @throws GroupProblem */
  async #look(group: string, stream: Stream): Promise<Group> {
    const { document, heard } = this.#keptOf(group, stream)
    const state = await this.#answered(() => document.read())
    if (state) return this.#open(state, heard)
    if (!document.isBusy) this.#kept.delete(nameOf(group, stream))
    throw absent(group, stream)
  }

  #open(state: GroupState, heard: Heard): Group {
    const { notes, clock } = this.#options
    return new Group(state, { heard, isShared: notes.isShared }, clock.monotonicMs())
  }

  #keptOf(group: string, stream: Stream): Kept {
    const name = nameOf(group, stream)
    let found = this.#kept.get(name)
    if (!found) {
      for (const [other, { document }] of this.#kept)
        if (this.#kept.size > maxKept && !document.isBusy) this.#kept.delete(other)
      found = { document: new Document({ ...this.#options, name, parse }), heard: new Map() }
      this.#kept.set(name, found)
    }
    return found
  }

  async #checkRoom(): Promise<void> {
    const { length } = await this.list()
    if (length >= maxGroups)
      throw new GroupProblem(
        429,
        'full',
        `there are ${maxGroups} groups: remove those that nobody needs`,
      )
  }

  #ranges(stream: Stream): Promise<Range[]> {
    const { log } = this.#options
    return Promise.all(
      Array.from({ length: log.partitions }, async (_, partition) => {
        const { first, next } = (await log.statistics(partition))[stream]
        return { first, end: next }
      }),
    )
  }

  /** @throws GroupProblem when the disk or the cluster does not take it */
  async #answered<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (err) {
      if (!(err instanceof LogFailure)) throw err
      this.#options.logger.error({ err }, 'groups cannot be kept')
      throw new GroupProblem(503, err.code, 'the log does not take it: try again')
    }
  }
}

interface Range {
  /** First offset still there, and the first that is not there yet. */
  first: number
  end: number
}

function parse(text: string): GroupState {
  const { success, data } = stateSchema.safeParse(jsonOf(text))
  if (!success)
    throw new GroupProblem(503, 'format', 'what is kept of the group is of another version')
  return data
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function absent(group: string, stream: Stream): GroupProblem {
  return new GroupProblem(404, noGroup, `no group ${group} reads ${stream}`)
}

function nameOf(group: string, stream: Stream): string {
  return `${prefix}${stream}.${group}`
}

function partsOf(name: string): { group: string; stream: Stream } | undefined {
  const [, stream = '', group = ''] = /^groups\/([a-z]+)\.(.+)$/.exec(name) ?? []
  const known = streams.find((each) => each === stream)
  return known && groupPattern.test(group) ? { group, stream: known } : undefined
}
