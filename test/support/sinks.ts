import type { LogRecord } from '../../collector/fanout/record.ts'
import type {
  Refusal,
  Refuse,
  Sink,
  SinkContext,
  SinkKind,
  Slice,
} from '../../collector/sinks/sink.ts'
import type { AdmittedReading, Stream } from '../../shared/reading.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { cleanUp, type Test } from './clean-up.ts'
import { silentLog } from './silent-log.ts'

/** Readings as one agent's, in the log from an offset on; the sequence is the offset and 1. */
export function readingRecords(
  readings: readonly AdmittedReading[],
  options: { from?: number; partition?: number } = {},
): LogRecord[] {
  const { from = 0, partition = 0 } = options
  return readings.map((reading, index) => ({
    ...placeAt(from + index, partition, reading.timeMs),
    stream: 'readings',
    reading,
    boot: new Uint8Array(16),
  }))
}

/** Alerts about one series, in the log from an offset on. */
export function alertRecords(count: number, from = 0): LogRecord[] {
  return Array.from({ length: count }, (_, index) => ({
    ...placeAt(from + index, 0, arrivedMs),
    stream: 'alerts',
    content: {
      timeMs: arrivedMs + index,
      device: 'pump-1',
      metric: 'temperature',
      rule: 'range',
      number: from + index,
    },
  }))
}

const arrivedMs = 1_767_225_700_000

function placeAt(offset: number, partition: number, timeMs: number) {
  return {
    partition,
    offset,
    agent: 'gw-001',
    incarnation: '01'.repeat(16),
    lane: 'bulk' as const,
    sequence: offset + 1,
    arrivedMs,
    fromMs: timeMs,
    toMs: timeMs,
  }
}

/** The slice that some consecutive records make. */
export function sliceOf(records: readonly LogRecord[], changes: Partial<Slice> = {}): Slice {
  const [first, last] = [records[0]!, records.at(-1)!]
  return {
    stream: first.stream,
    partition: first.partition,
    records,
    from: first.offset,
    to: last.offset + 1,
    again: false,
    ...changes,
  }
}

/** What an output is opened with; whatever does not matter has a default. */
export function contextOf(changes: Partial<SinkContext> = {}): SinkContext {
  return {
    name: 'test',
    stream: 'readings',
    partitions: 1,
    origin: 'origin-1',
    isShared: false,
    kept: { value: undefined, write: async () => {} },
    clock: systemClock,
    random: systemRandom,
    logger: silentLog,
    ...changes,
  }
}

/** Opens an output over and over, as a runner does, with one folder. */
export class Outlet<Config> {
  readonly #kind: SinkKind
  readonly #config: Config
  readonly #context: SinkContext
  readonly #refused: Refusal[] = []
  #sink: Sink | undefined

  static async make<Config>(
    t: Test,
    kind: SinkKind,
    config: object,
    changes: Partial<SinkContext> & { stream?: Stream } = {},
  ): Promise<Outlet<Config>> {
    let value: unknown
    const kept = {
      get value() {
        return value
      },
      write: async (written: unknown) => {
        value = JSON.parse(JSON.stringify(written))
      },
    }
    const context = contextOf({ kept, ...changes })
    const outlet = new Outlet<Config>(kind, kind.schema.parse(config) as Config, context)
    cleanUp(t, () => outlet.close())
    return outlet
  }

  private constructor(kind: SinkKind, config: Config, context: SinkContext) {
    this.#kind = kind
    this.#config = config
    this.#context = context
  }

  /** Reasons and offsets of what is in the dead letter. */
  get refused(): { offset: number; reason: string }[] {
    return this.#refused.map(({ record, reason }) => ({ offset: record.offset, reason }))
  }

  /** The open output; whatever it throws closes it. */
  async open(): Promise<Sink> {
    this.#sink ??= await this.#kind.open(this.#config, this.#context)
    return this.#sink
  }

  /** As after a restart. */
  async reopen(): Promise<Sink> {
    await this.close()
    return this.open()
  }

  async write(slice: Slice, signal = new AbortController().signal): Promise<'durable' | 'held'> {
    return this.#trying((sink) => sink.write(slice, this.#refuse, signal))
  }

  async flush(): Promise<void> {
    await this.#trying((sink) => sink.flush?.(new AbortController().signal) ?? Promise.resolve())
  }

  async close(): Promise<void> {
    const sink = this.#sink
    this.#sink = undefined
    await sink?.[Symbol.asyncDispose]()
  }

  #refuse: Refuse = async (refusals) => {
    this.#refused.push(...refusals)
  }

  async #trying<T>(use: (sink: Sink) => Promise<T>): Promise<T> {
    try {
      return await use(await this.open())
    } catch (error) {
      await this.close()
      throw error
    }
  }
}
