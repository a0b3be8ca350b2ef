import type { StateChange, StateReader } from '../state.ts'
import { ContentHasher } from './content-hash.ts'
import { LastMessages } from './last-message.ts'
import { decodeMarks, encodeMarks, type Mark } from './mark.ts'
import type { Message, MessageGroup, Session } from './message.ts'

/** A group's messages, told apart. */
export interface Sifted {
  /** Not seen before, in order of arrival. */
  fresh: Message[]
  /** Committed before, with the number of readings that each gave then. */
  repeats: { message: Message; readings: number }[]
}

/** After so long without a repeat nothing comes again, even from a broker that takes its time, ms. */
const quietMs = 10_000
/** The topics' last messages are stored this often, ms. */
const softIntervalMs = 10_000

const sessionKey = 'session'
const markPrefix = 'mark/'
const lastPrefix = 'last/'

/**
 * Knows again what the broker delivers a second time, because a crash or a lost connection fell between
 * our commit and its reading of our PUBACK. For each QoS 1 message a mark (packet id, content, number of
 * readings) is committed in the same atomic write as its readings.
 *
 * A message repeats a marked one when the session is the same, the packet id and the content are, and the
 * id is used for the first time on a new connection, with DUP set; or without, as long as this broker was
 * never seen to set it. A sensor that sends its value again is no repeat, and in doubt a message is fresh.
 *
 * A mark ends once the broker has provably read the PUBACK (`MessageGroup.proven`), once its id comes with
 * other content, once the broker is through with delivering again, or with the session.
 *
 * Per group: `sift`, then `commitChanges`, in one write with the group's readings; then acknowledge.
 */
export class Marks {
  #session: StoredSession | undefined
  #sessionChanged = false
  #connection: number | undefined
  /** Marks of earlier connections, by packet id: what may come again on this one. */
  #earlier = new Map<number, Mark>()
  /** Marks of this connection, one record a group. */
  #records: Record[] = []
  /** Ordinal of the last group on this connection that had a repeat of an earlier one in it … */
  #lastRepeat = 0
  /** … and when it was taken, or else the first group. */
  #lastRepeatMs = 0
  /** The broker seems to be through with delivering again. */
  #through = false
  /**
   * A packet id of the group behind this one has been used again on this connection: the broker has read
   * its PUBACK, and in order, so all those before it.
   */
  #reused = 0
  /** By packet id, as far as there are any: the last group of this connection that used it; 0 for none. */
  readonly #usedIn: number[] = []
  /** The marks of this connection's groups have ended up to that of this ordinal … */
  #ended = 0
  /** … and up to this one, their end is committed. */
  #deleted = 0
  /** Keys whose marks have ended; deleted with the next commit. */
  #endedKeys: string[] = []
  /** Keys that hold `#earlier`. */
  #earlierKeys: string[] = []
  /** Some of those that `#earlierKeys` hold have ended. */
  #outdated = false
  /** `#earlier` is to be written anew, as one record, in place of `#earlierKeys`. */
  #gather = false
  #nextKey = 1
  readonly #last = new LastMessages()
  #softSavedMs: number | undefined
  readonly #hasher = new ContentHasher()
  #sifting: Sifting | undefined

  private constructor() {}

  /** Reads back what was committed; what is not ours or damaged is left out. */
  static async load(reader: StateReader): Promise<Marks> {
    const marks = new Marks()
    for await (const { key, value } of reader.read('source')) marks.#load(key, value)
    return marks
  }

  #load(key: string, value: Uint8Array): void {
    if (key === sessionKey) this.#session = decodeSession(value)
    else if (key.startsWith(lastPrefix)) this.#last.load(value)
    else if (key.startsWith(markPrefix)) {
      this.#earlierKeys.push(key)
      this.#nextKey = Math.max(this.#nextKey, Number(key.slice(markPrefix.length)) + 1 || 1)
      // In order of commit, so that the last use of a packet id is the one that stays.
      for (const mark of decodeMarks(value) ?? []) this.#earlier.set(mark.packetId, mark)
    }
  }

  /** The session at the broker as last committed. */
  get session(): Session | undefined {
    return this.#session
  }

  /** Marks held, in memory and store. */
  get size(): number {
    return this.#records.reduce((sum, { marks }) => sum + marks.length, this.#earlier.size)
  }

  /** Tells a group's repeats from what is fresh. Its changes must be committed before the next group. */
  sift(group: MessageGroup): Sifted {
    this.#enter(group)
    const sifted: Sifted = { fresh: [], repeats: [] }
    const marks: Mark[] = []
    const freshMarks: (Mark | undefined)[] = []
    const freshLasts = []
    for (const message of group.messages) {
      const last = this.#last.of(message.topic)
      this.#hasher.payload(last.topicHigh, last.topicLow, message.payload)
      const { high, low } = this.#hasher
      const { packetId, duplicate, qos } = message
      const steady = last.high === high && last.low === low
      const mark = qos === 1 ? { packetId, high, low, readings: 0, duplicate, steady } : undefined
      const first = mark && this.#answered(mark)
      if (first) {
        // A second PUBACK could come to mean another message, to which the broker gives the id meanwhile.
        message.isAnswered = true
        sifted.repeats.push({ message, readings: first.readings })
        continue
      }
      if (mark) marks.push(mark)
      const seen =
        (mark && this.#repeated(mark, group)) ?? (message.retained && steady ? last : undefined)
      if (seen) {
        if (mark) mark.readings = seen.readings
        if (mark && 'steady' in seen) mark.steady = seen.steady
        sifted.repeats.push({ message, readings: seen.readings })
        continue
      }
      this.#last.update(last, high, low)
      sifted.fresh.push(message)
      freshMarks.push(mark)
      freshLasts.push(last)
    }
    this.#settle(group)
    this.#sifting = { group, marks, freshMarks, freshLasts }
    return sifted
  }

  /**
   * What to commit with the group that was sifted last.
   *
   * @param readings how many readings each of its fresh messages gave, in their order
   */
  commitChanges(group: MessageGroup, readings: readonly number[]): StateChange[] {
    const sifting = this.#sifting
    if (sifting?.group !== group) throw new TypeError('commitChanges is of the group sifted last')
    this.#sifting = undefined
    const { freshLasts, freshMarks } = sifting
    for (let index = 0; index < freshLasts.length; index++) {
      const count = readings[index] ?? 0
      freshLasts[index]!.readings = count
      const mark = freshMarks[index]
      if (mark) mark.readings = count
    }
    const changes = this.#deleteEnded()
    if (this.#sessionChanged) changes.push(this.#storeSession())
    if (this.#gather) changes.push(...this.#gatherEarlier())
    if (sifting.marks.length > 0) {
      const key = this.#mintKey()
      this.#records.push({ key, ordinal: group.ordinal, marks: sifting.marks })
      changes.push(change(key, encodeMarks(sifting.marks)))
    }
    this.#softSavedMs ??= group.arrival.monotonicMs
    if (group.arrival.monotonicMs - this.#softSavedMs >= softIntervalMs) {
      this.#softSavedMs = group.arrival.monotonicMs
      changes.push(...this.#storeLast())
    }
    return changes
  }

  /** What is worth committing before the store is closed, and no group is at hand. */
  checkpoint(): StateChange[] {
    const changes = this.#deleteEnded()
    if (this.#sessionChanged) changes.push(this.#storeSession())
    return [...changes, ...this.#storeLast()]
  }

  /** Goes over to the group's session and connection where they are new. */
  #enter({ session, connection, proven, arrival }: MessageGroup): void {
    if (session.token !== this.#session?.token) {
      // Nothing of another session comes again; and what we know of the broker may be of another one.
      this.#endEarlier()
      this.#endedKeys.push(...this.#records.map(({ key }) => key))
      this.#records = []
      this.#session = { ...session, setsDuplicate: false, reusesIds: false }
      this.#sessionChanged = true
    } else if (!sameSession(session, this.#session)) {
      this.#session = { ...this.#session, ...session }
      this.#sessionChanged = true
    }
    if (connection !== this.#connection) {
      for (const { key, marks } of this.#records) {
        for (const mark of marks) this.#earlier.set(mark.packetId, mark)
        this.#earlierKeys.push(key)
      }
      this.#records = []
      this.#connection = connection
      this.#lastRepeat = 0
      this.#lastRepeatMs = arrival.monotonicMs
      this.#through = false
      this.#reused = 0
      this.#ended = 0
      this.#deleted = 0
      this.#usedIn.length = 0
      this.#gather = this.#earlierKeys.length > 0
    }
    this.#endProven(Math.max(proven, this.#reused))
  }

  /** Ends the marks whose PUBACK the broker has read. */
  #endProven(proven: number): void {
    let ended = 0
    while (ended < this.#records.length && this.#records[ended]!.ordinal <= proven) ended += 1
    // Without the later mark of a packet id, an earlier one would come back to life.
    if (ended > 0 && this.#outdated) this.#gather = true
    for (const { key, ordinal } of this.#records.splice(0, ended)) {
      this.#endedKeys.push(key)
      this.#ended = ordinal
    }
  }

  /**
   * The mark of what was acknowledged on this very connection, of which this is a copy. Some brokers send again while
   * the connection lasts; such a copy can only come before the broker is known to have read the PUBACK.
   */
  #answered({ packetId, high, low, duplicate }: Mark): Mark | undefined {
    if (!duplicate) return undefined
    const usedIn = this.#usedIn[packetId] ?? 0
    if (usedIn <= this.#reused) return undefined
    const record = this.#records.find((record) => record.ordinal === usedIn)
    const first = record?.marks.findLast((mark) => mark.packetId === packetId)
    const isSame = first && first.high === high && first.low === low
    return isSame && !first.duplicate ? first : undefined
  }

  /** The earlier mark that this message repeats. */
  #repeated(mark: Mark, { ordinal, arrival }: MessageGroup): Mark | undefined {
    const { packetId } = mark
    const usedIn = this.#usedIn[packetId] ?? 0
    while (this.#usedIn.length <= packetId) this.#usedIn.push(0)
    this.#usedIn[packetId] = ordinal
    if (usedIn > 0) {
      // Acknowledged on this very connection and used again: a new message. Were its mark still stored at
      // a crash, the two could not be told apart: this broker's ids prove nothing.
      if (usedIn > this.#deleted && usedIn < ordinal) this.#learn('reusesIds')
      if (usedIn < ordinal) this.#reused = Math.max(this.#reused, usedIn - 1)
      return undefined
    }
    const earlier = this.#earlier.get(packetId)
    if (!earlier) return undefined
    this.#earlier.delete(packetId)
    this.#outdated = true
    const session = this.#session!
    if (session.reusesIds || earlier.high !== mark.high || earlier.low !== mark.low)
      return undefined
    // Without DUP it may be a new message that happens to be like an old one, packet id and all.
    if (!mark.duplicate && (session.setsDuplicate || (this.#through && earlier.steady)))
      return undefined
    // Brokers may hand on a publisher's DUP: only one that was not there the first time is the broker's.
    if (mark.duplicate && !earlier.duplicate) this.#learn('setsDuplicate')
    this.#lastRepeat = ordinal
    this.#lastRepeatMs = arrival.monotonicMs
    this.#through = false
    return earlier
  }

  /**
   * Ends the earlier marks when the broker is through with delivering again: it has read the
   * acknowledgement of a whole group without repeats, and this one has none either. A broker that sets DUP
   * delivers again first of all; one that does not may mix it with what is new, so it is given some time.
   */
  #settle({ ordinal, proven, messages, arrival }: MessageGroup): void {
    if (this.#earlierKeys.length === 0 || messages.length === 0) return
    if (Math.max(proven, this.#reused) <= this.#lastRepeat || ordinal === this.#lastRepeat) return
    this.#through = true
    const quiet = arrival.monotonicMs - this.#lastRepeatMs >= quietMs
    if (quiet || this.#session!.setsDuplicate) this.#endEarlier()
  }

  #endEarlier(): void {
    this.#earlier.clear()
    this.#endedKeys.push(...this.#earlierKeys)
    this.#earlierKeys = []
    this.#gather = false
    this.#outdated = false
  }

  /** Writes what is left of the earlier marks as one record; it goes before those of this connection. */
  #gatherEarlier(): StateChange[] {
    this.#gather = false
    this.#outdated = false
    const changes = this.#earlierKeys.map((key) => change(key, undefined))
    this.#earlierKeys = []
    if (this.#earlier.size === 0) return changes
    const key = this.#mintKey()
    this.#earlierKeys = [key]
    return [...changes, change(key, encodeMarks([...this.#earlier.values()]))]
  }

  #learn(trait: 'setsDuplicate' | 'reusesIds'): void {
    if (this.#session![trait]) return
    this.#session = { ...this.#session!, [trait]: true }
    this.#sessionChanged = true
  }

  #deleteEnded(): StateChange[] {
    const changes = this.#endedKeys.map((key) => change(key, undefined))
    this.#endedKeys = []
    this.#deleted = this.#ended
    return changes
  }

  #storeSession(): StateChange {
    this.#sessionChanged = false
    return change(sessionKey, Buffer.from(JSON.stringify(this.#session)))
  }

  #storeLast(): StateChange[] {
    return this.#last
      .changedParts()
      .map(({ part, value }) => change(`${lastPrefix}${String(part).padStart(2, '0')}`, value))
  }

  #mintKey(): string {
    return markPrefix + String(this.#nextKey++).padStart(16, '0')
  }
}

interface Record {
  key: string
  ordinal: number
  marks: Mark[]
}

/** What `sift` leaves for `commitChanges`. */
interface Sifting {
  group: MessageGroup
  marks: Mark[]
  /** Per fresh message; undefined for QoS 0. */
  freshMarks: (Mark | undefined)[]
  freshLasts: { readings: number }[]
}

/** A session, and what was learned of the broker within it. */
interface StoredSession extends Session {
  /** It was seen to set DUP on what it delivers again. */
  setsDuplicate: boolean
  /** It was seen to use a packet id again while its last mark was still stored. */
  reusesIds: boolean
}

function sameSession(a: Session, b: Session): boolean {
  return a.broker === b.broker && JSON.stringify(a.subscribed) === JSON.stringify(b.subscribed)
}

function decodeSession(value: Uint8Array): StoredSession | undefined {
  try {
    const { token, broker, subscribed, setsDuplicate, reusesIds } = JSON.parse(
      Buffer.from(value).toString('utf8'),
    )
    if (typeof token !== 'string' || typeof broker !== 'string') return undefined
    if (!Array.isArray(subscribed) || !subscribed.every((filter) => typeof filter === 'string'))
      return undefined
    return {
      token,
      broker,
      subscribed,
      setsDuplicate: setsDuplicate === true,
      reusesIds: reusesIds === true,
    }
  } catch {
    return undefined // Damaged: the broker's session is then unknown, and so are its marks.
  }
}

function change(key: string, value: Uint8Array | undefined): StateChange {
  return { space: 'source', key, value }
}
