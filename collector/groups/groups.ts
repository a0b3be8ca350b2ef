import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk, Random } from '../../shared/ports.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import { readWhole, replaceFile } from '../log/embedded/snapshot.ts'
import type { LogEngine } from '../log/engine.ts'
import { Group, type GroupState, stateSchema } from './group.ts'

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
  disk: Disk
  clock: Clock
  random: Random
  logger: Logger
}

/** Groups that there may be, each of some kilobytes at most. */
export const maxGroups = 1_000
const directory = 'groups'
export const groupPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/

/** One group, and the file that it is in. */
interface Kept {
  group: Group
  /** Changes since the file was last written. */
  isDirty: boolean
  isRemoved: boolean
  writing: Promise<void> | undefined
}

/**
 * Groups of readers, each on one stream: where they are, and who of them reads what. What was answered for is on disk;
 * a file a group, written whole. Changes that come while it is being written share the next write.
 */
export class Groups {
  readonly #options: GroupsOptions
  readonly #groups = new Map<string, Kept>()

  static async open(options: GroupsOptions): Promise<Groups> {
    const groups = new Groups(options)
    await options.disk.makeDirectory(directory)
    for (const name of await options.disk.list(directory)) await groups.#load(name)
    return groups
  }

  private constructor(options: GroupsOptions) {
    this.#options = options
  }

  /** A file that makes no sense is set aside: its group begins anew, which repeats and loses nothing. */
  async #load(name: string): Promise<void> {
    const { disk, clock, logger } = this.#options
    const [, stream = '', group = ''] = /^([a-z]+)\.(.+)\.json$/.exec(name) ?? []
    if (!streams.includes(stream as Stream) || !groupPattern.test(group)) return
    try {
      const bytes = await readWhole(disk, `${directory}/${name}`)
      const state = stateSchema.parse(JSON.parse(new TextDecoder().decode(bytes)))
      this.#groups.set(keyOf(group, stream as Stream), keep(new Group(state, clock.monotonicMs())))
    } catch (err) {
      logger.error({ err, group, stream }, 'the group cannot be read: it begins anew')
      await disk.rename(`${directory}/${name}`, `${directory}/${name}.damaged`)
    }
  }

  /** Every group with its stream. */
  list(): { group: string; stream: Stream }[] {
    return [...this.#groups.keys()].map((key) => {
      const [stream, group] = splitKey(key)
      return { group, stream }
    })
  }

  /** What a group has read, what is left, and who reads it. @throws GroupProblem */
  async describe(group: string, stream: Stream) {
    const { clock } = this.#options
    const kept = this.#find(group, stream)
    const nowMs = clock.monotonicMs()
    const consumers = kept.group.consumers(nowMs)
    const ranges = await this.#ranges(stream)
    return {
      group,
      stream,
      partitions: kept.group.state.partitions.map(({ next, holder }, partition) => ({
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
    const { clock, random, log } = this.#options
    const ranges = await this.#ranges(stream)
    const known = this.#groups.get(keyOf(group, stream))
    if (known?.isRemoved) this.#find(group, stream)
    const kept = known ?? this.#make(group, stream, asked.from, ranges)
    if (kept.group.isFull && !kept.group.has(asked.consumer)) {
      kept.group.consumers(clock.monotonicMs()) // Whose time has ended make room.
      if (kept.group.isFull)
        throw new GroupProblem(429, 'full', 'the group has all the consumers that it may have')
    }
    kept.group.growTo(log.partitions)
    const before = JSON.stringify(kept.group.state)
    const fresh = Buffer.from(random.bytes(16)).toString('hex')
    const leased = kept.group.lease(asked, fresh, clock.monotonicMs())
    if (leased === 'ended')
      throw new GroupProblem(
        409,
        'ended',
        'the leases of this session have ended: begin without one',
      )
    if (leased === 'taken')
      throw new GroupProblem(409, 'taken', 'another consumer of this name has taken its place')
    if (JSON.stringify(kept.group.state) !== before) kept.isDirty = true
    await this.#save(group, stream, kept)
    const { session, partitions } = leased
    return {
      session,
      leaseMs: asked.leaseMs,
      partitions: partitions.map((each) => ({ ...each, ...ranges[each.partition] })),
    }
  }

  /** Resolves once the cursors survive a power cut. @throws GroupProblem */
  async commit(
    group: string,
    stream: Stream,
    { session, next }: { session: string; next: ReadonlyMap<number, number> },
  ): Promise<void> {
    const kept = this.#find(group, stream)
    const ranges = await this.#ranges(stream)
    for (const [partition, offset] of next)
      if (offset > (ranges[partition]?.end ?? 0))
        throw new GroupProblem(
          400,
          'query',
          `offset ${offset} of partition ${partition} is beyond its end`,
        )
    const lost = kept.group.commit(session, next, this.#options.clock.monotonicMs())
    if (lost.length > 0)
      throw new GroupProblem(
        409,
        'lost',
        `partitions ${lost.join(', ')} are not this session's any more`,
        { lost },
      )
    kept.isDirty = true
    await this.#save(group, stream, kept)
  }

  /** @throws GroupProblem */
  async leave(group: string, stream: Stream, session: string): Promise<void> {
    const kept = this.#find(group, stream)
    kept.group.leave(session)
    kept.isDirty = true
    await this.#save(group, stream, kept)
  }

  /** @param next an offset of each partition @throws GroupProblem */
  async seek(group: string, stream: Stream, next: readonly number[]): Promise<void> {
    const { log, clock } = this.#options
    const kept = this.#find(group, stream)
    if (next.length !== log.partitions)
      throw new GroupProblem(400, 'query', `next takes ${log.partitions} offsets, one a partition`)
    kept.group.growTo(log.partitions)
    if (!kept.group.seek(next, clock.monotonicMs()))
      throw new GroupProblem(409, 'busy', 'the group is being read from: stop its consumers first')
    kept.isDirty = true
    await this.#save(group, stream, kept)
  }

  /** Forgets a group, its cursors and leases. @throws GroupProblem */
  async remove(group: string, stream: Stream): Promise<void> {
    const { disk } = this.#options
    const kept = this.#find(group, stream)
    kept.isRemoved = true
    await kept.writing?.catch(() => {})
    await disk.remove(`${directory}/${fileOf(group, stream)}`)
    await disk.syncDirectory(directory)
    // Last: one of the same name must not be written before.
    this.#groups.delete(keyOf(group, stream))
  }

  #find(group: string, stream: Stream): Kept {
    const kept = this.#groups.get(keyOf(group, stream))
    if (!kept || kept.isRemoved)
      throw new GroupProblem(404, 'group', `no group ${group} reads ${stream}`)
    return kept
  }

  #make(group: string, stream: Stream, from: 'beginning' | 'end', ranges: Range[]): Kept {
    if (this.#groups.size >= maxGroups)
      throw new GroupProblem(
        429,
        'full',
        `there are ${maxGroups} groups: remove those that nobody needs`,
      )
    const partitions = ranges.map(({ end }) => ({ next: from === 'end' ? end : 0 }))
    const kept = keep(new Group({ version: 1, partitions }, this.#options.clock.monotonicMs()))
    kept.isDirty = true
    this.#groups.set(keyOf(group, stream), kept)
    return kept
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

  /** Resolves once all that the group is now is on disk. @throws GroupProblem when the disk does not take it */
  async #save(group: string, stream: Stream, kept: Kept): Promise<void> {
    const { disk, logger } = this.#options
    try {
      while (kept.isDirty || kept.writing) {
        if (kept.writing) {
          // What it writes may be of before the change.
          await kept.writing
          continue
        }
        if (kept.isRemoved) this.#find(group, stream)
        kept.isDirty = false
        kept.writing = writeState(disk, fileOf(group, stream), kept.group.state).finally(() => {
          kept.writing = undefined
        })
        await kept.writing
      }
    } catch (err) {
      if (err instanceof GroupProblem) throw err
      kept.isDirty = true
      logger.error({ err, group, stream }, 'the group cannot be written')
      throw new GroupProblem(503, 'LOG_DISK', 'the disk does not take it: try again')
    }
  }
}

interface Range {
  /** First offset still there, and the first that is not there yet. */
  first: number
  end: number
}

function writeState(disk: Disk, file: string, state: GroupState): Promise<void> {
  const text = `${JSON.stringify(state)}\n`
  return replaceFile(disk, directory, file, (write) => write([new TextEncoder().encode(text)]))
}

function keep(group: Group): Kept {
  return { group, isDirty: false, isRemoved: false, writing: undefined }
}

function keyOf(group: string, stream: Stream): string {
  return `${stream}.${group}`
}

function splitKey(key: string): [Stream, string] {
  const dot = key.indexOf('.')
  return [key.slice(0, dot) as Stream, key.slice(dot + 1)]
}

function fileOf(group: string, stream: Stream): string {
  return `${keyOf(group, stream)}.json`
}
