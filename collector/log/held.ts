import type { BatchHeader } from '../../shared/batch.ts'
import { type Chain, chainStart, sameChain } from '../../shared/chain.ts'
import { type Lane, laneNumber } from '../../shared/reading.ts'
import type { Alarm, AppendAnswer, Held } from './engine.ts'

/** What an accepted batch changes in the memory. */
export type Passage = Pick<
  BatchHeader,
  'agent' | 'incarnation' | 'lane' | 'first' | 'last' | 'before' | 'after'
> & { predecessor: Uint8Array | undefined }

/**
 * What the log holds of every incarnation of every agent, for good: the answer to a repeat that comes
 * years later rests on it. An incarnation costs one row:
 *
 * ```
 *  0  16  incarnation
 * 16  16  its predecessor; zeros where it named none
 * 32  24  last sequence held per lane, in order of the lanes' numbers, u64 each
 * 56  24  running hash behind it per lane
 * 80   1  bits of the lanes that a successor has closed
 * ```
 */
export class HeldMemory {
  readonly #agents = new Map<string, AgentRows>()

  of(agent: string, incarnation: Uint8Array, lane: Lane): Held {
    const rows = this.#agents.get(agent)
    return readLane(rows?.find(incarnation), lane)
  }

  /** Offset of an agent's newest record in the ledger; undefined when it has none. */
  newestLedger(agent: string): number | undefined {
    return this.#agents.get(agent)?.newestLedger
  }

  /** @param agent one of which something is held */
  noteLedger(agent: string, offset: number): void {
    const rows = this.#agents.get(agent)
    if (rows) rows.newestLedger = Math.max(offset, rows.newestLedger ?? 0)
  }

  agents(): Iterable<string> {
    return this.#agents.keys()
  }

  /** Opens a change of several batches, of which either all become true or none. */
  draft(): Draft {
    return new Draft(this.#agents)
  }

  /** Takes over what a stored batch says, whether or not the memory already knows it. */
  replay(passage: Passage): void {
    const draft = this.draft()
    if (readLane(draft.row(passage.agent, passage.incarnation), passage.lane).held < passage.last)
      draft.admit(passage)
    draft.commit()
  }

  /** Takes over a row that was written alone, in the place of an older one of its incarnation. */
  put(agent: string, row: Uint8Array, isCurrent: boolean): void {
    let rows = this.#agents.get(agent)
    if (!rows) {
      rows = new AgentRows()
      this.#agents.set(agent, rows)
    }
    rows.put(row)
    if (isCurrent) rows.current = rows.indexOf(row)
  }

  /** One entry an agent, for a snapshot; agents that come meanwhile may be among them. */
  *snapshot(): Iterable<AgentSnapshot> {
    for (const [agent, rows] of this.#agents)
      yield {
        agent,
        current: rows.current,
        newestLedger: rows.newestLedger,
        rows: rows.bytes(),
      }
  }

  /** @param rows a whole number of rows, as `snapshot` gave them */
  restore({ agent, current, newestLedger, rows }: AgentSnapshot): void {
    this.#agents.set(agent, new AgentRows(rows, current, newestLedger))
  }
}

export interface AgentSnapshot {
  agent: string
  /** Index of the row that counts as the agent's present incarnation. */
  current: number
  newestLedger?: number | undefined
  rows: Uint8Array
}

export const rowBytes = 81

/** Rows of one agent, oldest first. */
class AgentRows {
  #bytes: Uint8Array
  #count: number
  current: number
  newestLedger: number | undefined

  constructor(bytes: Uint8Array = new Uint8Array(0), current = 0, newestLedger?: number) {
    this.newestLedger = newestLedger
    this.#bytes = bytes
    this.#count = bytes.length / rowBytes
    this.current = current
  }

  /** A view, not a copy. The newest is looked at first: it is nearly always the one. */
  find(incarnation: Uint8Array): Uint8Array | undefined {
    const index = this.indexOf(incarnation)
    return index < 0 ? undefined : this.row(index)
  }

  indexOf(incarnation: Uint8Array): number {
    for (let index = this.#count - 1; index >= 0; index--)
      if (sameId(this.#bytes, index * rowBytes, incarnation)) return index
    return -1
  }

  row(index: number): Uint8Array {
    return this.#bytes.subarray(index * rowBytes, (index + 1) * rowBytes)
  }

  put(row: Uint8Array): void {
    let index = this.indexOf(row)
    if (index < 0) {
      index = this.#count++
      if (this.#count * rowBytes > this.#bytes.length) {
        const grown = new Uint8Array(Math.max(1, Math.ceil(this.#count * 1.25)) * rowBytes)
        grown.set(this.#bytes)
        this.#bytes = grown
      }
    }
    this.#bytes.set(row, index * rowBytes)
  }

  bytes(): Uint8Array {
    return this.#bytes.slice(0, this.#count * rowBytes)
  }
}

/** A change in the making. It sees what it has admitted itself; the memory does not, before `commit`. */
class Draft {
  readonly #agents: Map<string, AgentRows>
  readonly #changed = new Map<string, { rows: Map<string, Uint8Array>; current?: Uint8Array }>()

  constructor(agents: Map<string, AgentRows>) {
    this.#agents = agents
  }

  /**
   * Decides on a batch, and admits it when it is accepted. Whatever is at or below what is held is a
   * repeat, with whatever bounds; only a batch that fits seamlessly behind it is taken.
   */
  judge(header: BatchHeader): AppendAnswer {
    const { agent, incarnation, lane, predecessor } = header
    const own = readLane(this.row(agent, incarnation), lane)
    if (header.last <= own.held) {
      // Only here is the hash known on both sides: two histories that end at the same sequence.
      const forked = header.last === own.held && !sameChain(header.after, own.chain)
      return { code: forked ? 'fork' : 'duplicate', ...own }
    }
    if (header.first <= own.held) return { code: 'duplicate', ...own }
    if (header.first > own.held + 1) return { code: 'hole', incarnation, lane, ...own }
    if (!sameChain(header.before, own.chain)) return { code: 'fork', ...own }
    if (header.first === 1 && predecessor) {
      const before = readLane(this.row(agent, predecessor.incarnation), lane)
      if (before.held < predecessor.last[lane])
        return { code: 'hole', incarnation: predecessor.incarnation, lane, ...before }
    }
    const alarms = this.admit({ ...header, predecessor: predecessor?.incarnation })
    return { code: 'accepted', held: header.last, chain: header.after, alarms }
  }

  /** Remembers a batch without looking at whether it fits. */
  admit(passage: Passage): Alarm[] {
    const { agent, incarnation, lane, predecessor } = passage
    const known = this.row(agent, incarnation)
    const row = known?.slice() ?? newRow(incarnation)
    if (predecessor && !hasPredecessor(row)) row.set(predecessor, 16)
    writeLane(row, lane, { held: passage.last, chain: passage.after })
    this.#put(agent, row)

    const alarms = this.#place(agent, row, known === undefined, lane)
    const before = predecessor && this.row(agent, predecessor)
    if (before && passage.first === 1) {
      const closed = before.slice()
      closed[80]! |= laneBit(lane)
      this.#put(agent, closed)
    }
    return alarms
  }

  /** Rows as they are behind the change, and whether each is of its agent's present incarnation. */
  *changes(): Generator<{ agent: string; row: Uint8Array; isCurrent: boolean }> {
    for (const [agent, { rows }] of this.#changed) {
      const current = this.#current(agent)
      for (const row of rows.values())
        yield { agent, row, isCurrent: current !== undefined && sameId(current, 0, idOf(row)) }
    }
  }

  commit(): void {
    for (const [agent, { rows, current }] of this.#changed) {
      let held = this.#agents.get(agent)
      if (!held) {
        held = new AgentRows()
        this.#agents.set(agent, held)
      }
      for (const row of rows.values()) held.put(row)
      if (current) held.current = held.indexOf(current)
    }
    this.#changed.clear()
  }

  /** As it would be after `commit`; not to be changed. */
  row(agent: string, incarnation: Uint8Array): Uint8Array | undefined {
    return (
      this.#changed.get(agent)?.rows.get(hex(incarnation)) ??
      this.#agents.get(agent)?.find(incarnation)
    )
  }

  /** Finds the sender's place in its agent's history, and moves on what counts as the present one. */
  #place(agent: string, row: Uint8Array, isNew: boolean, lane: Lane): Alarm[] {
    const current = this.#current(agent)
    if (!current) {
      this.#setCurrent(agent, row)
      return []
    }
    if (sameId(current, 0, idOf(row))) return []
    const up = this.#descends(agent, row, current)
    const down = this.#descends(agent, current, row)
    if (down === 'yes')
      // A restarted gateway still drains what it held before, lane by lane, until a successor's
      // batches have closed the lane.
      return (row[80]! & laneBit(lane)) === 0 ? [] : ['clone']
    if (up === 'yes' || (isNew && (up === 'unknown' || down === 'unknown'))) {
      this.#setCurrent(agent, row)
      return []
    }
    if (up === 'unknown' || down === 'unknown') return []
    this.#setCurrent(agent, row)
    if (!isNew) return ['clone']
    return [hasPredecessor(row) ? 'restored' : 'unchained']
  }

  /** Whether `ancestor` is found on the way back from `row`; `unknown` where a link is not held. */
  #descends(agent: string, row: Uint8Array, ancestor: Uint8Array): 'yes' | 'no' | 'unknown' {
    let at = row
    for (let step = 0; step < maxChainSteps; step++) {
      if (!hasPredecessor(at)) return 'no'
      const id = at.subarray(16, 32)
      if (sameId(ancestor, 0, id)) return 'yes'
      const before = this.row(agent, id)
      if (!before) return 'unknown'
      at = before
    }
    return 'unknown'
  }

  #current(agent: string): Uint8Array | undefined {
    const changed = this.#changed.get(agent)?.current
    if (changed) return this.row(agent, changed)
    const rows = this.#agents.get(agent)
    return rows?.row(rows.current)
  }

  #setCurrent(agent: string, row: Uint8Array): void {
    this.#changesOf(agent).current = idOf(row)
  }

  #put(agent: string, row: Uint8Array): void {
    this.#changesOf(agent).rows.set(hex(idOf(row)), row)
  }

  #changesOf(agent: string) {
    let changes = this.#changed.get(agent)
    if (!changes) {
      changes = { rows: new Map() }
      this.#changed.set(agent, changes)
    }
    return changes
  }
}

/** Longer histories are left undecided: an alarm is not worth more. */
const maxChainSteps = 64

function newRow(incarnation: Uint8Array): Uint8Array {
  const row = new Uint8Array(rowBytes)
  row.set(incarnation)
  return row
}

function idOf(row: Uint8Array): Uint8Array {
  return row.subarray(0, 16)
}

function hasPredecessor(row: Uint8Array): boolean {
  return row.subarray(16, 32).some((byte) => byte !== 0)
}

function readLane(row: Uint8Array | undefined, lane: Lane): Held {
  if (!row) return { held: 0, chain: chainStart }
  const view = new DataView(row.buffer, row.byteOffset, rowBytes)
  const at = laneNumber[lane] * 8
  const chain: Chain = { high: view.getUint32(56 + at), low: view.getUint32(60 + at) }
  return { held: view.getUint32(32 + at) * 2 ** 32 + view.getUint32(36 + at), chain }
}

function writeLane(row: Uint8Array, lane: Lane, { held, chain }: Held): void {
  const view = new DataView(row.buffer, row.byteOffset, rowBytes)
  const at = laneNumber[lane] * 8
  view.setUint32(32 + at, Math.floor(held / 2 ** 32))
  view.setUint32(36 + at, held >>> 0)
  view.setUint32(56 + at, chain.high)
  view.setUint32(60 + at, chain.low)
}

function laneBit(lane: Lane): number {
  return 1 << laneNumber[lane]
}

function sameId(bytes: Uint8Array, at: number, id: Uint8Array): boolean {
  for (let i = 0; i < 16; i++) if (bytes[at + i] !== id[i]) return false
  return true
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}
