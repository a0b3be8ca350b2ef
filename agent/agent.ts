import { isDeepStrictEqual } from 'node:util'
import { sleep } from '../shared/clock.ts'
import type { Ledger } from '../shared/ledger.ts'
import type { Logger } from '../shared/log.ts'
import type { Clock, HttpLink, Random, Store } from '../shared/ports.ts'
import { type AdmittedReading, type Arrival, type Lane, lanes, Quality } from '../shared/reading.ts'
import { ClockWatch } from './clock-watch.ts'
import type { AgentConfig } from './config.ts'
import { Decoder } from './decode/decode.ts'
import {
  type Admission,
  createFilter,
  type Filter,
  type FilterCounts,
  type Judgement,
  passingFilter,
} from './filter/filter.ts'
import { type CommitGroup, Outbox, OutboxFailure } from './outbox/outbox.ts'
import type { LaneStock } from './outbox/recovery.ts'
import { Tail, type TailQuery, type TailStock } from './outbox/tail.ts'
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
  openReserve(bytes: number): Reserve
  openDialer(config: AgentConfig['source']): BrokerDialer
  /** A new one for each pipeline and each configuration of the uplink; the pipeline closes it. */
  openUplink(config: AgentConfig['uplink']): HttpLink
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
  /** Since the filter was made. */
  filter: Readonly<FilterCounts>
  /** Raw readings kept after delivery; undefined where none are. */
  tail: Readonly<TailStock> | undefined
  /** Store failures that were healed by opening it again. */
  reopened: number
  /** Alerts that the filter has raised since the start. */
  alerts: number
  /** Nothing is taken from the source, because somebody asked for that. */
  paused: boolean
}

/** Sees what passes through, for `agent tap`: called once a group. */
export type Tap = (tapped: Tapped) => void

/** Entries are looked at for their age this often. */
const expireEveryS = 60
/** What detectors learned is saved this often, this much at a time. */
const checkpointEveryS = 10
const checkpointBytes = 64 * 1024

/** Readings that are sent once more are committed so many at a time. */
const resentAtOnce = 1_000

/** With a full disk, room is looked for this often. */
const diskFullRetryMs = 5_000

/** Time for the answer to a batch that is on its way while the uplink's configuration changes. */
const lastAnswerMs = 5_000

/** Retry of a failed store: first at once, then with growing pauses. It is ours alone: no herd to spread. */
const reopenRetry = { base: 1_000, max: 10_000 }

/**
 * One agent: a pipeline that is set up anew whenever its store fails. LevelDB acknowledges writes behind
 * a failed one and then loses them, so after any write error nothing is acknowledged, the broker is left
 * (it keeps what was not acknowledged), and the store is closed, opened again and checked.
 */
export class Agent {
  #config: AgentConfig
  readonly #ports: AgentPorts
  readonly #watchers: Watchers = { taps: new Set(), alerts: 0 }
  readonly #opened = Promise.withResolvers<void>()
  #pipeline: Pipeline | undefined
  #reopened = 0
  #paused = false
  #changing: Promise<void> = Promise.resolve()

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
        const config = this.#config
        const paused = this.#paused
        await using pipeline = await Pipeline.open(config, this.#ports, this.#watchers, paused)
        this.#pipeline = pipeline
        if (config !== this.#config || paused !== this.#paused) await this.#changeOver()
        this.#opened.resolve()
        await pipeline.run(signal)
      } catch (error) {
        if (signal.aborted) break
        if (!(error instanceof OutboxFailure)) throw error
        if (clock.monotonicMs() - startedMs > 60_000) attempt = 0
        if (error.diskFull) await this.#ports.openReserve(this.#config.outbox.reserve).release()
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

  /** Since the loop last came round, monotonic; 0 while the store is being opened. It does so every second. */
  get stuckForMs(): number {
    const { clock } = this.#ports
    return this.#pipeline ? clock.monotonicMs() - this.#pipeline.turnedMs : 0
  }

  /** Undefined while the store is being opened. */
  get status(): AgentStatus | undefined {
    const status = this.#pipeline?.status
    return (
      status && {
        ...status,
        agent: this.#config.agent,
        reopened: this.#reopened,
        alerts: this.#watchers.alerts,
        paused: this.#paused,
      }
    )
  }

  /**
   * Goes over to another configuration, of the same agent and data folder. A stage whose part has not changed
   * goes on untouched, and the outbox keeps all that it has.
   *
   * @throws what the configuration makes impossible; the old one then goes on
   */
  async change(config: AgentConfig): Promise<void> {
    const before = this.#config
    this.#config = config
    await this.#turn(() => {
      this.#config = before
    })
  }

  /** Takes nothing more from the source until `resume`; the broker keeps it. What is stored is still sent. */
  async pause(): Promise<void> {
    this.#paused = true
    await this.#turn()
  }

  async resume(): Promise<void> {
    this.#paused = false
    await this.#turn()
  }

  /** Raw readings that are kept, as they came; undefined where none are. */
  tail(query: TailQuery): AsyncIterable<AdmittedReading> | undefined {
    return this.#pipeline?.tail(query)
  }

  /**
   * Sends raw readings that are kept once more, marked `resent`, also those that the filter suppressed.
   *
   * @returns how many
   */
  async resend(query: TailQuery): Promise<number> {
    return (await this.#pipeline?.resend(query)) ?? 0
  }

  /** To what is wanted by then; one at a time. */
  #changeOver(): Promise<void> {
    const done = this.#changing.then(() => this.#pipeline?.change(this.#config, this.#paused))
    this.#changing = done.catch(() => {})
    return done
  }

  async #turn(failed = () => {}): Promise<void> {
    try {
      await this.#changeOver()
    } catch (error) {
      // The pipeline is about to be set up anew, as it should be now.
      if (error instanceof OutboxFailure) return
      failed()
      throw error
    }
  }

  /** Lets go of what the filter holds and sends everything now. */
  async flush(): Promise<void> {
    await this.#pipeline?.flush()
  }

  tap(tap: Tap): () => void {
    this.#watchers.taps.add(tap)
    return () => this.#watchers.taps.delete(tap)
  }
}

/** What outlives a pipeline: who sees what passes, and what was counted. */
interface Watchers {
  readonly taps: Set<Tap>
  alerts: number
}

/** What a commit adds that came with no message. */
const nothing = { rejects: [], state: [], received: 0, receivedQos0: 0, deduplicated: 0 }

function decides({ admitted, records, suppressed, absorbed, held, state }: Judgement): boolean {
  return admitted.length + records.length + suppressed + absorbed + state.length > 0 || held !== 0
}

/** The stages, open, and the one loop through them. */
class Pipeline implements AsyncDisposable {
  readonly #ports: AgentPorts
  readonly #watchers: Watchers
  readonly #outbox: Outbox
  readonly #marks: Marks
  readonly #clockWatch: ClockWatch
  /** When the loop last came round, monotonic: a commit that never ends holds it up. */
  turnedMs: number
  #config: AgentConfig
  #paused: boolean
  #decoder: Decoder
  #filter: Filter
  #link: HttpLink
  #uplink: Uplink
  #source: Source
  /** Settled unless the source is being changed, or is paused. */
  #turning: PromiseWithResolvers<void> | undefined
  #uplinkTurn = new AbortController()
  /** Links whose place another has taken, until the uplink on them has ended. */
  readonly #leftLinks: HttpLink[] = []
  #cancelGrace: () => void = () => {}
  #stopping: AbortSignal | undefined
  #committing: Promise<void> = Promise.resolve()

  private constructor(
    config: AgentConfig,
    ports: AgentPorts,
    watchers: Watchers,
    paused: boolean,
    stages: { outbox: Outbox; marks: Marks; decoder: Decoder; filter: Filter; link: HttpLink },
  ) {
    this.#config = config
    this.#ports = ports
    this.#watchers = watchers
    this.#paused = paused
    this.#outbox = stages.outbox
    this.#marks = stages.marks
    this.#decoder = stages.decoder
    this.#filter = stages.filter
    this.#outbox.whenLost((series) => this.#filter.forget(series))
    this.#clockWatch = new ClockWatch(ports.clock, ports.boot)
    this.turnedMs = ports.clock.monotonicMs()
    this.#link = stages.link
    this.#uplink = this.#makeUplink()
    this.#source = this.#openSource()
    if (paused) this.#turning = Promise.withResolvers()
  }

  static async open(
    config: AgentConfig,
    ports: AgentPorts,
    watchers: Watchers,
    paused: boolean,
  ): Promise<Pipeline> {
    const { clock, random, log, boot } = ports
    const { agent } = config
    const store = await ports.openStore()
    try {
      const outbox = await Outbox.open({ store, clock, random, agent, boot, config: config.outbox })
      for (const line of outbox.damage) log.error({ damage: line }, 'the outbox was damaged')
      const marks = await Marks.load(outbox)
      const decoder = await openDecoder(config, outbox)
      const filter = await openFilter(config, outbox)
      // Before the source, which dials from the moment it is open.
      const link = ports.openUplink(config.uplink)
      const stages = { outbox, marks, decoder, filter, link }
      return new Pipeline(config, ports, watchers, paused, stages)
    } catch (error) {
      await store.close()
      throw error
    }
  }

  async run(signal: AbortSignal): Promise<void> {
    // Whichever side fails first ends the other; the first failure is the one that is reported.
    const ended = new AbortController()
    this.#stopping = ended.signal
    ended.signal.addEventListener('abort', () => {
      void this.#source.close()
      this.#turning?.resolve()
    })
    const unlink = abortWith(signal, ended)
    try {
      await Promise.all([
        this.#receive(ended.signal).finally(() => ended.abort()),
        this.#forward(ended.signal).finally(() => ended.abort()),
        this.#tick(ended.signal).finally(() => ended.abort()),
      ])
    } finally {
      unlink()
    }
  }

  /**
   * Takes another configuration over, stage by stage. What is in hand is committed and acknowledged by the old
   * rules first; the broker keeps the rest.
   */
  async change(config: AgentConfig, paused: boolean): Promise<void> {
    const before = this.#config
    const changes = (part: 'source' | 'decode' | 'filter' | 'outbox' | 'uplink') =>
      !isDeepStrictEqual(before[part], config[part])
    // May fail: before anything is touched.
    const link = changes('uplink') ? this.#ports.openUplink(config.uplink) : undefined
    const turnsSource = changes('source') || paused !== this.#paused
    this.#config = config
    this.#paused = paused
    if (turnsSource) {
      this.#turning ??= Promise.withResolvers()
      await this.#source.close()
    }
    try {
      await this.#exclusive(async () => {
        if (changes('outbox')) await this.#outbox.configure(config.outbox)
        if (changes('decode')) this.#decoder = await openDecoder(config, this.#outbox)
        if (changes('filter')) await this.#changeFilter(config)
      })
      if (link) this.#changeUplink(link)
    } finally {
      if (turnsSource) this.#turnSource()
    }
  }

  /** The new filter goes on with what the old one has committed: all of it. */
  async #changeFilter(config: AgentConfig): Promise<void> {
    // The first round may have begun before.
    const learned = [...this.#filter.checkpoint(Infinity), ...this.#filter.checkpoint(Infinity)]
    if (learned.length > 0)
      await this.#commit(passingFilter.judge([]), { ...nothing, state: learned })
    this.#filter = await openFilter(config, this.#outbox)
  }

  /** A batch that is given up may yet be in the old collector's log, and would be in the new one's as well. */
  #changeUplink(link: HttpLink): void {
    const before = this.#uplink
    const turn = this.#uplinkTurn
    this.#leftLinks.push(this.#link)
    this.#link = link
    this.#uplink = this.#makeUplink()
    before.finish()
    this.#cancelGrace()
    this.#cancelGrace = this.#ports.clock.timer(lastAnswerMs, () => turn.abort())
  }

  #makeUplink(): Uplink {
    const { clock, random, log } = this.#ports
    const { agent, uplink: config } = this.#config
    const decidedMs = () => this.#decidedMs
    const ports = { outbox: this.#outbox, link: this.#link, clock, random, log }
    return new Uplink({ ...ports, agent, config, decidedMs })
  }

  /** What was received before this is in the outbox, or gone from it, as far as it will ever be. */
  get #decidedMs(): number | undefined {
    const { acknowledgedMs } = this.#source
    return acknowledgedMs && Math.min(acknowledgedMs, this.#filter.undecidedMs)
  }

  #turnSource(): void {
    if (this.#stopping?.aborted) this.#turning?.resolve()
    else {
      this.#source = this.#openSource(this.#source)
      if (this.#paused) return
      this.#turning?.resolve()
      this.#turning = undefined
    }
  }

  /** @param before the source whose place it takes */
  #openSource(before?: Source): Source {
    const { clock, random, log } = this.#ports
    const { agent, source: config } = this.#config
    const options = {
      config,
      agent,
      dialer: this.#ports.openDialer(config),
      clock,
      random,
      log,
      marks: this.#marks,
      connectionsBefore: before?.connections ?? 0,
    }
    return this.#paused ? Source.idle(options) : Source.open(options)
  }

  /** The agent's path. */
  async #receive(signal: AbortSignal): Promise<void> {
    await this.#diskHasRoom(signal)
    for (let next: Source | undefined = this.#source; next; ) {
      const source: Source = next
      for await (const group of source) {
        await this.#outbox.room(signal)
        await this.#exclusive(() => this.#take(group, () => source.acknowledge(group)))
      }
      await this.#turning?.promise
      next = this.#source === source ? undefined : this.#source
    }
    const state = this.#marks.checkpoint()
    if (state.length > 0)
      await this.#exclusive(() => this.#commit(passingFilter.judge([]), { ...nothing, state }))
  }

  async #forward(signal: AbortSignal): Promise<void> {
    for (let uplink: Uplink | undefined = this.#uplink; uplink; ) {
      this.#uplinkTurn = new AbortController()
      const unlink = abortWith(signal, this.#uplinkTurn)
      await uplink.run(this.#uplinkTurn.signal).finally(unlink)
      this.#cancelGrace()
      for (const link of this.#leftLinks.splice(0)) await link.close()
      uplink = this.#uplink === uplink || signal.aborted ? undefined : this.#uplink
    }
  }

  /** Nothing is taken from the broker before the disk's reserve is whole; what is stored is sent meanwhile. */
  async #diskHasRoom(signal: AbortSignal): Promise<void> {
    const { log, clock, openReserve } = this.#ports
    const reserve = openReserve(this.#config.outbox.reserve)
    for (let warned = false; !signal.aborted && !(await reserve.restore()); warned = true) {
      if (!warned)
        log.error('the disk is full: the broker keeps what comes, what is stored is still sent')
      await sleep(clock, diskFullRetryMs, signal).catch(() => {})
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
      this.turnedMs = this.#now().monotonicMs
      await sleep(this.#ports.clock, 1_000, signal).catch(() => {})
    }
  }

  #now(): Arrival {
    const { clock } = this.#ports
    return { wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() }
  }

  /** @param durable called once what became of the group is on the disk: until then the broker owns it */
  async #take(group: MessageGroup, durable: () => void): Promise<void> {
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
      durable,
    )
    for (const { topic, payload } of decoded.publish) this.#source.publish(topic, payload)
    for (const tap of this.#watchers.taps) tap({ messages: group.messages, ...decoded })
  }

  #commit(
    { admitted, records, suppressed, absorbed, held, state }: Judgement,
    group: Pick<CommitGroup, 'rejects' | 'state' | 'raw'> & {
      received: number
      receivedQos0: number
      deduplicated: number
    },
    durable?: () => void,
  ): Promise<void> {
    const { rejects, raw = [], received, receivedQos0, deduplicated } = group
    for (const { type } of records) if (type === 'alert') this.#watchers.alerts += 1
    const counts = { received, receivedQos0, suppressed, absorbed, deduplicated, held }
    const all = [...state, ...group.state]
    return this.#outbox.commit({ admitted, records, rejects, state: all, raw, counts }, durable)
  }

  tail(query: TailQuery): AsyncIterable<AdmittedReading> | undefined {
    return this.#outbox.tail?.read(query)
  }

  async resend(query: TailQuery): Promise<number> {
    let sent = 0
    let admitted: Admission[] = []
    const send = async () => {
      await this.#outbox.room(this.#stopping ?? AbortSignal.abort())
      if (this.#stopping?.aborted) return
      sent += admitted.length
      await this.#exclusive(() => this.#commit({ ...passingFilter.judge([]), admitted }, nothing))
      admitted = []
    }
    for await (const reading of this.tail(query) ?? []) {
      const quality = reading.quality | Quality.resent
      // They were counted when they came.
      admitted.push({ lane: 'bulk', reading: { ...reading, quality }, derived: true })
      if (admitted.length >= resentAtOnce) await send()
      if (this.#stopping?.aborted) break
    }
    if (admitted.length > 0) await send()
    return sent
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

  get status(): Omit<AgentStatus, 'agent' | 'reopened' | 'alerts' | 'paused'> {
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
      filter: { ...this.#filter.counts },
      tail: outbox.tail?.stock,
    }
  }

  [Symbol.asyncDispose] = async () => {
    await this.#source.close()
    this.#cancelGrace()
    for (const link of [...this.#leftLinks, this.#link]) await link.close()
    await this.#outbox.close()
  }
}

async function openDecoder(
  { decode: rules, agent }: AgentConfig,
  outbox: Outbox,
): Promise<Decoder> {
  const decoder = new Decoder({ rules, agent })
  await decoder.restore(outbox)
  return decoder
}

async function openFilter({ filter: rules }: AgentConfig, outbox: Outbox): Promise<Filter> {
  const filter = createFilter({ rules, saved: await Array.fromAsync(outbox.read('filter')) })
  outbox.settleHeld(filter.held)
  return filter
}

/**
 * Aborts with the signal, too; the returned function takes that back. What Node combines by itself
 * (`AbortSignal.any`) it keeps for ever, listeners and all, unless it aborts.
 */
function abortWith(signal: AbortSignal, controller: AbortController): () => void {
  const abort = () => controller.abort(signal.reason)
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort)
  return () => signal.removeEventListener('abort', abort)
}
