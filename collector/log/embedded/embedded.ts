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
import { Partition, type PartitionOptions } from './partition.ts'
import { readPartition } from './reader.ts'
import { statisticsOf } from './statistics.ts'

export type EmbeddedOptions = Omit<PartitionOptions, 'directory' | 'partition'>

/** Where partitions live below the disk's root: `log/0`, … */
export const logDirectory = 'log'

/** The log engine that needs nothing but a disk. */
export class EmbeddedLog implements LogEngine {
  readonly partitions = 1
  readonly #partition: Partition

  /** Returns a recovered log or throws; no half-open one exists. @throws LogFailure LOG_NEWER */
  static async open(options: EmbeddedOptions): Promise<EmbeddedLog> {
    const place = { directory: `${logDirectory}/0`, partition: 0 }
    return new EmbeddedLog(await Partition.open({ ...options, ...place }))
  }

  private constructor(partition: Partition) {
    this.#partition = partition
  }

  get state(): 'open' | 'healing' | 'closed' {
    return this.#partition.state
  }

  append(entry: Entry): Promise<AppendAnswer> {
    return this.#partition.append(entry)
  }

  async held(agent: string, incarnation: Uint8Array, lane: Lane): Promise<Held> {
    return this.#partition.held(agent, incarnation, lane)
  }

  read(request: ReadRequest): AsyncIterable<LogItem> {
    return readPartition(this.#partition, request)
  }

  async statistics(): Promise<Statistics> {
    return statisticsOf(this.#partition.segments)
  }

  close(): Promise<void> {
    return this.#partition.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
