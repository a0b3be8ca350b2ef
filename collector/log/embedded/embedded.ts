import crc32c from 'crc-32/crc32c.js'
import type { Disk } from '../../../shared/ports.ts'
import type { Lane } from '../../../shared/reading.ts'
import type {
  AppendAnswer,
  Entry,
  Held,
  LogEngine,
  LogItem,
  ReadRequest,
  Statistics,
} from '../engine.ts'
import { DiskNotes } from './notes.ts'
import { Partition, type PartitionOptions } from './partition.ts'
import { readPartition } from './reader.ts'
import { statisticsOf } from './statistics.ts'

export type EmbeddedOptions = Omit<PartitionOptions, 'directory' | 'partition'> & {
  /** Wanted; those that are there already stay. Default 1. */
  partitions?: number
}

/** Where partitions live below the disk's root: `log/0`, … */
export const logDirectory = 'log'

export function partitionDirectory(partition: number): string {
  return `${logDirectory}/${partition}`
}

/** How many partitions the disk has: they are made one after the other, each with a segment at once. */
export async function countPartitions(disk: Disk): Promise<number> {
  let count = 0
  while ((await disk.list(partitionDirectory(count))).length > 0) count += 1
  return count
}

/** The log engine that needs nothing but a disk. */
export class EmbeddedLog implements LogEngine {
  readonly notes: DiskNotes
  readonly #partitions: readonly Partition[]
  /** Where the log has an agent from before, under whatever number of partitions that was. */
  readonly #homes = new Map<string, Partition>()

  /** Returns a recovered log or throws; no half-open one exists. @throws LogFailure LOG_NEWER */
  static async open({ partitions = 1, ...options }: EmbeddedOptions): Promise<EmbeddedLog> {
    const count = Math.max(partitions, await countPartitions(options.disk))
    const { bytes = Number.POSITIVE_INFINITY } = options.retention
    // An equal share of what the whole log may take.
    const retention = { ...options.retention, bytes: Math.floor(bytes / count) }
    const opened: Partition[] = []
    try {
      for (let partition = 0; partition < count; partition++)
        opened.push(
          await Partition.open({
            ...options,
            retention,
            partition,
            directory: partitionDirectory(partition),
          }),
        )
    } catch (error) {
      await Promise.all(opened.map((partition) => partition.close()))
      throw error
    }
    return new EmbeddedLog(opened, new DiskNotes(options.disk))
  }

  private constructor(partitions: readonly Partition[], notes: DiskNotes) {
    this.#partitions = partitions
    this.notes = notes
    if (partitions.length === 1) return
    for (const partition of partitions)
      for (const agent of partition.agents()) this.#homes.set(agent, partition)
  }

  get partitions(): number {
    return this.#partitions.length
  }

  get state(): 'open' | 'healing' | 'closed' {
    const states = this.#partitions.map(({ state }) => state)
    return states.find((state) => state === 'closed' || state === 'healing') ?? 'open'
  }

  append(entry: Entry): Promise<AppendAnswer> {
    return this.#homeOf(entry.header.agent).append(entry)
  }

  async held(agent: string, incarnation: Uint8Array, lane: Lane): Promise<Held> {
    return this.#homeOf(agent).held(agent, incarnation, lane)
  }

  read(request: ReadRequest): AsyncIterable<LogItem> {
    const partition = this.#partitions[request.partition ?? 0]
    if (!partition) throw new RangeError(`there is no partition ${request.partition}`)
    return readPartition(partition, request)
  }

  async statistics(partition?: number): Promise<Statistics> {
    const wanted = this.#partitions.filter(
      (each) => (partition ?? each.partition) === each.partition,
    )
    return statisticsOf(wanted.map(({ segments }) => segments))
  }

  async retain(): Promise<void> {
    await Promise.all(this.#partitions.map((partition) => partition.retain()))
  }

  async close(): Promise<void> {
    await Promise.all(this.#partitions.map((partition) => partition.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #homeOf(agent: string): Partition {
    const known = this.#homes.get(agent)
    if (known) return known
    const hash = crc32c.str(agent, 0) >>> 0
    return this.#partitions[hash % this.#partitions.length]!
  }
}
