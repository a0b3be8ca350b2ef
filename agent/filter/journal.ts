import type { StateChange } from '../state.ts'
import { StateProblem, StateReader, type StateWriter } from './state-bytes.ts'

/** What has hard state, and where the journal tells it. */
export interface Member {
  readonly id: number
  /** The newest record that tells of it; undefined when none does. */
  record: JournalRecord | undefined
  /** Bytes of its state there. */
  size: number
}

/** One entry of the store: states of the series that one group touched, and of some from older records. */
export interface JournalRecord {
  readonly number: number
  bytes: number
  /** Those told here; of some a newer record tells by now. */
  members: Member[]
  /** Those of which no newer record tells. */
  live: number
}

/** Bytes of outdated states that are put up with, whatever the rest. */
const slackBytes = 262_144

/**
 * Hard state of many series, kept as a log: a group adds one entry to the store for all the series that it
 * touched, where an entry each would cost more than everything else that is done for a reading. The newest
 * word on a series counts. When more than half of the log is outdated, its oldest record goes, and what only
 * that one told is told again in the newest.
 *
 *     record = (varint id, uint32 length, state)*, no state where the length is 0
 *
 * Records go from the oldest end only: what was given up cannot come back, and a gap in their numbers is
 * damage.
 */
export class Journal<Own extends Member> {
  readonly #writer: StateWriter
  readonly #write: (member: Own) => void
  /** Oldest first. */
  readonly #records: JournalRecord[] = []
  #lastNumber = 0
  #bytes = 0
  #liveBytes = 0
  /** Which record tells of a member that has not joined since `restore`. */
  readonly #tellers = new Map<number, JournalRecord>()

  /** @param write writes a member's state, nothing where it has none */
  constructor(writer: StateWriter, write: (member: Own) => void) {
    this.#writer = writer
    this.#write = write
  }

  /** Tells the state of those that were touched. */
  append(touched: readonly Own[], changes: StateChange[]): void {
    const record = { number: this.#lastNumber + 1, bytes: 0, members: [], live: 0 }
    for (const member of touched) this.#tell(member, record)
    if (record.live === 0) return
    for (;;) {
      const oldest = this.#records[0]
      if (!oldest) break
      const most = Math.max(slackBytes, 2 * this.#liveBytes)
      if (oldest.live > 0 && this.#bytes + this.#writer.length <= most) break
      for (const member of oldest.members)
        if (member.record === oldest) {
          // There is no older word that it must outlive.
          if (member.size === 0) member.record = undefined
          else this.#tell(member as Own, record)
        }
      this.#records.shift()
      this.#bytes -= oldest.bytes
      changes.push({ space: 'filter', key: keyOf(oldest.number), value: undefined })
    }
    const value = this.#writer.take()
    record.bytes = value.length
    this.#bytes += value.length
    this.#records.push(record)
    this.#lastNumber = record.number
    changes.push({ space: 'filter', key: keyOf(record.number), value })
  }

  #tell(member: Own, record: JournalRecord): void {
    const writer = this.#writer
    const start = writer.length
    writer.varint(member.id)
    const length = writer.openLength()
    this.#write(member)
    const size = writer.closeLength(length)
    // Nothing is what the newest word on it says already, or there is none.
    if (size === 0 && member.size === 0) {
      writer.rewind(start)
      return
    }
    if (member.record) member.record.live--
    this.#liveBytes += size - member.size
    member.record = record
    member.size = size
    record.members.push(member)
    record.live++
  }

  /**
   * Goes on with records as saved. What a missing or damaged one told is unknown, so nothing older counts.
   *
   * @returns the newest state of each member by its id, and keys of records that do not count
   */
  restore(saved: Map<number, Uint8Array>): { states: Map<number, Uint8Array>; stray: string[] } {
    const states = new Map<number, Uint8Array>()
    const stray: string[] = []
    const numbers = [...saved.keys()].sort((a, b) => b - a)
    this.#lastNumber = numbers[0] ?? 0
    let next = this.#lastNumber
    for (const number of numbers) {
      const told = number === next ? readRecord(saved.get(number)!) : undefined
      if (!told) {
        stray.push(keyOf(number))
        continue
      }
      next--
      const bytes = saved.get(number)!.length
      this.#records.unshift({ number, bytes, members: [], live: 0 })
      this.#bytes += bytes
      for (const [id, state] of told)
        if (!states.has(id)) {
          states.set(id, state)
          this.#tellers.set(id, this.#records[0]!)
        }
    }
    return { states, stray }
  }

  /** Takes in a member that `restore` has found the state of. */
  join(member: Own, state: Uint8Array): void {
    const record = this.#tellers.get(member.id)!
    this.#tellers.delete(member.id)
    member.record = record
    member.size = state.length
    record.members.push(member)
    record.live++
    this.#liveBytes += state.length
  }
}

/** Undefined when it is damaged. */
function readRecord(bytes: Uint8Array): Map<number, Uint8Array> | undefined {
  const states = new Map<number, Uint8Array>()
  try {
    const reader = new StateReader(bytes)
    while (!reader.done) states.set(reader.varint(), reader.bytes(reader.uint32()))
    return states
  } catch (error) {
    if (error instanceof StateProblem) return undefined
    throw error
  }
}

function keyOf(number: number): string {
  return `j${number}`
}
