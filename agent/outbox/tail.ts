import { z } from 'zod'
import { decodeItem, itemSummary } from '../../shared/batch.ts'
import { chainStart } from '../../shared/chain.ts'
import { duration, size } from '../../shared/config.ts'
import type { Store, StoreChange } from '../../shared/ports.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { type Match, matches } from '../filter/filter.ts'
import { decodeEntry, encodeEntry, seal, unseal } from './entry.ts'
import { parseTailKey, tailKey, tailRange, tailStateKey } from './key.ts'
import { encodeBounded } from './piece.ts'

/** Readings kept as they came, after they have been delivered or suppressed. */
export const tailSchema = z.strictObject({
  bytes: size({ min: '64KiB', max: '1TiB' }).prefault('256MiB'),
  /** By the gateway's wall clock. */
  age: duration({ min: '1m', max: '3650d' }).prefault('7d'),
})
export type TailConfig = z.infer<typeof tailSchema>

/** Readings of one group, encoded. */
export interface TailPiece {
  count: number
  bytes: Uint8Array
}

/** Which readings of a tail are wanted; all of them by default. */
export interface TailQuery {
  /** By the readings' own time, ms: `fromMs` ≤ time < `toMs`. */
  fromMs?: number
  toMs?: number
  /** Globs over the series, as in a filter rule. */
  match?: Match
}

/** What is in a tail. */
export interface TailStock {
  /** Number of the oldest piece, and of the next to come. */
  first: number
  next: number
  readings: number
  /** Of pieces, encoded. */
  bytes: number
  /** When the oldest piece was committed, wall ms; null when there is none. */
  oldestMs: number | null
}

/** What one write does to a tail. */
export interface TailDraft {
  readonly changes: StoreChange[]
  readonly stock: TailStock
}

/** Room is made for more than the next piece, so that not every write has to. */
const spareShare = 0.05
/** Pieces that one write evicts at most. */
const evictedAtOnce = 1_000

/**
 * The raw readings that the agent received last, whatever became of them: bounded by bytes and age, in
 * numbered pieces as they were committed. It holds nothing that is promised to anybody, so where the outbox
 * runs out of room it gives way first.
 *
 * The owner writes what is drafted, one draft at a time, and keeps it then: memory follows the store.
 */
export class Tail {
  readonly #store: Store
  readonly #config: TailConfig
  #stock: TailStock

  private constructor(store: Store, config: TailConfig, stock: TailStock) {
    this.#store = store
    this.#config = config
    this.#stock = stock
  }

  /** Goes on with the tail that is in the store. */
  static async open(store: Store, config: TailConfig): Promise<Tail> {
    const saved = await store.get(tailStateKey)
    const stock = saved && unseal<TailStock>(tailStateKey, saved)
    return new Tail(store, config, stock ?? (await survey(store)))
  }

  get stock(): Readonly<TailStock> {
    return this.#stock
  }

  /**
   * Encodes readings as they came, before a filter marks them.
   *
   * @throws RangeError for what could not be decoded again
   */
  static encode(readings: readonly AdmittedReading[]): TailPiece[] {
    if (readings.length === 0) return []
    const pieces: TailPiece[] = []
    for (const { item, bytes } of encodeBounded({ kind: 'readings', readings: [...readings] }))
      if (item.kind === 'readings') pieces.push({ count: item.readings.length, bytes })
    return pieces
  }

  /**
   * Adds pieces, and evicts the oldest where they need the room; what does not fit then is left out.
   *
   * @param room bytes that the tail may take at most, whatever is configured
   */
  async add(pieces: readonly TailPiece[], room: number, nowMs: number): Promise<TailDraft> {
    const most = Math.min(this.#config.bytes, room)
    const added = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0)
    const draft = this.#draft()
    const { stock, changes } = draft
    if (stock.bytes + added > most) {
      const target = most * (1 - spareShare) - added
      await this.#evict(draft, () => stock.bytes > target)
    }
    for (const { bytes, count } of pieces) {
      if (stock.bytes + bytes.length > most) continue
      const key = tailKey(stock.next++)
      const unnumbered = { received: 0, before: chainStart, after: chainStart }
      const entry = { kind: 'readings', count, committedMs: nowMs, item: bytes } as const
      changes.push({ key, value: encodeEntry(key, { ...entry, ...unnumbered }) })
      stock.readings += count
      stock.bytes += bytes.length
      stock.oldestMs ??= nowMs
    }
    return closed(draft)
  }

  /** Evicts what is too old. */
  async expire(nowMs: number): Promise<TailDraft> {
    const draft = this.#draft()
    const endMs = nowMs - this.#config.age
    const { oldestMs } = draft.stock
    if (oldestMs !== null && oldestMs < endMs)
      await this.#evict(draft, (committedMs) => committedMs < endMs)
    return closed(draft)
  }

  /** The draft has been written. */
  keep({ stock }: TailDraft): void {
    this.#stock = stock
  }

  /** As `readTail`, of what is there when it begins. */
  read(query: TailQuery = {}): AsyncIterable<AdmittedReading> {
    return readTail(this.#store, query)
  }

  #draft(): TailDraft {
    return { changes: [], stock: { ...this.#stock } }
  }

  /** Takes the oldest pieces off as long as `goesOn` says so of when one was committed. */
  async #evict(
    { stock, changes }: TailDraft,
    goesOn: (committedMs: number) => boolean,
  ): Promise<void> {
    const range = tailRange(stock.first)
    for await (const { key, value } of this.#store.read({ ...range, limit: evictedAtOnce + 1 })) {
      const entry = decodeEntry(key, value)
      stock.first = parseTailKey(key) ?? stock.first
      stock.oldestMs = entry?.committedMs ?? stock.oldestMs
      if (changes.length === evictedAtOnce || (entry && !goesOn(entry.committedMs))) return
      changes.push({ key: key.slice(), value: undefined })
      stock.first++
      stock.readings -= entry?.count ?? 0
      stock.bytes -= entry?.item.length ?? 0
    }
    // Nothing is left; what damage has hidden from these numbers is gone too.
    Object.assign(stock, { first: stock.next, readings: 0, bytes: 0, oldestMs: null })
  }
}

/**
 * Raw readings of a tail, also those that the filter suppressed or absorbed, in the order in which they came;
 * a damaged piece is left out.
 */
export async function* readTail(
  store: Pick<Store, 'read'>,
  { fromMs = -Infinity, toMs = Infinity, match = {} }: TailQuery = {},
): AsyncIterable<AdmittedReading> {
  const table = new SeriesTable()
  for await (const { key, value } of store.read(tailRange())) {
    const entry = decodeEntry(key, value)
    if (!entry) continue
    const summary = itemSummary(entry.item)
    if ((summary.toMs ?? Infinity) < fromMs || (summary.fromMs ?? -Infinity) >= toMs) continue
    const item = decodeItem(entry.item, table)
    if (item.kind !== 'readings') continue
    for (const reading of item.readings)
      if (reading.timeMs >= fromMs && reading.timeMs < toMs && matches(match, reading.series))
        yield reading
  }
}

/** Whether an agent has kept a tail in this store, be it empty. */
export async function hasTail(store: Store): Promise<boolean> {
  return (await store.get(tailStateKey)) !== undefined
}

/** What deletes the tail of a store; nothing where it has none. */
export async function clearTail(store: Store): Promise<StoreChange[]> {
  const saved = await store.get(tailStateKey)
  if (!saved) return []
  const changes: StoreChange[] = [{ key: tailStateKey, value: undefined }]
  for await (const { key } of store.read(tailRange()))
    changes.push({ key: key.slice(), value: undefined })
  return changes
}

/** A draft with the new state of the tail among its changes. */
function closed({ changes, stock }: TailDraft): TailDraft {
  if (changes.length > 0) changes.push({ key: tailStateKey, value: seal(tailStateKey, stock) })
  return { changes, stock }
}

/** Counts what is there, where nothing says it. */
async function survey(store: Store): Promise<TailStock> {
  const stock: TailStock = { first: 1, next: 1, readings: 0, bytes: 0, oldestMs: null }
  for await (const { key, value } of store.read(tailRange())) {
    const number = parseTailKey(key)
    const entry = decodeEntry(key, value)
    if (number === undefined || !entry) continue
    if (stock.bytes === 0) stock.first = number
    stock.next = number + 1
    stock.readings += entry.count
    stock.bytes += entry.item.length
    stock.oldestMs ??= entry.committedMs
  }
  return stock
}
