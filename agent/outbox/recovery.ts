import { encodeItem, type Gap } from '../../shared/batch.ts'
import { type Chain, sameChain } from '../../shared/chain.ts'
import type { Random, Store, StoreChange } from '../../shared/ports.ts'
import { type Lane, lanes } from '../../shared/reading.ts'
import { decodeEntry, type Entry, encodeEntry, seal, unseal } from './entry.ts'
import {
  fromStored,
  type Incarnation,
  type Position,
  perLane,
  positionsOf,
  predecessorEnd,
  type StoredIncarnation,
  startPosition,
  toStored,
} from './incarnation.ts'
import {
  entryKey,
  entryRange,
  incarnationKey,
  incarnationRange,
  parseEntryKey,
  parseIncarnationKey,
  parsePositionKey,
  positionRange,
  totalsKey,
} from './key.ts'
import { emptyTotals, type Totals } from './totals.ts'

/** What stands in a lane, delivered or not. */
export interface LaneStock {
  entries: number
  sequences: number
  /** Readings that count as `buffered`. */
  received: number
  bytes: number
  /** Wall time of the oldest entry's commit, ms. */
  oldestMs: number | undefined
}

export interface Recovered {
  incarnations: Map<number, Incarnation>
  /** How far each lane of each incarnation is delivered. */
  delivered: Map<number, Record<Lane, Position>>
  /** How far each lane of each incarnation is numbered. */
  numbered: Map<number, Record<Lane, Position>>
  stock: Record<Lane, LaneStock>
  totals: Totals
  /** Declares what is missing; to be written before anything else. */
  repairs: StoreChange[]
  /** One line for each damage found. */
  damage: string[]
}

/**
 * Reads the whole store once, in constant memory, and checks what LevelDB does not: that every entry is
 * whole (CRC-32C), that sequences leave no hole, that the running hash goes on. LevelDB drops damaged
 * records without a word; here a hole becomes a declared gap `lost_corrupt`.
 */
export async function recover(store: Store, random: Random, nowMs: number): Promise<Recovered> {
  const damage: string[] = []
  const repairs: StoreChange[] = []
  const stored = await readTotals(store, damage)
  const incarnations = new Map<number, Incarnation>()
  for await (const { key, value } of store.read(incarnationRange)) {
    const ordinal = parseIncarnationKey(key)
    const content = unseal<StoredIncarnation>(key, value)
    if (ordinal !== undefined && content) incarnations.set(ordinal, fromStored(ordinal, content))
  }
  // Where the record of the newest is damaged, the last write knows as much.
  const latest =
    stored?.latest && fromStored(stored.latest.ordinal, { boot: '00'.repeat(16), ...stored.latest })
  const known = latest ? new Map([[latest.ordinal, latest], ...incarnations]) : incarnations
  const delivered = new Map<number, Record<Lane, Position>>()
  const numbered = new Map<number, Record<Lane, Position>>()
  for await (const { key, value } of store.read(positionRange)) {
    const place = parsePositionKey(key)
    const content = unseal<StoredPosition>(key, value)
    if (place && content) laneOf(delivered, place.ordinal)[place.lane] = readPosition(content)
  }
  for (const [ordinal, positions] of delivered) numbered.set(ordinal, { ...positions })

  const stock = perLane(emptyStock)
  let atLeast = false
  for (const lane of lanes) {
    const add = (entry: Entry, ordinal: number) => {
      const ends = laneOf(numbered, ordinal)
      ends[lane] = { sequence: ends[lane].sequence + entry.count, chain: entry.after }
      addToStock(stock[lane], entry)
    }
    const declareLost = (ordinal: number, count: number, after: Chain, endUnknown: boolean) => {
      const end = laneOf(numbered, ordinal)[lane]
      const first = end.sequence + 1
      const entry = gapEntry(
        {
          count,
          reason: 'lost_corrupt',
          after,
          series: [],
          fromMs: undefined,
          toMs: undefined,
          atLeast: endUnknown,
        },
        end.chain,
        nowMs,
      )
      const key = entryKey(lane, ordinal, first)
      repairs.push({ key, value: encodeEntry(key, entry) })
      damage.push(
        `lane ${lane}: ${endUnknown ? 'at least ' : ''}${count} lost from sequence ${first} on`,
      )
      add(entry, ordinal)
    }
    // What is missing at the end leaves no hole: others know how far an incarnation went.
    const declareEnd = (ordinal: number) => {
      const end = knownEnd(ordinal, known, stored?.latest)?.[lane]
      const missing = end && end.sequence - laneOf(numbered, ordinal)[lane].sequence
      if (missing && missing > 0) declareLost(ordinal, missing, end.chain, false)
    }
    // A damaged entry whose end is not known until the next whole one is seen.
    let open: { ordinal: number; end: number } | undefined
    const settle = (next?: { ordinal: number }) => {
      if (!open || open.ordinal === next?.ordinal) return
      const { ordinal, end } = open
      open = undefined
      declareEnd(ordinal)
      if (laneOf(numbered, ordinal)[lane].sequence > end) return
      declareLost(ordinal, 1, laneOf(numbered, ordinal)[lane].chain, true)
      atLeast = true
    }
    for await (const { key, value } of store.read(entryRange(lane))) {
      const place = parseEntryKey(key)
      const entry = place && decodeEntry(key, value)
      if (!place || !entry) {
        repairs.push({ key: key.slice(), value: undefined })
        damage.push(`lane ${lane}: an entry is damaged`)
        if (place) {
          settle(place)
          open = {
            ordinal: place.ordinal,
            end: laneOf(numbered, place.ordinal)[lane].sequence,
          }
        }
        continue
      }
      settle(place)
      const end = laneOf(numbered, place.ordinal)[lane]
      const missing = place.first - 1 - end.sequence
      if (missing < 0) {
        // Delivered already, yet still here.
        repairs.push({ key: key.slice(), value: undefined })
        damage.push(`lane ${lane}: sequence ${place.first} stands twice`)
        continue
      }
      open = undefined
      if (missing > 0) declareLost(place.ordinal, missing, entry.before, false)
      else if (!sameChain(entry.before, end.chain))
        damage.push(`lane ${lane}: the running hash breaks at sequence ${place.first}`)
      add(entry, place.ordinal)
    }
    settle()
    // The one before the newest is always stored.
    const before = latest?.predecessor ? [latest.predecessor.ordinal] : []
    for (const ordinal of new Set([...known.keys(), ...numbered.keys(), ...before]))
      declareEnd(ordinal)
  }

  for (const ordinal of [...numbered.keys()].sort((a, b) => a - b))
    if (!incarnations.has(ordinal)) {
      const name = nameOf(ordinal, known)
      const before = incarnations.get(ordinal - 1)
      // Where nothing knows the name, its entries go out under a new one.
      const named = {
        ordinal,
        id: name ?? random.bytes(16),
        boot: new Uint8Array(16),
        predecessor: name && before && predecessorEnd(before, laneOf(numbered, before.ordinal)),
      }
      incarnations.set(ordinal, named)
      repairs.push(putIncarnation(named))
      damage.push(`incarnation ${ordinal} ${name ? 'was damaged' : 'has lost its name'}`)
    }

  const totals = settleTotals(stored, stock, damage, atLeast)
  return { incarnations, delivered, numbered, stock, totals, repairs, damage }
}

/** Undefined where there is none, or a damaged one. */
async function readTotals(store: Store, damage: string[]): Promise<StoredTotals | undefined> {
  const value = await store.get(totalsKey)
  const stored = value && unseal<StoredTotals>(totalsKey, value)
  if (value && !stored) damage.push('the ledger is damaged and starts anew')
  return stored
}

/**
 * What the stored ledger misses in entries is lost. What it does not expect there has been delivered and
 * counted, but its deletion, which is not synced, did not survive: it will be delivered and counted again.
 */
function settleTotals(
  stored: StoredTotals | undefined,
  stock: Record<Lane, LaneStock>,
  damage: string[],
  atLeast: boolean,
): Totals {
  const found = lanes.reduce((sum, lane) => sum + stock[lane].received, 0)
  const {
    inEntries = found,
    latest: _,
    ...totals
  } = { ...emptyTotals(), ...stored } as StoredTotals
  const lost = inEntries - found
  if (!stored) totals.ledger.received += found
  else if (lost > 0) {
    totals.ledger.lostCorrupt += lost
    damage.push(`${atLeast ? 'at least ' : ''}${lost} readings are lost to damage`)
  } else if (lost < 0) totals.ledger.forwarded += lost
  return totals
}

/** Where an incarnation ended, as the last write or the incarnation behind it remembers. */
function knownEnd(
  ordinal: number,
  incarnations: ReadonlyMap<number, Incarnation>,
  latest: StoredTotals['latest'],
): Record<Lane, Position> | undefined {
  if (latest?.ordinal === ordinal) return perLane((lane) => readPosition(latest.ends[lane]))
  const end = [...incarnations.values()].find(
    (one) => one.predecessor?.ordinal === ordinal,
  )?.predecessor
  return end && positionsOf(end)
}

/** The name that an incarnation had, as it or the one behind it remembers. */
function nameOf(
  ordinal: number,
  incarnations: ReadonlyMap<number, Incarnation>,
): Uint8Array | undefined {
  const successor = [...incarnations.values()].find((one) => one.predecessor?.ordinal === ordinal)
  return incarnations.get(ordinal)?.id ?? successor?.predecessor?.id
}

/** The totals with what else only the last write knows. */
export interface StoredTotals extends Totals {
  /** Readings in entries at the time of writing. */
  inEntries?: number | undefined
  /**
   * The incarnation that was numbered under last, how far, and where the one before it ended: damage at their ends may
   * show by this alone.
   */
  latest?: StoredLatest | undefined
}

type StoredName = Omit<StoredIncarnation, 'boot'> & { ordinal: number }
type StoredLatest = StoredName & { ends: Record<Lane, StoredPosition> }

/** An incarnation is the same with each write. */
const storedNames = new WeakMap<Incarnation, StoredName>()

export function latestOf(
  incarnation: Incarnation | undefined,
  ends: Record<Lane, Position>,
): StoredLatest | undefined {
  if (!incarnation) return undefined
  let name = storedNames.get(incarnation)
  if (!name) {
    const { boot: _, ...stored } = toStored(incarnation)
    name = { ordinal: incarnation.ordinal, ...stored }
    storedNames.set(incarnation, name)
  }
  return { ...name, ends: perLane((lane) => toStoredPosition(ends[lane])) }
}

interface StoredPosition {
  sequence: number
  chain: [number, number]
}

export function putPosition(key: Uint8Array, position: Position): StoreChange {
  return { key, value: seal(key, toStoredPosition(position)) }
}

function toStoredPosition({ sequence, chain }: Position): StoredPosition {
  return { sequence, chain: [chain.high, chain.low] }
}

function readPosition({ sequence, chain: [high, low] }: StoredPosition): Position {
  return { sequence, chain: { high, low } }
}

export function putIncarnation(incarnation: Incarnation): StoreChange {
  const key = incarnationKey(incarnation.ordinal)
  return { key, value: seal(key, toStored(incarnation)) }
}

export function laneOf(
  positions: Map<number, Record<Lane, Position>>,
  ordinal: number,
): Record<Lane, Position> {
  let lane = positions.get(ordinal)
  if (!lane) {
    lane = perLane(() => startPosition)
    positions.set(ordinal, lane)
  }
  return lane
}

export function emptyStock(): LaneStock {
  return { entries: 0, sequences: 0, received: 0, bytes: 0, oldestMs: undefined }
}

export function addToStock(stock: LaneStock, entry: Entry): void {
  stock.entries += 1
  stock.sequences += entry.count
  stock.received += entry.received
  stock.bytes += entry.item.length
  stock.oldestMs ??= entry.committedMs
}

export function gapEntry(gap: Gap, before: Chain, nowMs: number): Entry {
  return {
    kind: 'gap',
    count: gap.count,
    received: 0,
    before,
    after: gap.after,
    committedMs: nowMs,
    item: encodeItem({ kind: 'gap', ...gap }),
  }
}
