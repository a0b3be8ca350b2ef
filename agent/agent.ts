import { sleep } from '../shared/clock.ts'
import type { Ledger } from '../shared/ledger.ts'
import type { Logger } from '../shared/log.ts'
import type { Clock, HttpLink, Random, Store } from '../shared/ports.ts'
import { type Arrival, type Lane, lanes } from '../shared/reading.ts'
import { ClockWatch } from './clock-watch.ts'
import type { AgentConfig } from './config.ts'
import { Decoder } from './decode/decode.ts'
import { createFilter, type Filter, type Judgement, passingFilter } from './filter/filter.ts'
import { type CommitGroup, Outbox, OutboxFailure } from './outbox/outbox.ts'
import type { LaneStock } from './outbox/recovery.ts'
import { Tail } from './outbox/tail.ts'
import type { Totals } from './outbox/totals.ts'
import { Marks } from './source/marks.ts'
import type { MessageGroup } from './source/message.ts'
import { type BrokerDialer, Source, type SourceStatus } from './source/source.ts'
import type { Tapped } from './tap.ts'
import { retryDelayMs } from './uplink/policy.ts'
import { Uplink, type UplinkStatus } from './uplink/uplink.ts'

/** The agent's world: what differs between a gateway and a simulation. */
export interface AgentPorts {
  clock: Clock
  random: Random
  /** 16 bytes that change with every boot. */
  boot: Uint8Array
  openStore(): Promise<Store>
  reserve: Reserve
  dialer: BrokerDialer
  /** A new one for each pipeline; the pipeline closes it. */
  openUplink(): HttpLink
  log: Logger
}

/** Disk space kept aside for when the disk is full. */
export interface Reserve {
  /** Gives the space back to the disk. */
  release(): Promise<void>
  /** Takes it again where it is not held; false while there is no room for it. */
  restore(): Promise<boolean>
}

export interface AgentStatus {
  agent: string
  ledger: Ledger
  totals: Readonly<Totals>
  lanes: Record<Lane, Readonly<LaneStock>>
  source: SourceStatus
  uplink: Readonly<UplinkStatus>
  unmatchedTopics: { topic: string; count: number }[]
  /** Store failures that were healed by opening it again. */
  reopened: number
}

/** Sees what passes through, for `agent tap`: called once a group. */
export type Tap = (tapped: Tapped) => void

/** Entries are looked at for their age this often. */
const expireEveryS = 60
/** What detectors learned is saved this often, this much at a time. */
const checkpointEveryS = 10
const checkpointBytes = 64 * 1024

/** With a full disk, room is looked for this often. */
const diskFullRetryMs = 5_000

/** Retry of a failed store: first at once, then with growing pauses. It is ours alone: no herd to spread. */
const reopenRetry = { base: 1_000, max: 10_000 }

/**
 * One agent: a pipeline that is set up anew whenever its store fails. LevelDB acknowledges writes behind
 * a failed one and then loses them, so after any write error nothing is acknowledged, the broker is left
 * (it keeps what was not acknowledged), and the store is closed, opened again and checked.
 */
export class Agent {
  readonly #config: AgentConfig
  readonly #ports: AgentPorts
  readonly #taps = new Set<Tap>()
  readonly #opened = Promise.withResolvers<void>()
  #pipeline: Pipeline | undefined
  #reopened = 0

  constructor(config: AgentConfig, ports: AgentPorts) {
    this.#config = config
    this.#ports = ports
  }

  /**
   * Runs until `signal` aborts; then finishes the group in hand and closes.
   *
   * @throws UserError where only a person can help (another agent holds the store, a newer version wrote it)
   */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#ports
    let attempt = 0
    while (!signal.aborted) {
      const startedMs = clock.monotonicMs()
      try {
        await using pipeline = await Pipeline.open(this.#config, this.#ports, this.#taps)
        this.#pipeline = pipeline
        this.#opened.resolve()
        await pipeline.run(signal)
      } catch (error) {
        if (signal.aborted) break
        if (!(error instanceof OutboxFailure)) throw error
        if (clock.monotonicMs() - startedMs > 60_000) attempt = 0
        if (error.diskFull) await this.#ports.reserve.release()
        const delayMs = retryDelayMs(attempt++, reopenRetry, random.uniform())
        this.#reopened += 1
        log.error(
          { err: error, retryInMs: Math.round(delayMs) },
          'the outbox failed: nothing is acknowledged until it is open again',
        )
        await sleep(clock, delayMs, signal).catch(() => {})
      } finally {
        this.#pipeline = undefined
      }
    }
  }

  /** Resolves once the store is open, and its lock ours, for the first time. */
  get opened(): Promise<void> {
    return this.#opened.promise
  }

  /** Undefined while the store is being opened. */
  get status(): AgentStatus | undefined {
    const status = this.#pipeline?.status
    return status && { ...status, agent: this.#config.agent, reopened: this.#reopened }
  }

  /** Lets go of what the filter holds and sends everything now. */
  async flush(): Promise<void> {
    await this.#pipeline?.flush()
  }

  tap(tap: Tap): () => void {
    this.#taps.add(tap)
    return () => this.#taps.delete(tap)
  }
}

/** What a commit adds that came with no message. */
const nothing = { rejects: [], state: [], received: 0, receivedQos0: 0, deduplicated: 0 }

function decides({ admitted, records, suppressed, absorbed, held, state }: Judgement): boolean {
  return admitted.length + records.length + suppressed + absorbed + state.length > 0 || held !== 0
}

/** The stages, open, and the one loop through them. */
class Pipeline implements AsyncDisposable {
  readonly #outbox: Outbox
  readonly #source: Source
  readonly #marks: Marks
  readonly #decoder: Decoder
  readonly #filter: Filter
  readonly #uplink: Uplink
  readonly #link: HttpLink
  readonly #taps: ReadonlySet<Tap>
  readonly #clock: Clock
  readonly #clockWatch: ClockWatch
  readonly #reserve: Reserve
  readonly #log: Logger
  #committing: Promise<void> = Promise.resolve()

  private constructor(parts: {
    outbox: Outbox
    source: Source
    marks: Marks
    decoder: Decoder
    filter: Filter
    uplink: Uplink
    link: HttpLink
    taps: ReadonlySet<Tap>
    clock: Clock
    clockWatch: ClockWatch
    reserve: Reserve
    log: Logger
  }) {
    this.#outbox = parts.outbox
    this.#source = parts.source
    this.#marks = parts.marks
    this.#decoder = parts.decoder
    this.#filter = parts.filter
    this.#uplink = parts.uplink
    this.#link = parts.link
    this.#taps = parts.taps
    this.#clock = parts.clock
    this.#clockWatch = parts.clockWatch
    this.#reserve = parts.reserve
    this.#log = parts.log
  }

  static async open(
    config: AgentConfig,
    ports: AgentPorts,
    taps: ReadonlySet<Tap>,
  ): Promise<Pipeline> {
    const { clock, random, log, boot } = ports
    const { agent } = config
    const store = await ports.openStore()
    try {
      const outbox = await Outbox.open({ store, clock, random, agent, boot, config: config.outbox })
      for (const line of outbox.damage) log.error({ damage: line }, 'the outbox was damaged')
      const marks = await Marks.load(outbox)
      const decoder = new Decoder({ rules: config.decode, agent })
      await decoder.restore(outbox)
      const filter = createFilter({
        rules: config.filter,
        saved: await Array.fromAsync(outbox.read('filter')),
      })
      outbox.settleHeld(filter.held)
      outbox.whenLost((series) => filter.forget(series))
      // Before the source, which dials from the moment it is open.
      const link = ports.openUplink()
      const source = Source.open({
        config: config.source,
        agent,
        dialer: ports.dialer,
        clock,
        random,
        log,
        marks,
      })
      const uplink = new Uplink({ outbox, link, clock, random, log, agent, config: config.uplink })
      return new Pipeline({
        outbox,
        source,
        marks,
        decoder,
        filter,
        uplink,
        link,
        taps,
        clock,
        clockWatch: new ClockWatch(clock, boot),
        reserve: ports.reserve,
        log,
      })
    } catch (error) {
      await store.close()
      throw error
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    // Whichever side fails first ends the other; the first failure is the one that is reported.
    const ended = new AbortController()
    const end = () => ended.abort()
    ended.signal.addEventListener('abort', () => void this.#source.close())
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
    try {
      await Promise.all([
        this.#receive(ended.signal).finally(end),
        this.#uplink.run(ended.signal).finally(end),
        this.#tick(ended.signal).finally(end),
      ])
    } finally {
      signal.removeEventListener('abort', end)
    }
  }

  /** The agent's path. */
  async #receive(signal: AbortSignal): Promise<void> {
    await this.#diskHasRoom(signal)
    for await (const group of this.#source) {
      await this.#outbox.room(signal)
      await this.#exclusive(() => this.#take(group))
      this.#source.acknowledge(group) // Last: until here the broker owns them.
    }
    const state = this.#marks.checkpoint()
    if (state.length > 0)
      await this.#exclusive(() => this.#commit(passingFilter.judge([]), { ...nothing, state }))
  }

  /** Nothing is taken from the broker before the disk's reserve is whole; what is stored is sent meanwhile. */
  async #diskHasRoom(signal: AbortSignal): Promise<void> {
    for (let warned = false; !signal.aborted && !(await this.#reserve.restore()); warned = true) {
      if (!warned)
        this.#log.error(
          'the disk is full: the broker keeps what comes, what is stored is still sent',
        )
      await sleep(this.#clock, diskFullRetryMs, signal).catch(() => {})
      if (!signal.aborted) await this.#outbox.reclaim()
    }
  }

  /** What time brings about: silence, readings held for too long, what is learned, what is too old. */
  async #tick(signal: AbortSignal): Promise<void> {
    for (let second = 0; !signal.aborted; second++) {
      await this.#exclusive(async () => {
        const { wallMs, monotonicMs } = this.#now()
        const judgement = this.#filter.tick({ wallMs, monotonicMs })
        const learned =
          second % checkpointEveryS === 0 ? this.#filter.checkpoint(checkpointBytes) : []
        if (decides(judgement) || learned.length > 0)
          await this.#commit(judgement, { ...nothing, state: learned })
        if (second % expireEveryS === 0) await this.#outbox.expire()
      })
      await sleep(this.#clock, 1_000, signal).catch(() => {})
    }
  }

  #now(): Arrival {
    return { wallMs: this.#clock.wallMs(), monotonicMs: this.#clock.monotonicMs() }
  }

  async #take(group: MessageGroup): Promise<void> {
    const { fresh, repeats } = this.#marks.sift(group)
    const decoded = this.#decoder.decode(fresh, group.arrival)
    // Before the filter marks them.
    const raw = this.#outbox.tail ? Tail.encode(decoded.readings) : []
    const judgement = this.#filter.judge(decoded.readings)
    const deduplicated = repeats.reduce((sum, { readings }) => sum + readings, 0)
    const receivedQos0 = fresh.reduce(
      (sum, { qos }, index) => sum + (qos === 0 ? (decoded.counts[index] ?? 0) : 0),
      0,
    )
    const records = [...judgement.records, ...this.#clockWatch.news()]
    await this.#commit(
      { ...judgement, records },
      {
        rejects: decoded.rejects,
        state: [...decoded.state, ...this.#marks.commitChanges(group, decoded.counts)],
        raw,
        received: decoded.readings.length + decoded.rejects.length + deduplicated,
        receivedQos0,
        deduplicated,
      },
    )
    for (const { topic, payload } of decoded.publish) this.#source.publish(topic, payload)
    for (const tap of this.#taps) tap({ messages: group.messages, ...decoded })
  }

  #commit(
    { admitted, records, suppressed, absorbed, held, state }: Judgement,
    group: Pick<CommitGroup, 'rejects' | 'state' | 'raw'> & {
      received: number
      receivedQos0: number
      deduplicated: number
    },
  ): Promise<void> {
    const { rejects, raw = [], received, receivedQos0, deduplicated } = group
    return this.#outbox.commit({
      admitted,
      records,
      rejects,
      state: [...state, ...group.state],
      raw,
      counts: { received, receivedQos0, suppressed, absorbed, deduplicated, held },
    })
  }

  async flush(): Promise<void> {
    await this.#exclusive(async () => {
      const judgement = this.#filter.flush(this.#now())
      if (decides(judgement)) await this.#commit(judgement, nothing)
    })
    this.#uplink.flush()
  }

  /** The filter's verdicts and their commit belong together: one group at a time. */
  #exclusive(work: () => Promise<void>): Promise<void> {
    const done = this.#committing.then(work)
    this.#committing = done.catch(() => {})
    return done
  }

  get status(): Omit<AgentStatus, 'agent' | 'reopened'> {
    const outbox = this.#outbox
    return {
      ledger: outbox.ledger,
      totals: outbox.totals,
      lanes: Object.fromEntries(
        lanes.map((lane) => [lane, { ...outbox.stock(lane) }]),
      ) as AgentStatus['lanes'],
      source: this.#source.status(),
      uplink: this.#uplink.status,
      unmatchedTopics: this.#decoder.unmatchedTopics(),
    }
  }

  [Symbol.asyncDispose] = async () => {
    await this.#source.close()
    await this.#link.close()
    await this.#outbox.close()
  }
}
