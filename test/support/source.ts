import {
  Marks,
  type MessageGroup,
  Source,
  type SourceOptions,
  sourceSchema,
} from '../../agent/source/source.ts'
import type { StateChange, StateReader } from '../../agent/state.ts'
import { FakeBroker } from './fake-broker.ts'
import { ManualClock } from './manual-clock.ts'
import { Seeded } from './seeded.ts'
import { silentLog } from './silent-log.ts'

/** What an outbox keeps for the source, in memory: it outlives the sources of a test, as a disk would. */
export class MemoryState implements StateReader {
  readonly entries = new Map<string, Uint8Array>()

  apply(changes: readonly StateChange[]): void {
    for (const { key, value } of changes)
      if (value) this.entries.set(key, value)
      else this.entries.delete(key)
  }

  async *read(): AsyncIterable<{ key: string; value: Uint8Array }> {
    for (const key of [...this.entries.keys()].sort()) yield { key, value: this.entries.get(key)! }
  }
}

export function seededRandom(seed = 1) {
  const seeded = new Seeded(seed)
  return {
    uniform: () => seeded.uniform(),
    bytes: (length: number) => Uint8Array.from({ length }, () => seeded.below(256)),
  }
}

/** One life of an agent's source: from its start to `stop` or a crash, which is to forget about it. */
export class SourceLife {
  readonly source: Source
  readonly marks: Marks
  readonly state: MemoryState
  readonly #groups: AsyncIterator<MessageGroup, undefined>

  private constructor(source: Source, marks: Marks, state: MemoryState) {
    this.source = source
    this.marks = marks
    this.state = state
    this.#groups = source[Symbol.asyncIterator]()
  }

  static async begin(
    options: Partial<Omit<SourceOptions, 'config' | 'marks'>> & {
      config?: object
      state?: MemoryState
    } = {},
  ): Promise<SourceLife> {
    const state = options.state ?? new MemoryState()
    const marks = await Marks.load(state)
    const config = sourceSchema.parse({
      url: 'mqtt://broker.test',
      topics: ['sensors/#'],
      ...options.config,
    })
    const source = Source.open({
      agent: 'gw-001',
      dialer: new FakeBroker(),
      clock: new ManualClock(),
      random: seededRandom(),
      log: silentLog,
      ...options,
      config: { ...config, topics: config.topics! },
      marks,
    })
    return new SourceLife(source, marks, state)
  }

  async take(): Promise<MessageGroup> {
    const { value } = await this.#groups.next()
    if (!value) throw new Error('the source is closed')
    return value
  }

  /** Sifts and commits; each fresh message gives one reading. */
  commit(group: MessageGroup): { fresh: string[]; repeats: string[] } {
    const { fresh, repeats } = this.marks.sift(group)
    this.state.apply(
      this.marks.commitChanges(
        group,
        fresh.map(() => 1),
      ),
    )
    return {
      fresh: fresh.map(({ payload }) => text(payload)),
      repeats: repeats.map(({ message }) => text(message.payload)),
    }
  }

  /** One turn of the agent's loop. */
  async turn(): Promise<{ fresh: string[]; repeats: string[] }> {
    const group = await this.take()
    const done = this.commit(group)
    this.source.acknowledge(group)
    return done
  }

  /** Turns until `count` messages have come, fresh or not. */
  async turns(count: number): Promise<{ fresh: string[]; repeats: string[] }> {
    const all = { fresh: [] as string[], repeats: [] as string[] }
    while (all.fresh.length + all.repeats.length < count) {
      const { fresh, repeats } = await this.turn()
      all.fresh.push(...fresh)
      all.repeats.push(...repeats)
    }
    return all
  }
}

export function text(payload: Uint8Array): string {
  return Buffer.from(payload).toString('utf8')
}
