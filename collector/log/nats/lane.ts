import { WireFailure } from '../../../shared/batch.ts'
import { sleep } from '../../../shared/clock.ts'
import type { Clock, Random } from '../../../shared/ports.ts'
import { streams } from '../../../shared/reading.ts'
import { type AppendAnswer, type Entry, type Held, LogFailure } from '../engine.ts'
import { HeldMemory, rowBytes } from '../held.ts'
import { moved } from '../notes.ts'
import type { Message, NatsLink } from './link.ts'
import { batchHeaders, type LaneHeld, markHeaders, offsetsPerMessage, readHeld } from './message.ts'
import { incarnationSubject } from './subject.ts'

/** A lane's subject as it was last seen. */
interface Seen {
  /** Of its last message; 0 when there is none. */
  sequence: number
  held: LaneHeld
}

/** What was found of an incarnation on its own subject. */
interface Aside {
  subject: string
  /** Of the subject's last message; 0 when there is none. */
  sequence: number
  /** Empty where nothing is held of it. */
  row: Uint8Array
}

/** Incarnations that a lane's headers carry; older ones have a subject of their own. */
const maxRows = 8
/** Another collector can win this often before the batch is sent back. */
const maxTries = 12
/** Pause after the first such time, doubled each time: what is on its way is refused, and not yet seen. */
const firstPauseMs = 2
const maxPauseMs = 500
/** Room that headers need, bytes. */
const headerBytes = 4096

/**
 * Appends one lane's batches, one at a time. What is held travels in the headers of the lane's last
 * message, and each append names the message that it was judged by: should another collector have
 * appended meanwhile, the server refuses, and the batch is judged anew. So any number of collectors may
 * write, and none has to be remembered.
 */
export class Lane {
  readonly #link: NatsLink
  readonly #clock: Clock
  readonly #random: Random
  readonly #stream: string
  readonly #subject: string
  readonly #agent: string
  #seen: Seen | undefined
  #last: Promise<unknown> = Promise.resolve()
  /** Appends under way or waiting. */
  waiting = 0

  constructor(
    link: NatsLink,
    { clock, random }: { clock: Clock; random: Random },
    place: { stream: string; subject: string; agent: string },
  ) {
    this.#link = link
    this.#clock = clock
    this.#random = random
    this.#stream = place.stream
    this.#subject = place.subject
    this.#agent = place.agent
  }

  append(entry: Entry): Promise<AppendAnswer> {
    return this.#inTurn(() => this.#append(entry))
  }

  /** As the stream's leader has it now. */
  held(incarnation: Uint8Array, lane: Entry['header']['lane']): Promise<Held> {
    return this.#inTurn(async () => {
      const seen = await this.#look()
      const asides = await this.#findAside(seen.held, [incarnation])
      return memoryOf(seen.held, asides).of(this.#agent, incarnation, lane)
    })
  }

  async #inTurn<T>(task: () => Promise<T>): Promise<T> {
    this.waiting += 1
    const result = this.#last.then(task).finally(() => {
      this.waiting -= 1
    })
    this.#last = result.catch(() => {})
    return result
  }

  async #append(entry: Entry): Promise<AppendAnswer> {
    const { header, feeds, body } = entry
    const most = Math.max(...streams.map((stream) => feeds[stream].count))
    if (most > offsetsPerMessage || body.length + headerBytes > this.#link.maxMessageBytes)
      throw new WireFailure('WIRE_TOO_LARGE', 'more than one message of the log takes')
    for (let attempt = 0; attempt < maxTries; attempt++) {
      const answer = await this.#try(entry).catch((error) => {
        // It may have been appended: what is held is looked up before the next.
        this.#seen = undefined
        throw error
      })
      if (answer !== moved) return answer
      this.#seen = undefined
      const pauseMs = Math.min(maxPauseMs, firstPauseMs * 2 ** attempt)
      await sleep(this.#clock, pauseMs * (0.5 + this.#random.uniform()))
    }
    const who = `${header.agent} ${header.lane}`
    throw new LogFailure('LOG_DISK', `${who}: others keep appending to it`)
  }

  async #try(entry: Entry): Promise<AppendAnswer | typeof moved> {
    const { header, body } = entry
    const { incarnation, predecessor } = header
    this.#seen ??= await this.#look()
    const seen = this.#seen
    const asides = await this.#findAside(
      seen.held,
      predecessor ? [incarnation, predecessor.incarnation] : [incarnation],
    )
    const memory = memoryOf(seen.held, asides)
    const draft = memory.draft()
    const answer = draft.judge(header)
    // What is held only grows, so this was true and stays so.
    if (answer.code === 'duplicate') return answer
    for (const aside of asides) if (!(await this.#isLatest(aside))) return moved
    if (answer.code !== 'accepted')
      // The agent acts on it, so it must be true now: the mark is taken only where nothing has been
      // appended since.
      return (await this.#publish(new Uint8Array(0), markHeaders(seen.held), seen.held))
        ? answer
        : moved
    draft.commit()
    const [snapshot] = memory.snapshot()
    const held = await this.#carried({ ...snapshot!, hasMore: seen.held.hasMore }, incarnation)
    if (!held) return moved
    return (await this.#publish(body, batchHeaders(entry, held), held)) ? answer : moved
  }

  /** @returns false when another collector was faster */
  async #publish(
    body: Uint8Array,
    headers: Record<string, string>,
    held: LaneHeld,
  ): Promise<boolean> {
    const done = await this.#link.publish(this.#subject, body, headers, this.#seen!.sequence)
    if (done === moved) return false
    this.#seen = { sequence: done, held }
    return true
  }

  async #look(): Promise<Seen> {
    const message = await this.#link.last(this.#stream, this.#subject)
    const none = { agent: this.#agent, current: 0, hasMore: false, rows: new Uint8Array(0) }
    if (!message) return { sequence: 0, held: none }
    return { sequence: message.sequence, held: readHeld(message) ?? none }
  }

  /** Those of the incarnations that the lane's last message has no row of. */
  async #findAside(held: LaneHeld, incarnations: readonly Uint8Array[]): Promise<Aside[]> {
    const found: Aside[] = []
    for (const incarnation of held.hasMore ? incarnations : []) {
      if (rowsOf(held.rows).some((row) => startsWith(row, incarnation))) continue
      const subject = incarnationSubject(this.#subject, incarnation)
      const message = await this.#link.last(this.#stream, subject)
      const row = message?.body ?? new Uint8Array(0)
      found.push({ subject, sequence: message?.sequence ?? 0, row })
    }
    return found
  }

  /** A server that was cut off may have told of the past: what it said is said again, if it is true. */
  async #isLatest({ subject, sequence, row }: Aside): Promise<boolean> {
    return (await this.#link.publish(subject, row, {}, sequence)) !== moved
  }

  /**
   * What goes into the headers: the latest rows. Older ones are put on subjects of their own before the
   * message that leaves them out.
   *
   * @returns undefined when another collector was faster
   */
  async #carried(held: LaneHeld, own: Uint8Array): Promise<LaneHeld | undefined> {
    const rows = rowsOf(held.rows)
    const present = rows[held.current]!
    let { hasMore } = held
    while (rows.length > maxRows) {
      const at = rows.findIndex((row) => row !== present && !startsWith(row, own))
      const [row] = rows.splice(at, 1)
      if (!(await this.#putAside(row!))) return undefined
      hasMore = true
    }
    return { ...held, hasMore, current: rows.indexOf(present), rows: joined(rows) }
  }

  /**
   * What was put aside before is looked up first, and the lane's last message after it: had another
   * collector put a newer row aside meanwhile, one of the two would have moved.
   */
  async #putAside(row: Uint8Array): Promise<boolean> {
    const subject = incarnationSubject(this.#subject, row.subarray(0, 16))
    const before = await this.#link.last(this.#stream, subject)
    const now = await this.#link.last(this.#stream, this.#subject)
    if ((now?.sequence ?? 0) !== this.#seen!.sequence) return false
    return (await this.#link.publish(subject, row, {}, before?.sequence ?? 0)) !== moved
  }
}

/** Says again what the message says is held, so that the message may go. @returns whether it was its subject's last */
export async function carryForward(link: NatsLink, message: Message): Promise<boolean> {
  const { subject, sequence, body } = message
  const held = readHeld(message)
  const done = held
    ? await link.publish(subject, new Uint8Array(0), markHeaders(held), sequence)
    : await link.publish(subject, body, {}, sequence)
  return done !== moved
}

function memoryOf({ agent, current, rows }: LaneHeld, asides: readonly Aside[]): HeldMemory {
  const memory = new HeldMemory()
  const older = asides.filter(({ row }) => row.length > 0).map(({ row }) => row)
  const all = joined([...older, rows])
  if (all.length > 0) memory.restore({ agent, current: current + older.length, rows: all })
  return memory
}

function rowsOf(bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: bytes.length / rowBytes }, (_, i) =>
    bytes.subarray(i * rowBytes, (i + 1) * rowBytes),
  )
}

function startsWith(row: Uint8Array, id: Uint8Array): boolean {
  return sameBytes(row.subarray(0, id.length), id)
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
