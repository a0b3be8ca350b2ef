import type { Logger } from '../../shared/log.ts'
import type { Clock, Random } from '../../shared/ports.ts'
import { Backoff } from './backoff.ts'
import type { SubscribingConfig } from './config.ts'
import type { SourceFailure, SourceFailureCode } from './failure.ts'
import { Linger } from './linger.ts'
import { type BrokerDialer, Link, type LinkHost, type Welcome, type Will } from './link.ts'
import type { MessageGroup, Session } from './message.ts'
import { Publisher } from './publisher.ts'
import { leastFilters } from './topic-filter.ts'
import { TopicTable } from './topic-table.ts'

export { type SourceConfig, sourceSchema } from './config.ts'
export { SourceFailure, type SourceFailureCode, sourceFailures } from './failure.ts'
export type { BrokerDialer, Will } from './link.ts'
export { Marks } from './marks.ts'
export type { Message, MessageGroup, Session } from './message.ts'

export interface SourceOptions {
  config: SubscribingConfig
  /** Name of the agent; the client id derives from it. */
  agent: string
  dialer: BrokerDialer
  clock: Clock
  random: Random
  log: Logger
  /** Remember the session at the broker. */
  marks: { readonly session: Session | undefined }
  will?: Will
  /** Section of the configuration that it is told to look at; `source` by default. */
  section?: string
  /** Subscribes at each connection, as if for the first time, to be given what is retained again. */
  renews?: boolean
  /** Connections of a source that this one takes the place of: numbers go on, for the marks. */
  connectionsBefore?: number
  onEvent?(event: SourceEvent): void
}

export type SourceEvent =
  | { type: 'connected'; sessionPresent: boolean }
  /** The broker has forgotten our session, and with it what it kept for us. */
  | { type: 'session-lost' }
  | { type: 'disconnected'; failure: SourceFailure }
  | { type: 'subscription-refused'; filter: string; reason: string }

export interface SourceStatus {
  phase: 'connecting' | 'connected' | 'waiting' | 'closed'
  /** Wall clock, ms. */
  connectedSinceMs: number | undefined
  /** When it is tried again, wall clock, ms. */
  retryAtMs: number | undefined
  sessionPresent: boolean | undefined
  subscribed: readonly string[]
  connects: number
  sessionsLost: number
  lastError: { code: SourceFailureCode; message: string; atMs: number } | undefined
  /** Received and not acknowledged, waiting or being committed. */
  unackedMessages: number
  unackedBytes: number
  /** The socket is not read, because too much is un-acknowledged. */
  paused: boolean
  /** Sent again by the broker within one connection, and dropped. */
  retransmitted: number
  /** Topics with the time of their last message, wall clock, ms; at most 1,000. */
  topics: { topic: string; lastMs: number }[]
}

/** Most bytes that are committed together: what is decoded at a stretch must not keep the links waiting. */
const maxGroupBytes = 512 * 1024
/** The same trouble is logged again after this long, ms. */
const repeatLogMs = 60_000
/** How long a group in hand may still take to be committed when the source closes, ms. */
const inHandMs = 2_000
const maxStatusTopics = 1_000

/**
 * MQTT as an async iterable of message groups. It connects by itself and keeps trying; what it hands out
 * stays the broker's until `acknowledge`.
 * Invariant: what is received and not acknowledged is bounded; beyond that the socket is not read.
 */
export class Source implements AsyncIterable<MessageGroup>, AsyncDisposable {
  readonly #options: SourceOptions
  readonly #clientId: string
  readonly #broker: string
  /** What to subscribe to. */
  readonly #filters: readonly string[]
  readonly #backoff: Backoff
  readonly #topics = new TopicTable()
  readonly #publisher: Publisher
  readonly #host: LinkHost
  #link: Link | undefined
  /** Ended links whose messages are still to be handed out. QoS 0 has no other copy. */
  #leftovers: Link[] = []
  /** Handed out and not acknowledged, oldest first. */
  #handed: { group: MessageGroup; link: Link; bytes: number }[] = []
  #waiter: ((result: IteratorResult<MessageGroup, undefined>) => void) | undefined
  /** When it was asked for, monotonic clock. */
  #askedMs = 0
  readonly #linger: Linger
  #lingering: (() => void) | undefined
  #session: Session | undefined
  /** The session as last handed out. */
  #reported: Session | undefined
  #phase: SourceStatus['phase'] = 'connecting'
  #connections = 0
  #connects = 0
  #sessionsLost = 0
  #retransmitted = 0
  #sessionPresent: boolean | undefined
  #connectedSinceMs: number | undefined
  #lostMs: number | undefined
  #retryAtMs: number | undefined
  #lastError: SourceStatus['lastError']
  readonly #logged = new Map<string, { message: string; atMs: number }>()
  #cancelRetry = () => {}
  #closing: Promise<void> | undefined
  #allAcknowledged: (() => void) | undefined

  private constructor(options: SourceOptions) {
    const { config, agent, clock, random, marks } = options
    this.#options = options
    this.#clientId = config.clientId ?? `headgate-${agent}`
    this.#broker = `${config.url} ${this.#clientId}`
    this.#filters = leastFilters(config.topics)
    this.#backoff = new Backoff({ ...config.retry, clock, random })
    this.#connections = options.connectionsBefore ?? 0
    this.#linger = new Linger(config.linger)
    this.#publisher = new Publisher(config.version === '5')
    // What another broker knew of us, or this one under another name, says nothing.
    if (marks.session?.broker === this.#broker) this.#session = marks.session
    this.#reported = marks.session
    this.#host = {
      welcomed: (link, welcome) => this.#welcomed(link, welcome),
      arrived: (link) => this.#arrived(link),
      closed: (link, failure) => this.#lost(link, failure),
      published: (packetId) => this.#publisher.acknowledged(packetId),
      subscriptionRefused: (filter, reason) => this.#refused(filter, reason),
      subscriptionDegraded: (filter) =>
        this.#warn(
          `degraded ${filter}`,
          `the broker gives only QoS 0 for ${filter}: what comes while the agent is away is lost`,
        ),
    }
  }

  /** Begins to connect at once. */
  static open(options: SourceOptions): Source {
    const source = new Source(options)
    source.#connect()
    return source
  }

  /** One that never connects and hands out nothing. */
  static idle(options: SourceOptions): Source {
    const source = new Source(options)
    source.#phase = 'closed'
    source.#closing = Promise.resolve()
    return source
  }

  [Symbol.asyncIterator](): AsyncIterator<MessageGroup, undefined> {
    return {
      next: () => this.#next(),
      // The loop has been left, by a failure perhaps: what is in hand will not be acknowledged.
      return: async () => {
        this.#handed = []
        this.#allAcknowledged?.()
        await this.close()
        return { done: true, value: undefined }
      },
    }
  }

  /**
   * Tells the broker that the group is safe. Groups are acknowledged in the order they were taken. Where
   * their connection has ended meanwhile nothing is sent: the broker delivers them again.
   */
  acknowledge(group: MessageGroup): void {
    const handed = this.#handed[0]
    if (handed?.group !== group) throw new TypeError('groups are acknowledged once, in their order')
    this.#linger.committed(this.#unacknowledged().messages)
    this.#handed.shift()
    handed.link.acknowledge(group)
    if (this.#closing && this.#handed.length === 0) this.#allAcknowledged?.()
    else if (this.#link?.paused && !this.#full()) this.#link.resume()
  }

  /**
   * Publishes, now or once connected; QoS 1 until the broker has it.
   *
   * @returns false when too much waits already
   * @throws RangeError when `topic` is none to publish under
   */
  publish(
    topic: string,
    payload: Uint8Array,
    options: { qos?: 0 | 1; retain?: boolean } = {},
  ): boolean {
    return this.#publisher.publish(topic, payload, options)
  }

  /** Connections that were tried, those of sources before this one included. */
  get connections(): number {
    return this.#connections
  }

  status(): SourceStatus {
    const { clock } = this.#options
    const [wallMs, monotonicMs] = [clock.wallMs(), clock.monotonicMs()]
    const topics = []
    for (const { topic, lastMs } of this.#topics.list()) {
      if (topics.length === maxStatusTopics) break
      topics.push({ topic, lastMs: Math.round(wallMs - (monotonicMs - lastMs)) })
    }
    const { messages, bytes } = this.#unacknowledged()
    return {
      phase: this.#phase,
      connectedSinceMs: this.#connectedSinceMs,
      retryAtMs: this.#retryAtMs,
      sessionPresent: this.#sessionPresent,
      subscribed: this.#session?.subscribed ?? [],
      connects: this.#connects,
      sessionsLost: this.#sessionsLost,
      lastError: this.#lastError,
      unackedMessages: messages,
      unackedBytes: bytes,
      paused: this.#link?.paused ?? false,
      retransmitted: this.#retransmitted + (this.#link?.retransmitted ?? 0),
      topics,
    }
  }

  /**
   * What was received before this is acknowledged, wall clock, ms; while there is no connection it is when the
   * last one ended, undefined before the first.
   */
  get acknowledgedMs(): number | undefined {
    const reachedMs =
      this.#connectedSinceMs === undefined ? this.#lostMs : this.#options.clock.wallMs()
    const inHand = this.#handed[0]?.group.arrival.wallMs
    return reachedMs === undefined ? undefined : Math.min(reachedMs, inHand ?? Infinity)
  }

  /**
   * Hands out nothing more, waits a moment for the group in hand to be acknowledged, and leaves the broker,
   * which keeps the session and everything else; safe to call twice.
   */
  close(): Promise<void> {
    this.#closing ??= this.#leave()
    return this.#closing
  }

  [Symbol.asyncDispose] = () => this.close()

  async #leave(): Promise<void> {
    this.#phase = 'closed'
    this.#connectedSinceMs = undefined
    this.#cancelRetry()
    this.#lingering?.()
    this.#waiter?.({ done: true, value: undefined })
    this.#waiter = undefined
    this.#link?.pause()
    if (this.#handed.length > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#allAcknowledged = resolve
      const cancel = this.#options.clock.timer(inHandMs, resolve)
      await promise
      cancel()
    }
    await this.#link?.end()
  }

  #connect(): void {
    this.#phase = 'connecting'
    this.#linger.reset()
    this.#retryAtMs = undefined
    const { dialer, clock, random } = this.#options
    const config = { ...this.#options.config, topics: this.#filters }
    this.#connections += 1
    this.#link = new Link(
      {
        config,
        clientId: this.#clientId,
        dialer,
        clock,
        random,
        topics: this.#topics,
        number: this.#connections,
        will: this.#options.will,
      },
      this.#host,
    )
    void this.#link.open()
  }

  #welcomed(link: Link, { sessionPresent, receiveMaximum, sessionExpiry }: Welcome): Session {
    const { random, log, config } = this.#options
    const known = this.#session
    if (!sessionPresent || !known || this.#options.renews)
      this.#session = Object.freeze({
        token: Buffer.from(random.bytes(16)).toString('hex'),
        broker: this.#broker,
        subscribed: Object.freeze([]),
      })
    this.#phase = 'connected'
    this.#connectedSinceMs = this.#options.clock.wallMs()
    this.#connects += 1
    this.#sessionPresent = sessionPresent
    this.#logged.delete('connection')
    log.info(
      { broker: config.url, clientId: this.#clientId, sessionPresent },
      'connected to the broker',
    )
    if (known && !sessionPresent) {
      this.#sessionsLost += 1
      log.warn('the broker has forgotten our session: what it kept for us meanwhile is lost')
      this.#options.onEvent?.({ type: 'session-lost' })
    }
    if (sessionExpiry !== undefined && sessionExpiry * 1_000 < config.sessionExpiry)
      this.#warn(
        'expiry',
        `the broker keeps what comes for only ${sessionExpiry} s while the agent is away, less than source.sessionExpiry`,
      )
    this.#publisher.connected({
      send: (packet) => link.send(packet),
      sessionPresent,
      receiveMaximum,
    })
    this.#options.onEvent?.({ type: 'connected', sessionPresent })
    return this.#session!
  }

  #arrived(link: Link): void {
    this.#session = link.session
    if (this.#full()) link.pause()
    if (this.#waiter) this.#offer()
  }

  #lost(link: Link, failure: SourceFailure): void {
    if (link !== this.#link) return
    const { clock, log, config } = this.#options
    this.#link = undefined
    this.#retransmitted += link.retransmitted
    this.#publisher.disconnected()
    if (this.#connectedSinceMs !== undefined) this.#lostMs = clock.wallMs()
    this.#connectedSinceMs = undefined
    if (link.session && link.pending.length > 0) this.#leftovers.push(link)
    const message = this.#told(failure.message)
    this.#lastError = { code: failure.code, message, atMs: clock.wallMs() }
    const delayMs = this.#backoff.nextDelayMs(link.connectedMs)
    if (this.#changed('connection', message))
      log.warn(
        { code: failure.code, broker: config.url, retryInMs: Math.round(delayMs) },
        `${message}; trying again`,
      )
    this.#options.onEvent?.({ type: 'disconnected', failure })
    if (this.#closing) return
    this.#phase = 'waiting'
    this.#retryAtMs = clock.wallMs() + Math.round(delayMs)
    this.#cancelRetry = clock.timer(delayMs, () => this.#connect())
    this.#serve()
  }

  #refused(filter: string, reason: string): void {
    this.#warn(`refused ${filter}`, `the broker refused the subscription to ${filter}: ${reason}`)
    this.#options.onEvent?.({ type: 'subscription-refused', filter, reason })
  }

  #warn(topic: string, message: string): void {
    if (this.#changed(topic, message)) this.#options.log.warn(this.#told(message))
  }

  /** A message that names settings, with the section in which they are. */
  #told(message: string): string {
    const { section } = this.#options
    return section === undefined ? message : message.replaceAll('source.', `${section}.`)
  }

  /** Whether there is something new to say, or it was last said long ago. */
  #changed(topic: string, message: string): boolean {
    const nowMs = this.#options.clock.monotonicMs()
    const last = this.#logged.get(topic)
    if (last?.message === message && nowMs - last.atMs < repeatLogMs) return false
    if (this.#logged.size > 1_000) this.#logged.clear()
    this.#logged.set(topic, { message, atMs: nowMs })
    return true
  }

  #next(): Promise<IteratorResult<MessageGroup, undefined>> {
    if (this.#closing) return Promise.resolve({ done: true, value: undefined })
    if (this.#waiter) throw new TypeError('one group is asked for at a time')
    this.#askedMs = this.#options.clock.monotonicMs()
    return new Promise((resolve) => {
      this.#waiter = resolve
      this.#offer()
    })
  }

  /** Hands out what there is, or leaves it to wait for company. */
  #offer(): void {
    const waitMs = this.#waitMs()
    if (waitMs <= 0) this.#serve()
    else this.#lingering ??= this.#options.clock.timer(waitMs, () => this.#serve())
  }

  #waitMs(): number {
    const link = this.#link
    const { clock, config } = this.#options
    // What an ended connection left, or a session that is to be stored first, has nothing to wait for.
    if (!link || this.#leftovers.length > 0 || link.paused || link.session !== this.#reported)
      return 0
    const { length } = link.pending
    if (length === 0 || length >= config.maxGroupMessages) return 0
    return this.#linger.waitMs(length, link.pendingSinceMs, this.#askedMs, clock.monotonicMs())
  }

  #serve(): void {
    this.#lingering?.()
    this.#lingering = undefined
    if (!this.#waiter) return
    const group = this.#cut()
    if (!group) return
    const resolve = this.#waiter
    this.#waiter = undefined
    resolve({ done: false, value: group })
  }

  /** The next group: of the oldest connection that has something left. */
  #cut(): MessageGroup | undefined {
    const link = this.#leftovers[0] ?? this.#link
    if (!link?.session) return undefined
    if (link.pending.length === 0 && link.session === this.#reported) return undefined
    const { maxGroupMessages } = this.#options.config
    const before = link.pendingBytes
    const group = link.take(maxGroupMessages, maxGroupBytes)
    this.#reported = group.session
    this.#handed.push({ group, link, bytes: before - link.pendingBytes })
    if (link === this.#leftovers[0] && link.pending.length === 0) this.#leftovers.shift()
    return group
  }

  #unacknowledged(): { messages: number; bytes: number } {
    let messages = 0
    let bytes = 0
    for (const handed of this.#handed) {
      messages += handed.group.messages.length
      bytes += handed.bytes
    }
    for (const link of [...this.#leftovers, this.#link]) {
      messages += link?.pending.length ?? 0
      bytes += link?.pendingBytes ?? 0
    }
    return { messages, bytes }
  }

  #full(): boolean {
    const { maxUnackedMessages, maxUnackedBytes } = this.#options.config
    const { messages, bytes } = this.#unacknowledged()
    return messages >= maxUnackedMessages || bytes >= maxUnackedBytes
  }
}
