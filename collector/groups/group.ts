import { z } from 'zod'

/** How a group's readers share the partitions of one stream. Times are monotonic, ms. */

/** Offsets grow past no log's end. */
const offset = z.int().min(0)
export const consumerName = z
  .string()
  .regex(/^[A-Za-z0-9_.:@-]{1,64}$/, 'letters, digits, . _ : @ -')
const session = z.string().regex(/^[0-9a-f]{32}$/, 'a session as it was given')

/** As it is kept: what must not be forgotten over a restart, and what other collectors must know. */
export const stateSchema = z.strictObject({
  version: z.literal(1),
  /** By partition. */
  partitions: z.array(
    z.strictObject({
      /** Offset behind the last record that was committed. */
      next: offset,
      /** Whose it is; another takes it only once the lease has ended. */
      holder: z
        .strictObject({ consumer: consumerName, session, leaseMs: z.int().min(1) })
        .optional(),
    }),
  ),
  /** Whose leases run; where it is left out, the holders. */
  consumers: z
    .array(
      z.strictObject({
        consumer: consumerName,
        session,
        leaseMs: z.int().min(1),
        /** Grows when it is heard, where several collectors must know of it. */
        beat: z.int().min(0),
      }),
    )
    .optional(),
})
export type GroupState = z.output<typeof stateSchema>

interface Consumer {
  session: string
  leaseMs: number
  beat: number
}

/**
 * By session, when this collector has last known it to be heard: its leases end at `untilMs`. Clocks of
 * others are not compared with: whose beat has not changed for as long as its lease runs is gone.
 */
export type Heard = Map<string, { beat: number; untilMs: number }>

/** Live readers of one group, beyond which none is let in. */
export const maxConsumers = 256

/**
 * Cursors and leases of one group on one stream. A partition is one consumer's at a time; each consumer gets its
 * share of them, and what is beyond it goes back when it is next heard. What it holds is known by its session: a
 * consumer that comes under the same name without one takes the place of the one before.
 */
export class Group {
  readonly #partitions: GroupState['partitions']
  readonly #consumers = new Map<string, Consumer>()
  readonly #heard: Heard
  readonly #isShared: boolean

  /**
   * @param state stays as it is
   * @param world.heard leases of whom it does not know run anew from `nowMs` on; kept up to date
   * @param world.isShared other collectors must know who was heard
   */
  constructor(state: GroupState, world: { heard: Heard; isShared: boolean }, nowMs: number) {
    const { heard, isShared } = world
    this.#heard = heard
    this.#isShared = isShared
    this.#partitions = structuredClone(state.partitions)
    const holders = state.partitions.flatMap(({ holder }) =>
      holder ? [{ ...holder, beat: 0 }] : [],
    )
    for (const { consumer, ...known } of state.consumers ?? holders) {
      this.#consumers.set(consumer, known)
      const { session, beat, leaseMs } = known
      if (heard.get(session)?.beat !== beat) heard.set(session, { beat, untilMs: nowMs + leaseMs })
    }
    const sessions = new Set([...this.#consumers.values()].map(({ session }) => session))
    for (const each of heard.keys()) if (!sessions.has(each)) heard.delete(each)
  }

  get state(): GroupState {
    const consumers = [...this.#consumers].map(([consumer, known]) => ({ consumer, ...known }))
    return { version: 1, partitions: this.#partitions, consumers }
  }

  /** Consumers whose leases run, with the time that is left, ms. */
  consumers(nowMs: number): { consumer: string; partitions: number[]; leftMs: number }[] {
    this.#expire(nowMs)
    return [...this.#consumers].map(([consumer, { session }]) => ({
      consumer,
      partitions: this.#heldBy(session),
      leftMs: this.#heard.get(session)!.untilMs - nowMs,
    }))
  }

  /** Partitions that the log has more than before begin where it begins. */
  growTo(partitions: number): void {
    while (this.#partitions.length < partitions) this.#partitions.push({ next: 0 })
  }

  /**
   * Renews a consumer's leases, takes what is free up to its share, and gives back what is beyond.
   *
   * @param fresh a session for one that has none yet
   * @returns what became of the session where it counts no more: its leases have ended, or another consumer of
   *   the name has taken its place
   */
  lease(
    {
      consumer,
      session,
      leaseMs,
    }: { consumer: string; session: string | undefined; leaseMs: number },
    fresh: string,
    nowMs: number,
  ): { session: string; partitions: { partition: number; next: number }[] } | 'ended' | 'taken' {
    this.#expire(nowMs)
    const known = this.#consumers.get(consumer)
    if (session !== undefined && known?.session !== session) return known ? 'taken' : 'ended'
    if (session === undefined && known) this.#release(this.#heldBy(known.session))
    const own = session ?? fresh
    const beat = session === undefined ? 0 : known!.beat
    this.#hear(consumer, { session: own, leaseMs, beat }, nowMs)
    const share = this.#shareOf(consumer)
    this.#release(this.#heldBy(own).slice(share))
    let held = this.#heldBy(own).length
    for (const partition of this.#partitions) {
      if (held >= share) break
      if (partition.holder) continue
      partition.holder = { consumer, session: own, leaseMs }
      held += 1
    }
    const partitions = this.#heldBy(own).map((partition) => {
      const { next, holder } = this.#partitions[partition]!
      holder!.leaseMs = leaseMs
      return { partition, next }
    })
    return { session: own, partitions }
  }

  get isFull(): boolean {
    return this.#consumers.size >= maxConsumers
  }

  has(consumer: string): boolean {
    return this.#consumers.has(consumer)
  }

  /**
   * Moves cursors forward, all or none, and renews the leases.
   *
   * @returns the partitions that the session does not hold: then nothing is committed
   */
  commit(session: string, next: ReadonlyMap<number, number>, nowMs: number): number[] {
    const lost = [...next.keys()].filter(
      (partition) => this.#partitions[partition]?.holder?.session !== session,
    )
    if (lost.length > 0) return lost
    for (const [partition, offset] of next) {
      const held = this.#partitions[partition]!
      held.next = Math.max(held.next, offset)
    }
    for (const [name, consumer] of this.#consumers)
      if (consumer.session === session) this.#hear(name, consumer, nowMs)
    return []
  }

  leave(session: string): void {
    this.#release(this.#heldBy(session))
    for (const [name, consumer] of this.#consumers)
      if (consumer.session === session) this.#consumers.delete(name)
  }

  /** Sets a cursor, which only a group that nobody reads from lets happen. @returns false otherwise */
  seek(next: readonly number[], nowMs: number): boolean {
    this.#expire(nowMs)
    if (this.#consumers.size > 0) return false
    for (const [partition, offset] of next.entries()) this.#partitions[partition]!.next = offset
    return true
  }

  #hear(name: string, { session, leaseMs, beat: before }: Consumer, nowMs: number): void {
    const beat = this.#isShared ? before + 1 : before
    this.#consumers.set(name, { session, leaseMs, beat })
    this.#heard.set(session, { beat, untilMs: nowMs + leaseMs })
  }

  #heldBy(session: string): number[] {
    return [...this.#partitions.keys()].filter(
      (partition) => this.#partitions[partition]!.holder?.session === session,
    )
  }

  #release(partitions: readonly number[]): void {
    for (const partition of partitions) delete this.#partitions[partition]!.holder
  }

  /** All get the same number, but for one more for the first few by name. */
  #shareOf(consumer: string): number {
    const names = [...this.#consumers.keys()].sort()
    const least = Math.floor(this.#partitions.length / names.length)
    const more = this.#partitions.length % names.length
    return least + (names.indexOf(consumer) < more ? 1 : 0)
  }

  #expire(nowMs: number): void {
    for (const [name, { session }] of this.#consumers) {
      if (nowMs < this.#heard.get(session)!.untilMs) continue
      this.#consumers.delete(name)
      this.#release(this.#heldBy(session))
    }
  }
}
