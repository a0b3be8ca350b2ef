import { isDeepStrictEqual } from 'node:util'
import {
  chainItem,
  decodeItem,
  encodeItem,
  type Gap,
  maxBatchItems,
  readingsOf,
} from '../../shared/batch.ts'
import type { Chain } from '../../shared/chain.ts'
import { UserError } from '../../shared/failure.ts'
import type { Ledger } from '../../shared/ledger.ts'
import type { Clock, Random, Store, StoreChange } from '../../shared/ports.ts'
import { type Lane, lanes, SeriesTable } from '../../shared/reading.ts'
import { type Judgement, passingFilter } from '../filter/filter.ts'
import type { StateReader, StateSpace } from '../state.ts'
import { codedStore } from './coded-store.ts'
import type { OutboxConfig } from './config.ts'
import { type Cut, type CutLimits, continueFrom, type Mutable, startCut } from './cut.ts'
import {
  afterLoss,
  type CommitGroup,
  type Draft,
  fill,
  newDraft,
  quarantineRecord,
  refusedReading,
  seriesOf,
} from './draft.ts'
import { decodeEntry, type Entry, encodeEntry, seal, unsealBytes } from './entry.ts'
import { OutboxFailure, type OutboxFailureCode } from './failure.ts'
import { migrate, readMeta, refuseForeign, storeFormat } from './format.ts'
import {
  type Incarnation,
  type Position,
  perLane,
  predecessorEnd,
  startPosition,
} from './incarnation.ts'
import {
  entryKey,
  entryRange,
  incarnationKey,
  metaKey,
  parseEntryKey,
  parseStateKey,
  positionKey,
  stateRange,
  tailRange,
  totalsKey,
} from './key.ts'
import { describeGap, isBare, isGap, split } from './piece.ts'
import { endOf, revive } from './predecessor.ts'
import {
  addToStock,
  gapEntry,
  type LaneStock,
  laneOf,
  latestOf,
  putIncarnation,
  putPosition,
  type Recovered,
  recover,
  type StoredTotals,
} from './recovery.ts'
import { clearTail, Tail, type TailDraft, type TailPiece } from './tail.ts'
import { later, maxThinned, minThinned, type Stretch, thin, worthThinning } from './thinning.ts'
import { copyTotals, countWire, isoTime, type Totals } from './totals.ts'

export { type OutboxConfig, outboxSchema } from './config.ts'
export type { Cut, CutLimits } from './cut.ts'
export type { CommitGroup } from './draft.ts'
export { OutboxFailure } from './failure.ts'

/** Bytes of room that are made at a time at most: the commit that needs it waits. */
const mostMadeRoom = 2 ** 20

/** So many incarnations are remembered once they are delivered, some hundred bytes each. */
const remembered = 64

export interface OutboxOptions {
  store: Store
  clock: Clock
  random: Random
  agent: string
  boot: Uint8Array
  config: OutboxConfig
}

/**
 * Durable first-in, first-out lanes between filter and uplink.
 *
 * Invariants: a sequence is used once, ever, since every start numbers under a new incarnation; between
 * what is delivered and what is numbered there is no hole; memory follows the store, never leads it.
 * After one failed write nothing more is accepted: LevelDB acknowledges writes behind a failed one and
 * then loses them, so the owner closes this outbox and opens another.
 */
export class Outbox implements StateReader, AsyncDisposable {
  readonly #store: Store
  readonly #clock: Clock
  readonly #random: Random
  readonly #boot: Uint8Array
  #config: OutboxConfig
  readonly #incarnations: Map<number, Incarnation>
  readonly #delivered: Map<number, Record<Lane, Position>>
  readonly #numbered: Map<number, Record<Lane, Position>>
  readonly #stock: Record<Lane, LaneStock>
  /** Where the next undelivered entry of a lane may stand: iterating from here skips deleted keys. */
  readonly #head: Record<Lane, { ordinal: number; first: number }>
  /** Last sequence of a lane that may be on its way, per lane: not to be evicted. */
  readonly #pinned: Partial<Record<Lane, { ordinal: number; last: number }>> = {}
  /** How far a lane has been looked through for what could be thinned. */
  readonly #thinnedTo: Partial<Record<Lane, { ordinal: number; first: number }>> = {}
  /** Monotonic time since which a lane has had something to send, ms: the wall clock may jump. */
  readonly #waitingSince: Record<Lane, number>
  readonly #listeners = new Set<() => void>()
  /** Those who wait for room. */
  readonly #waiting = new Set<() => void>()
  /** Damage found at opening, one line each. */
  readonly damage: readonly string[]
  /** Raw readings kept after delivery, where that is configured. */
  tail: Tail | undefined
  #onLoss: (series: Iterable<{ device: string; metric: string }>) => Judgement = () =>
    passingFilter.judge([])
  #totals: Totals
  #current: Incarnation | undefined
  #lastOrdinal: number
  #failure: OutboxFailure | undefined
  #writing: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined

  private constructor(options: OutboxOptions, recovered: Recovered, tail: Tail | undefined) {
    this.#store = options.store
    this.#clock = options.clock
    this.#random = options.random
    this.#boot = options.boot
    this.#config = options.config
    this.#incarnations = recovered.incarnations
    this.#delivered = recovered.delivered
    this.#numbered = recovered.numbered
    this.#stock = recovered.stock
    this.#totals = recovered.totals
    this.damage = recovered.damage
    this.tail = tail
    this.#head = perLane(() => ({ ordinal: 0, first: 0 }))
    this.#waitingSince = perLane(() => options.clock.monotonicMs())
    this.#lastOrdinal = Math.max(0, ...recovered.incarnations.keys())
  }

  /**
   * Returns a recovered outbox or throws; no half-open one exists.
   *
   * @throws UserError when a newer version wrote the store, or it belongs to another agent
   */
  static async open(options: OutboxOptions): Promise<Outbox> {
    const { agent, clock, random } = options
    const store = codedStore(options.store)
    const meta = await readMeta(store)
    if (meta && meta.agent !== agent)
      throw new UserError(
        `the outbox belongs to agent "${meta.agent}", the configuration names "${agent}": ` +
          'give the agent its own data folder',
      )
    if (meta) await migrate(store, meta)
    else await refuseForeign(store)
    const recovered = await recover(store, random, clock.wallMs())
    const { tail: wanted } = options.config
    const tail = wanted && (await Tail.open(store, wanted))
    const outbox = new Outbox({ ...options, store }, recovered, tail)
    const first = { key: metaKey, value: seal(metaKey, { format: storeFormat, agent }) }
    await outbox.#exclusive(async () => {
      const changes = [...recovered.repairs, ...outbox.#forgetDrained()]
      if (!meta) changes.push(first)
      if (!tail) changes.push(...(await clearTail(store)))
      if (changes.length > 0) await outbox.#write(changes, true)
    })
    for (const ordinal of outbox.#halfRenumbered()) await outbox.renumber(ordinal)
    await outbox.#exclusive(async () => {
      for (const lane of lanes) await outbox.#offerAgain(lane)
    })
    return outbox
  }

  /** Incarnations that have something left behind where their heirs say that they end. */
  #halfRenumbered(): number[] {
    return [...this.#incarnations.values()].flatMap(({ predecessor }) => {
      if (!predecessor) return []
      const { ordinal, last } = predecessor
      const numbered = laneOf(this.#numbered, ordinal)
      const delivered = laneOf(this.#delivered, ordinal)
      const isLeft = (lane: Lane) =>
        numbered[lane].sequence > Math.max(last[lane], delivered[lane].sequence)
      return lanes.some(isLeft) ? [ordinal] : []
    })
  }

  /** Takes other bounds over; what is stored stays, and gives way with the next commit where it has to. */
  async configure(config: OutboxConfig): Promise<void> {
    await this.#exclusive(async () => {
      if (!isDeepStrictEqual(config.tail, this.#config.tail)) {
        this.tail = config.tail && (await Tail.open(this.#store, config.tail))
        if (!config.tail) await this.#write(await clearTail(this.#store), false)
      }
      this.#config = config
    })
    this.#roomMade()
  }

  /**
   * What the filter holds, once it has read its state back: what it should hold beyond that went with damaged
   * state. To be called before the first commit, with which it becomes durable.
   */
  settleHeld(held: number): void {
    const { ledger } = this.#totals
    const lost = ledger.buffered - held
    if (lost === 0) return
    ledger.buffered = held
    // Where it holds more, it is the ledger that was damaged.
    if (lost > 0) ledger.lostCorrupt += lost
    else ledger.received -= lost
  }

  /**
   * Makes what became of a group durable, all or nothing.
   *
   * @param durable called as soon as it is, before all that a commit brings with it
   * @throws OutboxFailure; the outbox is then of no more use
   */
  async commit(group: CommitGroup, durable?: () => void): Promise<void> {
    await this.#exclusive(async () => {
      const draft = this.#draft()
      const totals = copyTotals(this.#totals)
      fill(draft, totals, group)
      const tail = await this.#addToTail(group.raw ?? [], draft)
      await this.#write(
        [
          ...draft.changes,
          ...(tail?.changes ?? []),
          this.#putTotals(totals, draft.received, draft),
        ],
        true,
      )
      this.#totals = totals
      this.#keep(draft)
      if (tail) this.tail?.keep(tail)
      durable?.()
      if (this.bytes > this.#config.maxBytes) await this.#evict()
    })
    for (const listener of this.#listeners) listener()
  }

  /**
   * The next undelivered sequences of a lane, up to `maxCount` and about `maxBytes`; at least one entry,
   * or what of it `maxCount` allows. A gap counts as one. Undefined when the lane is empty.
   * Deletes nothing; but what was cut may be on its way, so it is not evicted before it is released.
   */
  cut(lane: Lane, limits: CutLimits): Promise<Cut | undefined> {
    // Never beside an eviction, which would turn what is being read into a gap.
    return this.#exclusive(async () => {
      await this.#offerAgain(lane)
      const cut = await this.#read(lane, limits)
      if (cut) this.#pin(cut)
      return cut
    })
  }

  async #read(lane: Lane, limits: CutLimits): Promise<Cut | undefined> {
    let cut: Mutable<Cut> | undefined
    let counted = 0
    try {
      for await (const { key, value } of this.#store.read(entryRange(lane, this.#head[lane]))) {
        const place = parseEntryKey(key)
        const entry = place && decodeEntry(key, value)
        if (!place || !entry) throw new Error(`an entry of lane ${lane} has become unreadable`)
        const wanted = (limits.last ?? Infinity) - place.first + 1
        const room = isBare(entry) ? wanted : Math.min(wanted, limits.maxCount - counted)
        if (cut) {
          const fits =
            cut.incarnation.ordinal === place.ordinal &&
            cut.bytes + entry.item.length <= limits.maxBytes &&
            cut.items.length < maxBatchItems &&
            (entry.count <= room || (room > 0 && room === wanted))
          if (!fits) {
            cut.more = true
            cut.nextMs = entry.committedMs
            break
          }
        }
        const { taken, rest } =
          entry.count <= room ? { taken: entry, rest: undefined } : split(entry, room)
        counted += isBare(entry) ? 1 : taken.count
        cut ??= startCut(lane, this.#incarnationOf(place.ordinal), place.first, entry)
        cut.last = place.first + taken.count - 1
        cut.after = taken.after
        cut.items.push({ bytes: taken.item, count: taken.count, gap: isBare(taken) })
        cut.bytes += taken.item.length
        cut.received += taken.received
        if (entry.kind === 'records') cut.records += taken.count
        else if (entry.kind === 'readings') cut.derived += taken.count - taken.received
        cut.changes.push({ key: key.slice(), value: undefined })
        cut.entries += 1
        cut.storedBytes += entry.item.length
        if (rest) {
          const restKey = entryKey(lane, place.ordinal, cut.last + 1)
          cut.changes.push({ key: restKey, value: encodeEntry(restKey, rest) })
          cut.endsInGap = entry.kind === 'gap'
          cut.entries -= 1
          cut.storedBytes -= rest.item.length
          cut.more = true
          cut.nextMs = entry.committedMs
          break
        }
      }
    } catch (cause) {
      throw this.#fail('OUTBOX_READ_FAILED', cause)
    }
    return cut
  }

  /**
   * The running hash behind an undelivered sequence of the cut's lane and incarnation; undefined where a gap
   * hides it, or where it is not here.
   */
  async chainAt(
    { lane, incarnation: { ordinal } }: Cut,
    sequence: number,
  ): Promise<Chain | undefined> {
    this.#check()
    try {
      for await (const { key, value } of this.#store.read(entryRange(lane, this.#head[lane]))) {
        const place = parseEntryKey(key)
        const entry = place && decodeEntry(key, value)
        if (place?.ordinal !== ordinal || !entry || place.first > sequence) return undefined
        const room = sequence - place.first + 1
        if (room > entry.count) continue
        if (room === entry.count) return entry.after
        return entry.kind === 'gap' ? undefined : split(entry, room).taken.after
      }
    } catch (cause) {
      throw this.#fail('OUTBOX_READ_FAILED', cause)
    }
    return undefined
  }

  #pin({ lane, incarnation: { ordinal }, last }: Cut): void {
    const before = this.#pinned[lane]
    // A batch cut anew, smaller, does not make the larger one before it undelivered.
    this.#pinned[lane] = {
      ordinal,
      last: before?.ordinal === ordinal ? Math.max(before.last, last) : last,
    }
  }

  #unpin(lane: Lane): void {
    delete this.#pinned[lane]
  }

  /**
   * Deletes what the collector holds durably. Not synced: should the deletion be lost in a crash, the
   * readings are sent again and answered `duplicate`.
   *
   * @param options.wireBytes sizes of the requests that it took, those without an answer too
   */
  async release(cut: Cut, options: { wireBytes?: number } = {}): Promise<void> {
    await this.#exclusive(async () => {
      const { lane, incarnation } = cut
      const totals = copyTotals(this.#totals)
      totals.ledger.forwarded += cut.received
      totals.derivedForwarded += cut.derived
      if (lane === 'quarantine') totals.quarantineForwarded += cut.records
      else totals.recordsForwarded += cut.records
      if (options.wireBytes)
        totals.wire = countWire(totals.wire, options.wireBytes, isoTime(this.#clock.wallMs()))
      const position = { sequence: cut.last, chain: cut.after }
      await this.#write(
        [
          ...(cut.endsInGap ? continueFrom(cut) : cut.changes),
          putPosition(positionKey(incarnation.ordinal, lane), position),
          this.#putTotals(totals, -cut.received),
        ],
        false,
      )
      this.#totals = totals
      laneOf(this.#delivered, incarnation.ordinal)[lane] = position
      const stock = this.#stock[lane]
      stock.entries -= cut.entries
      stock.sequences -= cut.last - cut.first + 1
      stock.received -= cut.received
      stock.bytes -= cut.storedBytes
      stock.oldestMs = stock.entries > 0 ? (cut.nextMs ?? this.#clock.wallMs()) : undefined
      if (!cut.more) this.#waitingSince[lane] = this.#clock.monotonicMs()
      this.#head[lane] = { ordinal: incarnation.ordinal, first: cut.last + 1 }
      this.#unpin(lane)
      this.#roomMade()
    })
  }

  /**
   * Sets one refused sequence aside: a gap stands for it in its lane, and a reading travels on in the
   * quarantine lane. `cut` covers exactly that sequence.
   */
  async refuse(cut: Cut, reason: string): Promise<void> {
    if (cut.last !== cut.first) throw new RangeError('only a single sequence can be refused')
    const item = decodeItem(cut.items[0]!.bytes)
    await this.#exclusive(async () => {
      const draft = this.#draft()
      const [reading] = readingsOf(item)
      if (reading) {
        const record = quarantineRecord(refusedReading(reading, reason))
        draft.append('quarantine', { kind: 'records', records: [record] }, true)
      }
      const gap = gapEntry(
        describeGap('refused', 1, cut.after, [item]),
        cut.before,
        this.#clock.wallMs(),
      )
      const key = entryKey(cut.lane, cut.incarnation.ordinal, cut.first)
      const rest = cut.changes.filter((change) => change.value)
      const totals = copyTotals(this.#totals)
      totals.ledger.quarantined += cut.received
      totals.gaps += 1
      await this.#write(
        [
          { key, value: encodeEntry(key, gap) },
          ...rest,
          ...draft.changes,
          this.#putTotals(totals, -cut.received, draft),
        ],
        true,
      )
      this.#totals = totals
      this.#keep(draft)
      const stock = this.#stock[cut.lane]
      stock.received -= cut.received
      stock.entries += rest.length
      stock.bytes += gap.item.length - cut.storedBytes
      this.#unpin(cut.lane)
    })
  }

  /**
   * Declares `released` what the collector does not hold and this outbox has deleted already (the
   * collector was restored from a backup, or is another one): sequences behind `held` up to what is here.
   *
   * @param where.incarnation the incarnation that the collector speaks of: the cut's own or its predecessor
   * @returns the number of sequences declared; 0 when there was nothing to declare
   */
  async declareReleased(
    cut: Cut,
    where: { incarnation: Uint8Array; held: number; chain: Chain },
  ): Promise<number> {
    return this.#exclusive(async () => {
      const own = Buffer.compare(where.incarnation, cut.incarnation.id) === 0
      const end = own
        ? { ordinal: cut.incarnation.ordinal, last: cut.first - 1, after: cut.before }
        : endOf(cut.incarnation.predecessor, where.incarnation, cut.lane)
      const count = end ? end.last - where.held : 0
      if (!end || count <= 0) return 0
      const revived = this.#incarnations.has(end.ordinal) ? undefined : revive(cut.incarnation)
      const key = entryKey(cut.lane, end.ordinal, where.held + 1)
      const gap = describeGap('released', count, end.after, [])
      const entry = gapEntry(gap, where.chain, this.#clock.wallMs())
      const position = { sequence: where.held, chain: where.chain }
      const totals = copyTotals(this.#totals)
      totals.gaps += count
      totals.doubted = lanes
      await this.#write(
        [
          ...(revived?.changes ?? []),
          { key, value: encodeEntry(key, entry) },
          putPosition(positionKey(end.ordinal, cut.lane), position),
          this.#putTotals(totals, 0),
        ],
        true,
      )
      this.#totals = totals
      if (revived) {
        this.#incarnations.set(end.ordinal, revived.incarnation)
        this.#delivered.set(end.ordinal, { ...revived.ends })
        this.#numbered.set(end.ordinal, revived.ends)
      }
      laneOf(this.#delivered, end.ordinal)[cut.lane] = position
      if (!own)
        laneOf(this.#numbered, end.ordinal)[cut.lane] = { sequence: end.last, chain: end.after }
      addToStock(this.#stock[cut.lane], entry)
      this.#head[cut.lane] = { ordinal: end.ordinal, first: where.held + 1 }
      this.#unpin(cut.lane)
      for (const lane of lanes)
        await this.#offerAgain(lane, lane === cut.lane ? end.ordinal : undefined)
      return count
    })
  }

  /**
   * A collector that has forgotten something may have forgotten more, in lanes and incarnations of which
   * nobody speaks any more. So all that was delivered is offered once more, as gaps: what it holds is a
   * repeat to it, what it has lost is declared thereby.
   *
   * @param told incarnation of which it has just said what it holds
   */
  async #offerAgain(lane: Lane, told?: number): Promise<void> {
    if (this.#pinned[lane] || !this.#totals.doubted.includes(lane)) return
    const totals = copyTotals(this.#totals)
    totals.doubted = totals.doubted.filter((other) => other !== lane)
    const offers: { ordinal: number; entry: Entry }[] = []
    const changes: StoreChange[] = []
    for (const ordinal of [...this.#incarnations.keys()].sort((a, b) => a - b)) {
      const { sequence, chain } = laneOf(this.#delivered, ordinal)[lane]
      if (sequence === 0 || ordinal === told) continue
      const gap = describeGap('released', sequence, chain, [])
      const entry = gapEntry(gap, startPosition.chain, this.#clock.wallMs())
      const key = entryKey(lane, ordinal, 1)
      changes.push({ key, value: encodeEntry(key, entry) })
      changes.push(putPosition(positionKey(ordinal, lane), startPosition))
      offers.push({ ordinal, entry })
    }
    await this.#write([...changes, this.#putTotals(totals, 0)], true)
    this.#totals = totals
    for (const { ordinal, entry } of offers) {
      laneOf(this.#delivered, ordinal)[lane] = startPosition
      addToStock(this.#stock[lane], entry)
    }
    const ordinal = offers[0]?.ordinal ?? Infinity
    if (ordinal <= this.#head[lane].ordinal) this.#head[lane] = { ordinal, first: 1 }
  }

  /**
   * Numbers what an incarnation has not delivered anew, under a new one: the collector holds another
   * history of it (a live snapshot was resumed twice). Done entry by entry, each move atomic, so that a
   * crash in the middle only leaves the rest to be moved again.
   */
  async renumber(ordinal: number): Promise<void> {
    await this.#exclusive(async () => {
      const delivered = { ...laneOf(this.#delivered, ordinal) }
      const target = this.#mint({ ordinal, delivered })
      const ends = perLane(() => startPosition)
      // From here on the old one ends where it is delivered: what is gone from it is moved, not lost.
      const heirs = [...this.#incarnations.values()]
        .filter(({ predecessor }) => predecessor?.ordinal === ordinal)
        .map((heir) => ({ ...heir, predecessor: predecessorEnd(heir.predecessor!, delivered) }))
      await this.#write(
        [
          ...[...heirs, target].map(putIncarnation),
          this.#putTotals(this.#totals, 0, { incarnation: target, ends }),
        ],
        true,
      )
      for (const heir of heirs) this.#incarnations.set(heir.ordinal, heir)
      this.#adopt(target)
      this.#numbered.set(target.ordinal, ends)
      for (const lane of lanes) {
        this.#unpin(lane)
        for await (const { key, value } of this.#store.read(
          entryRange(lane, { ordinal, first: 0 }),
        )) {
          const place = parseEntryKey(key)
          if (!place || place.ordinal !== ordinal) break
          const entry = decodeEntry(key, value)
          if (!entry) throw this.#fail('OUTBOX_READ_FAILED', new Error('an entry is damaged'))
          const { sequence, chain } = ends[lane]
          const item = decodeItem(entry.item)
          const after = item.kind === 'gap' ? chain : chainItem(item, chain)
          const moved: Entry = {
            ...entry,
            before: chain,
            after,
            item: item.kind === 'gap' ? encodeItem({ ...item, after }) : entry.item,
          }
          const movedKey = entryKey(lane, target.ordinal, sequence + 1)
          await this.#write(
            [
              { key: key.slice(), value: undefined },
              { key: movedKey, value: encodeEntry(movedKey, moved) },
              // No hole is left behind.
              putPosition(positionKey(ordinal, lane), {
                sequence: place.first + entry.count - 1,
                chain: entry.after,
              }),
            ],
            true,
          )
          ends[lane] = { sequence: sequence + entry.count, chain: after }
        }
      }
      this.#numbered.set(ordinal, { ...delivered })
    })
  }

  /** The ledger as of the last commit. */
  get ledger(): Ledger {
    const inEntries = lanes.reduce((sum, lane) => sum + this.#stock[lane].received, 0)
    const { ledger } = this.#totals
    return { ...ledger, buffered: ledger.buffered + inEntries }
  }

  get totals(): Readonly<Totals> {
    return this.#totals
  }

  /** What waits in a lane. */
  stock(lane: Lane): Readonly<LaneStock> {
    return this.#stock[lane]
  }

  /** Monotonic time since which a lane has had something to send, ms. */
  waitingSinceMs(lane: Lane): number {
    return this.#waitingSince[lane]
  }

  /** Bytes of items in all lanes. */
  get bytes(): number {
    return lanes.reduce((sum, lane) => sum + this.#stock[lane].bytes, 0)
  }

  /** True for the incarnation that this process numbers under. */
  isCurrent(incarnation: Incarnation): boolean {
    return incarnation.ordinal === this.#current?.ordinal
  }

  /** The last sequence that a lane of an incarnation has given out; 0 for none. */
  numberedTo({ ordinal }: Incarnation, lane: Lane): number {
    return laneOf(this.#numbered, ordinal)[lane].sequence
  }

  get current(): Incarnation | undefined {
    return this.#current
  }

  /** More is stored than `maxBytes`, and no lane gives way: the source has to wait. */
  get full(): boolean {
    return this.bytes > this.#config.maxBytes
  }

  /** `callback` is told of series that an eviction takes readings from; its verdicts join that write. */
  whenLost(callback: (series: Iterable<{ device: string; metric: string }>) => Judgement): void {
    this.#onLoss = callback
  }

  /** Resolves once it is not full any more, or the signal aborts. */
  async room(signal: AbortSignal): Promise<void> {
    while (this.full && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting.add(resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
      await promise
      this.#waiting.delete(resolve)
    }
  }

  #roomMade(): void {
    for (const resolve of this.#waiting) resolve()
  }

  /** Gives disk space back: the tail's, and that of what is delivered, which LevelDB may keep for long. */
  async reclaim(): Promise<void> {
    await this.#exclusive(() => this.#shorten((tail) => tail.add([], 0, this.#clock.wallMs())))
    if (this.tail) await this.#store.compact?.(tailRange())
    for (const lane of lanes) {
      const { gte, lt } = entryRange(lane)
      // Only up to what still waits: to rewrite that would take as much space again.
      const end = this.#stock[lane].entries > 0 ? entryRange(lane, this.#head[lane]).gte : lt
      await this.#store.compact?.({ gte, lt: end })
    }
  }

  /** Calls back after each commit; returns the function that ends it. */
  onCommit(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async *read(space: StateSpace): AsyncIterable<{ key: string; value: Uint8Array }> {
    for await (const { key, value } of this.#store.read(stateRange(space))) {
      const state = unsealBytes(key, value)
      if (state) yield { key: parseStateKey(key), value: state }
    }
  }

  /** Finishes writes in flight; safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#writing.then(
      () => this.#store.close(),
      () => this.#store.close(),
    )
    return this.#closing
  }

  [Symbol.asyncDispose] = () => this.close()

  #incarnationOf(ordinal: number): Incarnation {
    const incarnation = this.#incarnations.get(ordinal)
    if (!incarnation) throw new Error(`incarnation ${ordinal} is unknown`)
    return incarnation
  }

  /** `instead` names where the predecessor ends when its rest moves to the new incarnation. */
  #mint(instead?: { ordinal: number; delivered: Record<Lane, Position> }): Incarnation {
    const before = this.#incarnations.get(this.#lastOrdinal)
    const end =
      before &&
      (instead?.ordinal === before.ordinal
        ? instead.delivered
        : laneOf(this.#numbered, before.ordinal))
    return {
      ordinal: this.#lastOrdinal + 1,
      id: this.#random.bytes(16),
      boot: this.#boot,
      predecessor: before && end && predecessorEnd(before, end),
    }
  }

  #adopt(incarnation: Incarnation): void {
    this.#incarnations.set(incarnation.ordinal, incarnation)
    this.#lastOrdinal = incarnation.ordinal
    this.#current = incarnation
  }

  /** The tail gives way to what the lanes need. */
  #addToTail(raw: readonly TailPiece[], { added }: Draft): Promise<TailDraft> | undefined {
    const stored = added.reduce((sum, { entry }) => sum + entry.item.length, this.bytes)
    return this.tail?.add(raw, this.#config.maxBytes - stored, this.#clock.wallMs())
  }

  /** Drops what is stored of incarnations that are delivered and that nothing names any more. */
  #forgetDrained(): StoreChange[] {
    const drained = (ordinal: number) =>
      lanes.every(
        (lane) =>
          laneOf(this.#numbered, ordinal)[lane].sequence ===
          laneOf(this.#delivered, ordinal)[lane].sequence,
      )
    const changes: StoreChange[] = []
    for (const ordinal of [...this.#incarnations.keys()].sort((a, b) => a - b)) {
      // The latest are offered again where a collector has forgotten something, the very latest is the next
      // one's predecessor; and one with an undelivered successor may still be asked for.
      const named = ordinal > this.#lastOrdinal - remembered || !drained(ordinal + 1)
      if (named || !drained(ordinal)) continue
      changes.push({ key: incarnationKey(ordinal), value: undefined })
      for (const lane of lanes) changes.push({ key: positionKey(ordinal, lane), value: undefined })
      this.#incarnations.delete(ordinal)
      this.#delivered.delete(ordinal)
      this.#numbered.delete(ordinal)
    }
    return changes
  }

  /** Makes room: the oldest that was never sent goes first, `bulk` before `quarantine` before `urgent`. */
  async #evict(): Promise<void> {
    const { maxBytes } = this.#config
    const target = maxBytes - Math.min(maxBytes * 0.05, mostMadeRoom)
    for (const lane of ['bulk', 'quarantine', 'urgent'] as const) {
      const policy = this.#config.whenFull[lane]
      if (policy === 'thin') while (this.bytes > target && (await this.#thin(lane))) {}
      if (policy !== 'block')
        while (this.bytes > target) {
          const wanted = this.bytes - target
          if (!(await this.#giveUp(lane, 'evicted', (_, freed) => freed < wanted))) break
        }
    }
  }

  /**
   * Thins the oldest readings of a lane that are whole, some thousands of them: one gap, which carries those
   * that are left, takes their place. False when there are none any more that would get smaller.
   */
  async #thin(lane: Lane): Promise<boolean> {
    for (;;) {
      const stretch = await this.#wholeReadings(lane)
      if (!stretch) return false
      const { ordinal, first, victims } = stretch
      this.#thinnedTo[lane] = { ordinal, first: first + stretch.count }
      const table = new SeriesTable()
      const left = thin(
        victims.flatMap(({ entry }) => readingsOf(decodeItem(entry.item, table))),
        table,
      )
      if (!left) continue
      const { before } = victims[0]!.entry
      const { after, committedMs } = victims.at(-1)!.entry
      const { count } = stretch
      const received = left.kept.readings.length
      const gap: Gap = { ...left, count, reason: 'thinned', after, atLeast: false }
      const entry = { ...gapEntry(gap, before, committedMs), received }
      if (entry.item.length > stretch.bytes * worthThinning) continue
      const key = entryKey(lane, ordinal, first)
      const totals = copyTotals(this.#totals)
      totals.ledger.evicted += count - received
      totals.gaps += count - received
      await this.#write(
        [
          ...victims.map((victim) => ({ key: victim.key, value: undefined })),
          { key, value: encodeEntry(key, entry) },
          this.#putTotals(totals, received - count),
        ],
        true,
      )
      this.#totals = totals
      const stock = this.#stock[lane]
      stock.entries -= victims.length - 1
      stock.received -= count - received
      stock.bytes += entry.item.length - stretch.bytes
      return true
    }
  }

  /** Consecutive entries of readings that were never sent or thinned, from where thinning has come. */
  async #wholeReadings(lane: Lane): Promise<Stretch | undefined> {
    const pinned = this.#pinned[lane]
    const free = pinned ? { ordinal: pinned.ordinal, first: pinned.last + 1 } : this.#head[lane]
    let stretch: Stretch | undefined
    for await (const { key, value } of this.#store.read(
      entryRange(lane, later(free, this.#thinnedTo[lane])),
    )) {
      const at = parseEntryKey(key)
      const entry = at && decodeEntry(key, value)
      if (!at || !entry) throw this.#fail('OUTBOX_READ_FAILED', new Error('an entry is damaged'))
      // What the filter made itself balances apart, and is little.
      const isWhole = entry.kind === 'readings' && entry.received === entry.count
      const ends =
        !isWhole ||
        (stretch &&
          (at.ordinal !== stretch.ordinal ||
            stretch.count + entry.count > maxThinned.readings ||
            stretch.bytes + entry.item.length > maxThinned.bytes))
      if (ends && stretch && stretch.count >= minThinned) return stretch
      if (ends) stretch = undefined
      if (!isWhole) continue
      stretch ??= { ordinal: at.ordinal, first: at.first, victims: [], count: 0, bytes: 0 }
      stretch.victims.push({ key: key.slice(), entry })
      stretch.count += entry.count
      stretch.bytes += entry.item.length
    }
    return stretch && stretch.count >= minThinned ? stretch : undefined
  }

  /**
   * Drops what is older than `expiry`, as gaps, and what is too old for the tail.
   *
   * @throws OutboxFailure
   */
  async expire(): Promise<void> {
    await this.#exclusive(() => this.#shorten((tail) => tail.expire(this.#clock.wallMs())))
    const { expiry } = this.#config
    if (expiry === undefined) return
    await this.#exclusive(async () => {
      const endMs = this.#clock.wallMs() - expiry
      for (const lane of lanes)
        while (await this.#giveUp(lane, 'expired', ({ committedMs }) => committedMs < endMs)) {}
      this.#roomMade()
    })
  }

  /** Writes what `cut` takes off the tail, until it takes off nothing more. */
  async #shorten(cut: (tail: Tail) => Promise<TailDraft>): Promise<void> {
    const { tail } = this
    while (tail) {
      const draft = await cut(tail)
      if (draft.changes.length === 0) return
      await this.#write(draft.changes, false)
      tail.keep(draft)
    }
  }

  /**
   * Turns up to 1,000 of a lane's oldest entries into one gap, as long as `goesOn` says so of an entry and
   * the bytes freed before it; false when there is nothing to take.
   */
  async #giveUp(
    lane: Lane,
    reason: 'evicted' | 'expired',
    goesOn: (entry: Entry, freed: number) => boolean,
  ): Promise<boolean> {
    const pinned = this.#pinned[lane]
    const from = pinned ? { ordinal: pinned.ordinal, first: pinned.last + 1 } : this.#head[lane]
    let victims: { key: Uint8Array; entry: Entry }[] = []
    let place: { ordinal: number; first: number } | undefined
    let freed = 0
    for await (const { key, value } of this.#store.read({
      ...entryRange(lane, from),
      limit: 1_001,
    })) {
      const at = parseEntryKey(key)
      const entry = at && decodeEntry(key, value)
      if (!at || !entry) throw this.#fail('OUTBOX_READ_FAILED', new Error('an entry is damaged'))
      if (place && at.ordinal !== place.ordinal) break
      // A gap of the same kind is taken in, so that gaps do not pile up; behind others start anew.
      if (isBare(entry) && !isGap(entry, reason)) {
        if (freed > 0) break
        victims = []
        place = undefined
        continue
      }
      if (!isBare(entry) && !goesOn(entry, freed)) break
      place ??= { ordinal: at.ordinal, first: at.first }
      victims.push({ key: key.slice(), entry })
      freed += isBare(entry) ? 0 : entry.item.length
      if (victims.length >= 1_000) break
    }
    if (!place || freed === 0) return false
    const last = victims.at(-1)!.entry
    const count = victims.reduce((sum, { entry }) => sum + entry.count, 0)
    const items = victims.map(({ entry }) => decodeItem(entry.item))
    const gap = describeGap(reason, count, last.after, items)
    const entry = gapEntry(gap, victims[0]!.entry.before, this.#clock.wallMs())
    const key = entryKey(lane, place.ordinal, place.first)
    const received = victims.reduce((sum, victim) => sum + victim.entry.received, 0)
    const totals = copyTotals(this.#totals)
    // A reduction must not lean on a reading that is gone: it starts anew in the same write.
    const draft = this.#draft()
    fill(draft, totals, afterLoss(this.#onLoss(seriesOf(items))))
    totals.ledger.evicted += received
    totals.gaps += victims.reduce(
      (sum, { entry }) => sum + (entry.kind === 'gap' ? entry.received : entry.count),
      0,
    )
    await this.#write(
      [
        ...victims.map((victim) => ({ key: victim.key, value: undefined })),
        { key, value: encodeEntry(key, entry) },
        ...draft.changes,
        this.#putTotals(totals, draft.received - received, draft),
      ],
      true,
    )
    this.#totals = totals
    this.#keep(draft)
    const stock = this.#stock[lane]
    stock.entries -= victims.length - 1
    stock.received -= received
    stock.bytes +=
      entry.item.length - victims.reduce((sum, victim) => sum + victim.entry.item.length, 0)
    return true
  }

  /** Collects what one write adds behind the ends of the lanes; memory follows in `#keep`. */
  #draft(): Draft {
    const minted = this.#current ? undefined : this.#mint()
    const incarnation = this.#current ?? minted
    if (!incarnation) throw new TypeError('no incarnation to number under')
    const ends = laneOf(this.#numbered, incarnation.ordinal)
    return newDraft({ minted, incarnation, ends, nowMs: this.#clock.wallMs() })
  }

  #keep({ minted, incarnation, ends, added }: Draft): void {
    if (minted) this.#adopt(minted)
    this.#numbered.set(incarnation.ordinal, ends)
    for (const { lane, entry } of added) {
      if (this.#stock[lane].entries === 0) this.#waitingSince[lane] = this.#clock.monotonicMs()
      addToStock(this.#stock[lane], entry)
    }
  }

  /** @param numbering where the same write brings it; as it is, by default */
  #putTotals(
    totals: Totals,
    addedReadings: number,
    numbering: { incarnation: Incarnation | undefined; ends: Record<Lane, Position> } = {
      incarnation: this.#incarnations.get(this.#lastOrdinal),
      ends: laneOf(this.#numbered, this.#lastOrdinal),
    },
  ): StoreChange {
    const inEntries =
      lanes.reduce((sum, lane) => sum + this.#stock[lane].received, 0) + addedReadings
    const latest = latestOf(numbering.incarnation, numbering.ends)
    return {
      key: totalsKey,
      value: seal(totalsKey, { ...totals, inEntries, latest } satisfies StoredTotals),
    }
  }

  /** One writer at a time, since every write carries the ledger. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = async () => {
      this.#check()
      return work()
    }
    const result = this.#writing.then(run, run)
    this.#writing = result.catch(() => {})
    return result
  }

  async #write(changes: StoreChange[], sync: boolean): Promise<void> {
    try {
      await this.#store.write(changes, { sync })
    } catch (cause) {
      throw this.#fail('OUTBOX_WRITE_FAILED', cause)
    }
  }

  #fail(code: OutboxFailureCode, cause: unknown): OutboxFailure {
    this.#failure ??=
      cause instanceof OutboxFailure
        ? cause
        : new OutboxFailure(code, cause instanceof Error ? cause.message : String(cause), { cause })
    return this.#failure
  }

  #check(): void {
    if (this.#failure) throw this.#failure
  }
}
