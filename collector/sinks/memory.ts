import { sleep } from '../../shared/clock.ts'
import { UserError } from '../../shared/failure.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import type { Stream } from '../../shared/reading.ts'
import { Document } from '../log/document.ts'
import type { Notes } from '../log/notes.ts'
import { newState, parseState, type SeatState, type SinkState } from './state.ts'

export interface MemoryOptions {
  notes: Notes
  /** Of the sink. */
  name: string
  stream: Stream
  /** This collector: `id` is of this start alone, `at` for people. */
  self: { id: string; at: string }
  /** See `SeatState`. */
  leaseMs: number
  clock: Clock
  random: Random
  /** Called when the sink was paused or resumed, or a range asked for again, here or elsewhere. */
  changed(): void
}

/** The holder of a seat is heard of so often while its lease runs once. */
const beats = 4
/** Share of the lease after which a holder that could not renew it stops: before anybody else may begin. */
const holding = 0.8

/** Another collector runs the sink now, or may. */
export class TurnLost extends Error {}

/**
 * What a sink remembers, in a note. Where several collectors have the log, the note says which of them runs
 * the sink: its holder is heard of with each change that it makes, and now and then; one that has not been
 * for as long as its lease, by the clock of who looks, is replaced. As the holder's every change is refused
 * from then on, nothing that it does late moves anything.
 */
export class SinkMemory {
  readonly #options: MemoryOptions
  readonly #document: Document<SinkState>
  #state: SinkState
  /** Since when the seat has looked as it does. */
  #watched: { term: number; beat: number; sinceMs: number } | undefined

  /**
   * @param begin where a sink begins that remembers nothing, by partition
   * @throws UserError when what it remembers cannot be understood: to begin anew would repeat everything
   */
  static async open(options: MemoryOptions, begin: () => Promise<number[]>): Promise<SinkMemory> {
    const { notes, name, stream } = options
    // With its stream: two that are configured differently for a while must not begin anew over and over.
    const note = notes.isShared ? `sinks/${name}/${stream}` : `sinks/${name}/state`
    const parse = (text: string) => {
      try {
        return parseState(text)
      } catch (cause) {
        const place = notes.isShared
          ? `${note}: this version knows no such state`
          : `${note}.json: not a sink's state`
        throw new UserError(`${place}: put it back, or remove it to begin anew`, { cause })
      }
    }
    const document = new Document({ ...options, name: note, parse })
    let state = await document.read()
    if (state?.stream !== stream) {
      const positions = await begin()
      state = await document.change((value) => {
        const first = value?.stream === stream ? value : newState(stream, positions)
        return { value: first, answer: first }
      })
    }
    return new SinkMemory(options, document, state)
  }

  private constructor(options: MemoryOptions, document: Document<SinkState>, state: SinkState) {
    this.#options = options
    this.#document = document
    this.#state = state
  }

  get isShared(): boolean {
    return this.#options.notes.isShared
  }

  /** As it was seen last. */
  get state(): SinkState {
    return this.#state
  }

  /** Resolves once it survives a power cut. @throws LogFailure, and what `edit` throws */
  async change(edit: (state: SinkState) => SinkState): Promise<void> {
    const seen = await this.#document.change((value = this.#state) => {
      const changed = edit(value)
      return { value: changed, answer: changed }
    })
    this.#saw(seen)
  }

  /**
   * Resolves once the sink is not paused and it is this collector's turn to run it; one turn at a time.
   *
   * @returns undefined when the signal has aborted
   * @throws LogFailure LOG_DISK
   */
  async turn(signal: AbortSignal): Promise<Turn | undefined> {
    const { clock, random, leaseMs } = this.#options
    while (!signal.aborted) {
      const turn = await this.#take()
      if (turn) return turn
      const pauseMs = (leaseMs / beats) * (0.75 + random.uniform() / 2)
      // Without others nothing changes but by whoever aborts it.
      const waiting = this.isShared ? sleep(clock, pauseMs, signal) : aborted(signal)
      await waiting.catch(() => {})
    }
    return undefined
  }

  async #take(): Promise<Turn | undefined> {
    const { self, leaseMs, clock } = this.#options
    if (this.isShared) this.#saw((await this.#document.read()) ?? this.#state)
    if (this.#state.paused) return undefined
    if (!this.isShared) return new Turn(this, undefined, this.#options)
    const before = this.#state.seat
    if (before && !this.#isFree(before)) return undefined
    const startMs = clock.monotonicMs()
    const term = (before?.term ?? 0) + 1
    let isTaken = false
    await this.change((state) => {
      const { seat } = state
      isTaken = seat?.term === before?.term && seat?.beat === before?.beat && !state.paused
      const reached = seat?.reached ?? []
      return isTaken ? { ...state, seat: { term, beat: 0, holder: self, leaseMs, reached } } : state
    })
    return isTaken ? new Turn(this, { term, startMs }, this.#options) : undefined
  }

  #isFree({ term, beat, holder, leaseMs }: SeatState): boolean {
    const nowMs = this.#options.clock.monotonicMs()
    // Of a turn that has ended here, and could not say so.
    if (!holder || holder.id === this.#options.self.id) return true
    const watched = this.#watched
    if (watched?.term === term && watched.beat === beat) return nowMs - watched.sinceMs >= leaseMs
    this.#watched = { term, beat, sinceMs: nowMs }
    return false
  }

  #saw(state: SinkState): void {
    const { paused, again } = this.#state
    this.#state = state
    const isOther = state.again !== undefined && state.again.number !== again?.number
    if (state.paused !== paused || isOther) this.#options.changed()
  }
}

/** While a sink is this collector's to run. */
export class Turn implements AsyncDisposable {
  /** Where the output stands by now, by partition; the others are told now and then. */
  reached: readonly number[] = []
  readonly #memory: SinkMemory
  readonly #clock: Clock
  readonly #leaseMs: number
  /** Undefined where nobody else could have it. */
  readonly #term: number | undefined
  readonly #lost = new AbortController()
  #untilMs = Number.POSITIVE_INFINITY
  #cancelRenewal = () => {}
  #cancelEnd = () => {}
  #hasEnded = false

  /** @param taken the seat, and when its lease began at the earliest */
  constructor(
    memory: SinkMemory,
    taken: { term: number; startMs: number } | undefined,
    { clock, leaseMs }: { clock: Clock; leaseMs: number },
  ) {
    this.#memory = memory
    this.#clock = clock
    this.#leaseMs = leaseMs
    this.#term = taken?.term
    if (!taken) return
    this.#extend(taken.startMs)
    this.#scheduleRenewal()
  }

  /** Aborts when the turn is over before its time: whatever is under way is given up then. */
  get lost(): AbortSignal {
    return this.#lost.signal
  }

  get state(): SinkState {
    return this.#memory.state
  }

  /** To be called before anything is done in the sink's name. @throws TurnLost */
  check(): void {
    // A process that was asleep gets here before its timers do.
    if (this.#clock.monotonicMs() >= this.#untilMs) this.#lose()
    this.#lost.signal.throwIfAborted()
  }

  /** Resolves once the change survives a power cut. @throws TurnLost; LogFailure when it may or may not be made */
  async save(edit: (state: SinkState) => SinkState): Promise<void> {
    if (this.#term === undefined) return this.#memory.change(edit)
    this.check()
    const startMs = this.#clock.monotonicMs()
    await this.#change((state, seat) => ({
      ...edit(state),
      seat: { ...seat, beat: seat.beat + 1, reached: [...this.reached] },
    }))
    this.#extend(startMs)
  }

  /** Lets others have it; what could not be said, they find out in time. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return
    this.#stop()
    if (this.#term === undefined || this.#lost.signal.aborted) return
    await this.#change((state, { holder: _, ...seat }) => ({
      ...state,
      seat: { ...seat, beat: seat.beat + 1, reached: [...this.reached] },
    })).catch(() => {})
  }

  async #change(edit: (state: SinkState, seat: SeatState) => SinkState): Promise<void> {
    try {
      await this.#memory.change((state) => {
        const { seat } = state
        if (!seat?.holder || seat.term !== this.#term) throw new TurnLost('another has its turn')
        return edit(state, seat)
      })
    } catch (error) {
      if (error instanceof TurnLost) this.#lose(error)
      throw error
    }
  }

  #extend(startMs: number): void {
    if (this.#hasEnded) return
    this.#untilMs = startMs + this.#leaseMs * holding
    this.#cancelEnd()
    const leftMs = Math.max(0, this.#untilMs - this.#clock.monotonicMs())
    this.#cancelEnd = this.#clock.timer(leftMs, () => this.#lose())
  }

  #scheduleRenewal(): void {
    this.#cancelRenewal = this.#clock.timer(this.#leaseMs / beats, () => {
      // What fails is tried again while the lease runs.
      this.save((state) => state)
        .catch(() => {})
        .finally(() => {
          if (!this.#hasEnded) this.#scheduleRenewal()
        })
    })
  }

  #lose(why = new TurnLost('the log could not be told in time that the sink is run here')): void {
    this.#stop()
    this.#lost.abort(why)
  }

  #stop(): void {
    this.#hasEnded = true
    this.#cancelRenewal()
    this.#cancelEnd()
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
