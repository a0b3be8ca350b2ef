import {
  type BrokerDialer,
  Marks,
  type MessageGroup,
  Source,
  type SourceOptions,
  sourceSchema,
} from '../../agent/source/source.ts'
import type { StateChange, StateReader } from '../../agent/state.ts'
import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
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

/** A network that a crash cuts off for good. */
class MortalDialer implements BrokerDialer {
  readonly #dialer: BrokerDialer
  readonly #open = new Set<Connection>()
  #dead = false

  constructor(dialer: BrokerDialer) {
    this.#dialer = dialer
  }

  async dial(handlers: ConnectionHandlers, signal: AbortSignal): Promise<Connection> {
    if (this.#dead) return new Promise(() => {})
    const connection = await this.#dialer.dial(handlers, signal)
    this.#open.add(connection)
    return connection
  }

  async password(): Promise<string | undefined> {
    return this.#dialer.password?.()
  }

  die(): void {
    this.#dead = true
    for (const connection of this.#open) connection.destroy()
  }
}

/** One life of an agent's source: from its start to its crash or close. */
export class SourceLife {
  readonly source: Source
  readonly marks: Marks
  readonly state: MemoryState
  readonly #groups: AsyncIterator<MessageGroup, undefined>
  readonly #dialer: MortalDialer

  private constructor(source: Source, marks: Marks, state: MemoryState, dialer: MortalDialer) {
    this.#dialer = dialer
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
      linger: '0ms', // No waiting but where a test is about it.
      ...options.config,
    })
    const dialer = new MortalDialer(options.dialer ?? new FakeBroker())
    const source = Source.open({
      agent: 'gw-001',
      clock: new ManualClock(),
      random: seededRandom(),
      log: silentLog,
      ...options,
      config: { ...config, topics: config.topics! },
      dialer,
      marks,
    })
    return new SourceLife(source, marks, state, dialer)
  }

  /** `kill -9`: from here on it sends nothing, and what it has not committed is gone. */
  crash(): void {
    this.#dialer.die()
    void this.source.close() // Nothing reaches the broker any more; its timers are to end.
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

/** A life on its first connection, in a new session, subscribed. */
export async function subscribedLife<Broker extends FakeBroker = FakeBroker>(
  options: Parameters<typeof SourceLife.begin>[0] & { dialer?: Broker } = {},
) {
  const dialer = options.dialer ?? new FakeBroker()
  const life = await SourceLife.begin({ ...options, dialer })
  const connection = await dialer.accept()
  await life.turn() // The new session's name.
  await connection.subscribed()
  await life.turn() // That it is subscribed.
  return { dialer, life, connection }
}

export function text(payload: Uint8Array): string {
  return Buffer.from(payload).toString('utf8')
}
