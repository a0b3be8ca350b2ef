import { sleep } from '../../shared/clock.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk, Random } from '../../shared/ports.ts'
import { formatTime } from '../../shared/time-text.ts'
import { nextOffsets, type Piece, type Query, readRecords } from '../fanout/fanout.ts'
import type { LogEngine } from '../log/engine.ts'
import type { Notes } from '../log/notes.ts'
import { checkPartitions, parseQuery } from '../query.ts'
import type { SinkConfig } from './config.ts'
import { DeadLetter } from './dead-letter.ts'
import { Feed } from './feed.ts'
import { matcher } from './match.ts'
import { SinkMemory, type Turn, TurnLost } from './memory.ts'
import { nextTurnOf, retryDelayMs, type SinkPhase } from './policy.ts'
import type { Sink, Slice } from './sink.ts'
import { SinkFailure } from './sink.ts'
import type { Again, SinkState } from './state.ts'

export interface RunnerOptions {
  config: SinkConfig
  log: LogEngine
  notes: Notes
  /** The collector's data folder. */
  disk: Disk
  /** See `SinkContext`. */
  origin: string
  /** See `MemoryOptions`. */
  self: { id: string; at: string }
  leaseMs: number
  /** Nobody else appends to the log. */
  isAlone: boolean
  clock: Clock
  random: Random
  logger: Logger
}

/** What there is to tell of a sink. */
export interface SinkStatus {
  name: string
  stream: string
  kind: string
  phase: SinkPhase
  /** The collector that runs it, where several could. */
  at?: string
  /** By partition, offset behind the last record that the output has for good. */
  positions: number[]
  /** Offsets between those and the end of the log. */
  behind: number
  /** Records since the start: written, put into the dead letter; times that it failed. */
  written: number
  refused: number
  failures: number
  /** Offsets of the log that the disk has lost, passed over since the start. */
  damaged: number
  /** Since it last wrote; undefined while all is well. */
  problem?: { at: string; message: string }
  /** What is being written again, and how many offsets of it are left. */
  again?: { from?: string; to?: string; left: number }
}

/** An aborted sink may finish what it is at for so long. */
const graceMs = 5_000

/**
 * Takes one sink along the log: from its position to the end, and then with it. One slice at a time, so a
 * slow output holds little, and nobody but itself.
 */
export class SinkRunner implements AsyncDisposable {
  readonly config: SinkConfig
  readonly deadLetter: DeadLetter
  readonly #options: RunnerOptions
  readonly #counts = { written: 0, refused: 0, failures: 0, damaged: 0 }
  /** Where the log ended when the collector started. */
  readonly #atStart: readonly number[]
  readonly #closing = new AbortController()
  readonly #giveUp = new AbortController()
  readonly #memory: SinkMemory
  #turn: Turn | undefined
  /** Where the output stands, as far as is known; its own word, where it has one. */
  #positions: number[]
  #hasOpened = false
  #phase: 'waiting' | 'running' | 'failing' | 'stopped' = 'waiting'
  #problem: SinkStatus['problem']
  /** Of the range that is being written again. */
  #againNumber: number | undefined
  /** The slice that failed: the same again, so that an output can tell that it is. */
  #inHand: Slice | undefined
  /** Aborted when something else is wanted of the loop. */
  #change = new AbortController()
  #running: Promise<void> | undefined
  #closed: Promise<void> | undefined

  /** @throws UserError when what it remembers is of another stream, or cannot be understood */
  static async open(options: RunnerOptions): Promise<SinkRunner> {
    const { config, disk, log } = options
    const directory = `sinks/${config.name}`
    await disk.makeDirectory(directory)
    await disk.syncDirectory('sinks')
    const { name, stream, from } = config
    const atStart = await nextOffsets(log, stream)
    let changed = () => {}
    const memory = await SinkMemory.open(
      { ...options, name, stream, changed: () => changed() },
      // What comes between now and the first write must not be passed over.
      async () => (from === 'now' ? atStart : []),
    )
    const runner = new SinkRunner(options, directory, memory, atStart)
    changed = () => runner.#changed()
    return runner
  }

  private constructor(
    options: RunnerOptions,
    directory: string,
    memory: SinkMemory,
    atStart: readonly number[],
  ) {
    const { config, disk, clock } = options
    this.config = config
    this.#options = options
    this.#memory = memory
    this.#positions = memory.state.positions.slice()
    this.#atStart = atStart
    this.deadLetter = new DeadLetter(disk, directory, clock, config.deadLetter)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async status(): Promise<SinkStatus> {
    const { config, log } = this.#options
    const positions = this.#known
    const next = await Promise.all(
      Array.from(
        { length: log.partitions },
        async (_, partition) => (await log.statistics(partition))[config.stream],
      ),
    )
    const behind = next.reduce(
      (sum, { first, next }, partition) =>
        sum + Math.max(0, next - Math.max(first, positions[partition]!)),
      0,
    )
    const { again, seat } = this.#memory.state
    const phase = this.#told
    const at = seat?.holder?.at
    return {
      name: config.name,
      stream: config.stream,
      kind: config.kindName,
      phase,
      ...(at !== undefined && { at }),
      positions,
      behind,
      ...this.#counts,
      ...(this.#problem && phase !== 'elsewhere' && { problem: this.#problem }),
      ...(again && {
        again: {
          ...(again.from !== undefined && { from: again.from }),
          ...(again.to !== undefined && { to: again.to }),
          left: again.end.reduce(
            (sum, end, partition) => sum + Math.max(0, end - (again.next[partition] ?? 0)),
            0,
          ),
        },
      }),
    }
  }

  get #told(): SinkPhase {
    const { state, isShared } = this.#memory
    if (this.#phase === 'running' || this.#phase === 'stopped') return this.#phase
    if (this.#phase === 'waiting' && state.paused) return 'paused'
    if (isShared && !this.#turn && state.seat?.holder) return 'elsewhere'
    return this.#phase === 'waiting' ? 'starting' : this.#phase
  }

  /** Where the output stands, by whoever runs the sink. */
  get #known(): number[] {
    const { positions, seat } = this.#memory.state
    return Array.from({ length: this.#options.log.partitions }, (_, partition) =>
      this.#turn || !this.#memory.isShared
        ? (this.#positions[partition] ?? 0)
        : Math.max(positions[partition] ?? 0, seat?.reached[partition] ?? 0),
    )
  }

  /** Resolves once it is remembered; what is being written is finished first. */
  pause(): Promise<void> {
    return this.#memory.change((state) => ({ ...state, paused: true }))
  }

  resume(): Promise<void> {
    return this.#memory.change((state) => ({ ...state, paused: false }))
  }

  /**
   * Has a range written once more, beside what is new. It ends where the sink is now, since what is behind
   * that comes anyway. Another one that is under way is given up.
   *
   * @throws QueryProblem
   */
  async again(range: { from?: string | undefined; to?: string | undefined }): Promise<void> {
    const { partitions } = this.#options.log
    const query = parseQuery({ stream: this.config.stream, ...range })
    checkPartitions(query, partitions)
    const next = Array.from(
      { length: partitions },
      (_, partition) => query.fromOffsets?.[partition] ?? query.fromOffset ?? 0,
    )
    await this.#memory.change((state) => ({
      ...state,
      again: {
        number: (state.again?.number ?? 0) + 1,
        ...(range.from !== undefined && { from: range.from }),
        ...(range.to !== undefined && { to: range.to }),
        next,
        // Only who has opened the output knows where it is.
        end: this.#knowsOutput ? this.#endOf(query) : [],
      },
    }))
  }

  get #knowsOutput(): boolean {
    return this.#hasOpened && (this.#turn !== undefined || !this.#memory.isShared)
  }

  #endOf({ toOffset = Number.POSITIVE_INFINITY }: Query): number[] {
    return Array.from({ length: this.#options.log.partitions }, (_, partition) =>
      Math.min(this.#positions[partition] ?? 0, toOffset),
    )
  }

  /** Finishes what is being written; safe to call twice. */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #shutDown(): Promise<void> {
    this.#closing.abort()
    this.#changed()
    const { clock } = this.#options
    const cancel = clock.timer(graceMs, () => this.#giveUp.abort())
    // An output that does not even give up is left behind.
    const left = once(this.#giveUp.signal).then(() => sleep(clock, 1_000))
    await Promise.race([this.#running, left])
    cancel()
    await this.deadLetter.close()
    this.#phase = 'stopped'
  }

  async #run(): Promise<void> {
    const { clock, random, logger } = this.#options
    const { name } = this.config
    let failures = 0
    while (!this.#closing.signal.aborted) {
      this.#change = new AbortController()
      const { signal } = this.#change
      try {
        if (this.#phase !== 'failing' || this.#memory.state.paused) this.#phase = 'waiting'
        await using turn = await this.#memory.turn(signal)
        if (!turn) continue
        this.#turn = turn
        await this.#serve(turn, signal, () => {
          if (failures > 0) logger.info({ sink: name }, 'the sink writes again')
          failures = 0
          this.#problem = undefined
        })
      } catch (err) {
        if (this.#closing.signal.aborted) break
        if (err instanceof TurnLost || this.#turn?.lost.aborted) {
          logger.info({ sink: name, err }, 'the sink is not run here any more')
          this.#phase = 'waiting'
          continue
        }
        failures += 1
        this.#counts.failures += 1
        this.#phase = 'failing'
        const message = (err as Error).message
        this.#problem = { at: formatTime(clock.wallMs()), message }
        const atLeastMs = err instanceof SinkFailure ? err.retryAfterMs : 0
        const delayMs = retryDelayMs(failures, this.config.retry, random.uniform(), atLeastMs)
        const line = { sink: name, err, delayMs: Math.round(delayMs) }
        // Of collectors that share a log and a sink one is always the slower.
        if (err instanceof SinkFailure && err.code === 'SINK_MOVED')
          logger.debug(line, 'the sink has moved')
        else logger.error(line, 'the sink cannot write')
        await sleep(clock, delayMs, signal).catch(() => {})
      } finally {
        this.#turn = undefined
      }
    }
  }

  /** Opens the output and gives it slices until something else is wanted. */
  async #serve(turn: Turn, signal: AbortSignal, wrote: () => void): Promise<void> {
    const { config } = this
    const { log, clock, random, logger, origin } = this.#options
    const { isShared } = this.#memory
    const { name, stream } = config
    const { partitions } = log
    const kept = {
      get value() {
        return turn.state.kept
      },
      write: (value: unknown) => turn.save((state) => ({ ...state, kept: value })),
    }
    const context = { name, stream, partitions, origin, isShared, kept, clock, random, logger }
    await using sink = await config.kind.open(config.options, context)
    this.#positions = this.#positionsOf(sink)
    turn.reached = this.#positions
    const number = turn.state.again?.number
    this.#againNumber = number
    const stop = new AbortController()
    const readers = AbortSignal.any([signal, stop.signal])
    let wake = () => {}
    const rouse = () => wake()
    const again = await this.#openAgain(turn, readers, rouse)
    const live = this.#openLive(readers, rouse)
    const output = new Output(sink, clock, rouse)
    signal.addEventListener('abort', rouse, { once: true })
    turn.lost.addEventListener('abort', rouse, { once: true })
    try {
      let last: 'live' | 'again' = 'again'
      if (this.#inHand) await this.#write(output, [this.#inHand], wrote)
      this.#phase = 'running'
      while (!signal.aborted) {
        turn.check()
        if (again?.isDone && turn.state.again?.number === number)
          await turn.save((state) => withAgain(state, number, () => undefined))
        if (output.isOverdue) await this.#flush(output, wrote)
        const next = nextTurnOf({ live: live.hasSome, again: again?.hasSome ?? false }, last)
        if (next) {
          last = next
          await this.#write(output, await (next === 'live' ? live : again!).take(), wrote)
        } else if (live.isDone) break
        else if (!signal.aborted)
          // Woken rather than raced for: what waits for days would keep every race that it was in.
          await new Promise<void>((resolve) => {
            wake = resolve
          })
      }
      await this.#flush(output, wrote)
    } finally {
      output.stop()
      stop.abort()
      await Promise.all([live.close(), again?.close()])
    }
  }

  /** Where to go on: by the output's own account, or by ours. */
  #positionsOf(sink: Sink): number[] {
    const { log, logger, isAlone } = this.#options
    const isFirst = !this.#hasOpened
    this.#hasOpened = true
    return Array.from({ length: log.partitions }, (_, partition) => {
      const { positions } = this.#memory.state
      const position = sink.positions?.get(partition) ?? positions[partition] ?? 0
      const end = this.#atStart[partition] ?? 0
      if (!isFirst || !isAlone || position <= end) return position
      // What comes now would be taken for what the output has.
      const { name } = this.config
      logger.error({ sink: name, partition, position, end }, 'an older log was put back')
      return end
    })
  }

  #openLive(signal: AbortSignal, arrived: () => void): Feed {
    const fromMs = typeof this.config.from === 'number' ? this.config.from : undefined
    const fromOffsets = this.#positions.slice()
    const inHand = this.#inHand
    // Given first, if it is still what comes next.
    if (inHand && !inHand.again && fromOffsets[inHand.partition] === inHand.from)
      fromOffsets[inHand.partition] = inHand.to
    else this.#inHand = undefined
    const query = { stream: this.config.stream, fromOffsets, fromMs, follow: true, signal }
    return this.#feed(readRecords(this.#options.log, query), fromOffsets, false, arrived)
  }

  async #openAgain(
    turn: Turn,
    signal: AbortSignal,
    arrived: () => void,
  ): Promise<Feed | undefined> {
    const { again } = turn.state
    if (!again) return undefined
    const query = parseQuery({ stream: this.config.stream, from: again.from, to: again.to })
    const range = again.end.length > 0 ? again : { ...again, end: this.#endOf(query) }
    if (range !== again) await turn.save((state) => withAgain(state, again.number, () => range))
    return this.#feed(this.#rangesOf(range, { ...query, signal }), range.next, true, arrived)
  }

  /** One partition after the other. */
  async *#rangesOf({ next, end }: Again, query: Query): AsyncGenerator<Piece> {
    for (const [partition, toOffset] of end.entries())
      if (next[partition]! < toOffset)
        yield* readRecords(this.#options.log, {
          ...query,
          partition,
          fromOffset: next[partition],
          fromOffsets: undefined,
          toOffset,
        })
  }

  #feed(
    pieces: AsyncIterable<Piece>,
    positions: readonly number[],
    again: boolean,
    arrived: () => void,
  ): Feed {
    const { config } = this
    const { clock, logger } = this.#options
    return new Feed(pieces, {
      stream: config.stream,
      positions,
      wants: matcher(config.match),
      again,
      limits: config.kind.slice(config.options),
      clock,
      arrived,
      damaged: (first, last, partition) => {
        this.#counts.damaged += last - first + 1
        logger.error(
          { sink: config.name, partition, first, last },
          'offsets that the disk has lost',
        )
      },
    })
  }

  async #write(output: Output, slices: readonly Slice[], wrote: () => void): Promise<void> {
    for (const slice of slices) {
      this.#turn!.check()
      this.#inHand = slice
      let refused = 0
      const written = await output.write(
        slice,
        async (refusals) => {
          await this.deadLetter.add(refusals)
          refused += refusals.length
        },
        this.#stop,
      )
      this.#inHand = undefined
      this.#counts.written += slice.records.length - refused
      this.#counts.refused += refused
      await this.#advance(output, written, wrote)
    }
  }

  /** At its abort whatever is under way is given up. */
  get #stop(): AbortSignal {
    return AbortSignal.any([this.#giveUp.signal, this.#turn!.lost])
  }

  async #flush(output: Output, wrote: () => void): Promise<void> {
    this.#turn!.check()
    await this.#advance(output, await output.flush(this.#stop), wrote)
  }

  /** Moves the positions behind slices that are durable. */
  async #advance(
    { keepsPositions }: Output,
    slices: readonly Slice[],
    wrote: () => void,
  ): Promise<void> {
    if (slices.length === 0) return
    const turn = this.#turn!
    const positions = this.#positions.slice()
    for (const slice of slices) if (!slice.again) positions[slice.partition] = slice.to
    const again = slices.filter((slice) => slice.again)
    const movesOurs = slices.length > again.length && !keepsPositions
    turn.reached = positions
    if (movesOurs || again.length > 0)
      await turn.save((state) => {
        const moved = movesOurs ? { ...state, positions } : state
        return withAgain(moved, this.#againNumber, (range) => {
          const next = [...range.next]
          for (const slice of again) next[slice.partition] = slice.to
          return { ...range, next }
        })
      })
    this.#positions = positions
    wrote()
  }

  #changed(): void {
    this.#change.abort()
  }
}

/** With what becomes of the range that is written again, unless another was asked for meanwhile. */
function withAgain(
  { again, ...rest }: SinkState,
  number: number | undefined,
  change: (again: Again) => Again | undefined,
): SinkState {
  const next = again && again.number === number ? change(again) : again
  return next ? { ...rest, again: next } : rest
}

/** A sink with what it holds back. */
class Output {
  readonly keepsPositions: boolean
  readonly #sink: Sink
  readonly #clock: Clock
  readonly #rouse: () => void
  #held: Slice[] = []
  #cancel: (() => void) | undefined
  /** What is held must be written now. */
  isOverdue = false

  constructor(sink: Sink, clock: Clock, rouse: () => void) {
    this.#sink = sink
    this.#clock = clock
    this.#rouse = rouse
    this.keepsPositions = sink.positions !== undefined
  }

  /** @returns slices that are durable with it: all that were held, or none */
  async write(...[slice, refuse, signal]: Parameters<Sink['write']>): Promise<Slice[]> {
    const answer = await this.#sink.write(slice, refuse, signal)
    // Its records are not needed any more, and a file may be made of many slices.
    this.#held.push({ ...slice, records: [] })
    if (answer === 'durable') return this.#release()
    this.#cancel ??= this.#clock.timer(this.#sink.holdMs ?? 0, () => {
      this.isOverdue = true
      this.#rouse()
    })
    return []
  }

  async flush(signal: AbortSignal): Promise<Slice[]> {
    if (this.#held.length === 0) return []
    await this.#sink.flush?.(signal)
    return this.#release()
  }

  stop(): void {
    this.#cancel?.()
  }

  #release(): Slice[] {
    this.#cancel?.()
    this.#cancel = undefined
    this.isOverdue = false
    const held = this.#held
    this.#held = []
    return held
  }
}

function once(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
