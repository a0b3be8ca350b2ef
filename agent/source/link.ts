import type { Clock, Connection, ConnectionHandlers, Dialer, Random } from '../../shared/ports.ts'
import type { SubscribingConfig } from './config.ts'
import { explainConnack, explainDial, explainReason } from './explain.ts'
import { protocolFailure, SourceFailure } from './failure.ts'
import type { Message, MessageGroup, Session } from './message.ts'
import mqttPacket, { type IConnackPacket, type Packet } from './mqtt-packet.ts'
import { LargePublish, PublishReader } from './publish.ts'
import { PacketScanner, type PacketSink, type PieceSink } from './scanner.ts'
import { Subscriptions } from './subscriptions.ts'
import type { TopicTable } from './topic-table.ts'

/** Dials the broker, and knows the password where it is kept in a file. */
export interface BrokerDialer extends Dialer {
  password?(): Promise<string | undefined>
}

export interface LinkOptions {
  config: SubscribingConfig
  clientId: string
  dialer: BrokerDialer
  clock: Clock
  random: Random
  topics: TopicTable
  /** Tells this connection from the source's others. */
  number: number
  /** What the broker publishes in our name when the connection is lost, retained. */
  will?: Will | undefined
}

export interface Will {
  topic: string
  payload: Uint8Array
}

/** What the broker says when it accepts us. */
export interface Welcome {
  sessionPresent: boolean
  /** How many QoS 1 publications of ours it takes at a time (MQTT 5). */
  receiveMaximum: number | undefined
  /** For how long it keeps the session, seconds, where that is not as we asked (MQTT 5). */
  sessionExpiry: number | undefined
}

/** Whom a link tells what happens on it. */
export interface LinkHost {
  /** The broker has accepted us; returns our session. */
  welcomed(link: Link, welcome: Welcome): Session
  /** Messages are pending, or the session has changed. */
  arrived(link: Link): void
  /** It is over; called once, and nothing after it. */
  closed(link: Link, failure: SourceFailure): void
  published(packetId: number): void
  subscriptionRefused(filter: string, reason: string): void
  subscriptionDegraded(filter: string): void
}

/** A barrier follows acknowledgements after so many messages or milliseconds. */
const barrierMessages = 8_192
const barrierMs = 1_000
/** After this silence in a session that should have a filter, MQTT 3.1.1 is asked for it again, ms. */
const silentMs = 60_000
/** The second copy of a message comes right behind the first, ms. */
const twinMs = 20
/** How long the broker has to see our DISCONNECT and close, ms. */
const leaveMs = 1_000
/** What a message weighs beside its topic and payload, bytes. */
const messageOverheadBytes = 128

function weigh({ topic, payload }: Message): number {
  return messageOverheadBytes + topic.length + payload.length
}

/**
 * One connection to the broker, from dialling to its end. Acknowledgements can go nowhere else: one that
 * came late, on another connection, would acknowledge whatever has the same packet id there.
 */
export class Link implements PacketSink {
  readonly number: number
  /** Arrived and not yet taken, in order. */
  pending: Message[] = []
  pendingBytes = 0
  /** When the first of what is pending came, monotonic clock. */
  pendingSinceMs = 0
  /** Undefined until the broker has accepted us. */
  session: Session | undefined
  /** Messages that the broker sent again while we still had them. */
  retransmitted = 0
  connectedMs: number | undefined
  closed = false
  readonly #options: LinkOptions
  readonly #host: LinkHost
  readonly #version5: boolean
  readonly #abort = new AbortController()
  readonly #scanner: PacketScanner
  readonly #reader: PublishReader
  readonly #subscriptions: Subscriptions
  #connection: Connection | undefined
  readonly #ended = Promise.withResolvers<void>()
  #answer: Packet | undefined
  readonly #parser
  /** By packet id, as far as there are any: the QoS 1 message that we have and have not acknowledged. */
  readonly #held: (Message | undefined)[] = []
  /** What was accepted last while filters give way to others. */
  #last: { message: Message; atMs: number } | undefined
  #paused = false
  #subscribed = false
  #ordinal = 0
  #acknowledged = 0
  #proven = 0
  /** PINGREQs without an answer: when it was sent, and the last group acknowledged before it. */
  readonly #pings: { sentMs: number; acknowledged: number }[] = []
  #barrierSentMs = -Infinity
  #acknowledgedSince = 0
  #keepaliveMs: number
  #sentMs = 0
  #heardMs = 0
  #cancelDeadline = () => {}
  #cancelKeepalive = () => {}
  #cancelSilence = () => {}

  constructor(options: LinkOptions, host: LinkHost) {
    const { config, topics, clock, random } = options
    this.#options = options
    this.#host = host
    this.number = options.number
    this.#version5 = config.version === '5'
    this.#keepaliveMs = config.keepalive
    this.#scanner = new PacketScanner(this, config.maxMessageBytes)
    this.#reader = new PublishReader(topics, this.#version5)
    this.#parser = mqttPacket.parser({ protocolVersion: this.#version5 ? 5 : 4 })
    this.#parser.on('packet', (packet) => {
      this.#answer = packet
    })
    this.#parser.on('error', (error: Error) => {
      throw protocolFailure(error.message)
    })
    this.#subscriptions = new Subscriptions({
      wanted: config.topics,
      version5: this.#version5,
      clock,
      random,
      retry: config.retry,
      ask: (packet) => {
        this.#write(packet)
        this.#expect('an answer to a subscription', () => this.#subscriptions.waiting)
      },
      granted: (filters) => this.#remember(filters),
      refused: (filter, reason) => host.subscriptionRefused(filter, reason),
      degraded: (filter) => host.subscriptionDegraded(filter),
    })
  }

  async open(): Promise<void> {
    this.#expect('a connection', () => this.session === undefined)
    const handlers: ConnectionHandlers = {
      data: (bytes) => this.#data(bytes),
      closed: (error) => {
        this.#ended.resolve()
        this.fail(this.#lost(error))
      },
    }
    try {
      const { dialer, config } = this.#options
      const password = (await dialer.password?.()) ?? config.password
      const connection = await dialer.dial(handlers, this.#abort.signal)
      if (this.closed) return connection.destroy()
      this.#connection = connection
      this.#write(this.#connectPacket(password))
    } catch (error) {
      this.fail(explainDial(error, this.#options.config))
    }
  }

  /** Ends the connection at once, for `failure`. */
  fail(failure: SourceFailure): void {
    if (this.closed) return
    this.closed = true
    this.#stopTimers()
    this.#abort.abort(failure)
    this.#connection?.destroy()
    this.#host.closed(this, failure)
  }

  /** Takes leave in order, so that the broker keeps the session; resolves once the connection is closed. */
  async end(): Promise<void> {
    if (this.closed) return
    this.closed = true
    this.#stopTimers()
    const connection = this.#connection
    if (!connection) return this.#abort.abort()
    const settings = { protocolVersion: this.#version5 ? 5 : 4 }
    connection.write(mqttPacket.generate({ cmd: 'disconnect', reasonCode: 0 }, settings))
    connection.resume() // What is not read would keep the end from being seen.
    connection.end()
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const cancel = this.#options.clock.timer(leaveMs, resolve)
    await Promise.race([this.#ended.promise, late])
    cancel()
    connection.destroy()
  }

  /** What is pending, up to bounds, as a group. */
  take(maxMessages: number, maxBytes: number): MessageGroup {
    const { clock } = this.#options
    let messages = this.pending
    if (messages.length > maxMessages || this.pendingBytes > maxBytes) {
      let count = 0
      let bytes = 0
      while (count < maxMessages && bytes < maxBytes && count < messages.length)
        bytes += weigh(messages[count++]!)
      this.pending = messages.slice(count)
      this.pendingBytes -= bytes
      messages = messages.slice(0, count)
    } else {
      this.pending = []
      this.pendingBytes = 0
    }
    this.#ordinal += 1
    return {
      messages,
      arrival: { wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() },
      connection: this.number,
      ordinal: this.#ordinal,
      proven: this.#proven,
      session: this.session!,
    }
  }

  /** Acknowledges a group of this link, in one write; with a barrier behind it every so often. */
  acknowledge({ messages, ordinal }: MessageGroup): void {
    if (this.closed) return
    const packets = Buffer.allocUnsafe(4 * messages.length)
    let at = 0
    for (const message of messages) {
      if (message.qos === 0) continue
      const { packetId } = message
      if (this.#held[packetId] === message) this.#held[packetId] = undefined
      if (message.isAnswered) continue
      packets[at] = 0x40
      packets[at + 1] = 2
      packets[at + 2] = packetId >> 8
      packets[at + 3] = packetId & 0xff
      at += 4
    }
    if (at > 0) this.#write(packets.subarray(0, at))
    this.#acknowledged = ordinal
    this.#acknowledgedSince += at / 4
    if (at > 0) this.#barrier()
    // A session is subscribed only once its name is stored: whatever a crash may cut off, messages of
    // another session are never taken for those of the one that is remembered.
    this.#subscribe()
  }

  #subscribe(): void {
    if (this.#subscribed) return
    this.#subscribed = true
    this.#subscriptions.start(this.session!.subscribed)
  }

  /** A PINGREQ behind PUBACKs: once it is answered, the broker has read them. */
  #barrier(): void {
    if (this.#pings.length > 0) return
    const due = this.#options.clock.monotonicMs() - this.#barrierSentMs >= barrierMs
    if (due || this.#acknowledgedSince >= barrierMessages) this.#ping()
  }

  pause(): void {
    if (this.#paused || this.closed) return
    this.#paused = true
    this.#connection?.pause()
  }

  resume(): void {
    if (!this.#paused || this.closed) return
    this.#paused = false
    // Nothing could be heard while we did not listen.
    this.#heardMs = this.#options.clock.monotonicMs()
    this.#connection?.resume()
  }

  get paused(): boolean {
    return this.#paused
  }

  send(packet: Uint8Array): void {
    this.#write(packet)
  }

  #write(bytes: Uint8Array): void {
    if (this.closed) return
    this.#sentMs = this.#options.clock.monotonicMs()
    this.#connection?.write(bytes)
  }

  #data(bytes: Uint8Array): void {
    if (this.closed) return
    this.#heardMs = this.#options.clock.monotonicMs()
    this.#reader.nowMs = this.#heardMs
    try {
      this.#scanner.push(bytes)
    } catch (error) {
      this.fail(error instanceof SourceFailure ? error : protocolFailure(String(error)))
      return
    }
    if (!this.closed && this.session) this.#host.arrived(this)
  }

  publish(flags: number, bytes: Uint8Array, start: number, end: number): void {
    this.#accept(this.#reader.read(flags, bytes, start, end))
  }

  largePublish(flags: number, length: number): PieceSink {
    return new LargePublish({
      reader: this.#reader,
      flags,
      length,
      maxPayloadBytes: this.#options.config.maxMessageBytes,
      done: (message) => this.#accept(message),
    })
  }

  #accept(message: Message): void {
    if (message.qos === 1) {
      const held = this.#held[message.packetId]
      if (held && message.duplicate && sameContent(held, message)) {
        // We have it and will acknowledge it. A second PUBACK would come late: by then the broker may
        // have given the packet id to another message.
        this.retransmitted += 1
        return
      }
      while (this.#held.length <= message.packetId) this.#held.push(undefined)
      this.#held[message.packetId] = message
    }
    if (this.#subscriptions.twins(message.topic) && this.#twin(message)) return
    if (this.pending.length === 0) this.pendingSinceMs = this.#heardMs
    this.pending.push(message)
    this.pendingBytes += weigh(message)
  }

  /**
   * While filters give way to others, what both take comes twice, one copy right behind the other.
   *
   * @returns whether it is the second, which is then acknowledged and dropped
   */
  #twin(message: Message): boolean {
    const first = this.#last
    const nowMs = this.#heardMs
    this.#last = { message, atMs: nowMs }
    if (message.qos === 0 || message.duplicate || message.retained) return false
    if (!first || nowMs - first.atMs > twinMs || !sameContent(first.message, message)) return false
    this.#last = undefined
    // The first is not acknowledged before it is stored; until then the broker has that one.
    this.#write(mqttPacket.generate({ cmd: 'puback', messageId: message.packetId }))
    return true
  }

  control(_type: number, bytes: Uint8Array): void {
    this.#answer = undefined
    this.#parser.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
    const packet = this.#answer as Packet | undefined
    if (packet === undefined) throw protocolFailure('a packet that cannot be read')
    if (packet.cmd !== 'connack' && !this.session)
      throw protocolFailure(`a ${packet.cmd.toUpperCase()} in place of a CONNACK`)
    switch (packet.cmd) {
      case 'connack':
        this.#connack(packet)
        break
      case 'puback':
        this.#host.published(packet.messageId ?? 0)
        break
      case 'suback':
        this.#subscriptions.answered('subscribe', packet.messageId, packet.granted as number[])
        break
      case 'unsuback':
        this.#subscriptions.answered('unsubscribe', packet.messageId, [])
        break
      case 'pingresp':
        this.#proven = Math.max(this.#proven, this.#pings.shift()?.acknowledged ?? 0)
        break
      case 'disconnect': {
        const reason = packet.properties?.reasonString
        throw new SourceFailure('SOURCE_LOST', explainReason(packet.reasonCode ?? 0, reason))
      }
      default:
        throw protocolFailure(`a ${packet.cmd.toUpperCase()} from the broker`)
    }
  }

  #connack(packet: IConnackPacket): void {
    if (this.session) throw protocolFailure('a second CONNACK')
    const code = (this.#version5 ? packet.reasonCode : packet.returnCode) ?? 0
    const properties = packet.properties ?? {}
    if (code !== 0)
      throw new SourceFailure(
        'SOURCE_REFUSED',
        explainConnack(code, this.#version5, properties.reasonString),
      )
    if (properties.serverKeepAlive !== undefined)
      this.#keepaliveMs = properties.serverKeepAlive * 1_000
    this.connectedMs = this.#options.clock.monotonicMs()
    const { sessionPresent } = packet
    this.session = this.#host.welcomed(this, {
      sessionPresent,
      receiveMaximum: properties.receiveMaximum,
      sessionExpiry: properties.sessionExpiryInterval,
    })
    this.#cancelDeadline()
    this.#keepAlive()
    if (!sessionPresent) return // Subscribed once the session's name is stored.
    this.#subscribe()
    if (!this.#version5) this.#watchSilence()
  }

  /** The session has these subscriptions. */
  #remember(subscribed: readonly string[]): void {
    const known = this.session!.subscribed
    if (known.length === subscribed.length && known.every((filter, i) => filter === subscribed[i]))
      return
    this.session = Object.freeze({ ...this.session!, subscribed: Object.freeze(subscribed) })
    this.#host.arrived(this)
  }

  /**
   * A session that the broker has may lack subscriptions that we believe in: an older image of it was
   * restored, or a crash of ours cut a CONNECT off from its SUBSCRIBE. A filter that has brought nothing
   * for a while is asked for again.
   */
  #watchSilence(): void {
    const { clock, topics, config } = this.#options
    const sinceMs = this.connectedMs!
    this.#cancelSilence = clock.timer(silentMs, () => {
      const silent = topics.silent(config.topics, sinceMs)
      if (silent.length > 0) this.#subscriptions.renew(silent)
    })
  }

  #ping(): void {
    const nowMs = this.#options.clock.monotonicMs()
    this.#pings.push({ sentMs: nowMs, acknowledged: this.#acknowledged })
    this.#barrierSentMs = nowMs
    this.#acknowledgedSince = 0
    this.#write(mqttPacket.generate({ cmd: 'pingreq' }))
  }

  /** Lets the broker hear from us in time, and sees to it that we hear from the broker. */
  #keepAlive(): void {
    const { clock } = this.#options
    const nowMs = clock.monotonicMs()
    const keepaliveMs = this.#keepaliveMs
    if (keepaliveMs === 0 || this.closed) return
    const [oldest] = this.#pings
    const deadMs = 1.5 * keepaliveMs
    if (
      !this.#paused &&
      oldest &&
      nowMs - this.#heardMs >= deadMs &&
      nowMs - oldest.sentMs >= keepaliveMs / 2
    ) {
      const seconds = Math.round((nowMs - this.#heardMs) / 1_000)
      this.fail(new SourceFailure('SOURCE_TIMEOUT', `nothing heard for ${seconds} s`))
      return
    }
    const dueMs = () =>
      (this.#pings.length > 0 ? this.#sentMs : Math.min(this.#sentMs, this.#heardMs)) + keepaliveMs
    if (nowMs >= dueMs()) this.#ping()
    const nextMs = this.#paused
      ? dueMs()
      : Math.min(dueMs(), Math.max(this.#heardMs + deadMs, nowMs + 100))
    this.#cancelKeepalive = clock.timer(nextMs - nowMs, () => this.#keepAlive())
  }

  /** Fails the link unless what is waited for comes in time; time in which we do not read is not counted. */
  #expect(what: string, waiting: () => boolean): void {
    const { clock, config } = this.#options
    this.#cancelDeadline()
    this.#cancelDeadline = clock.timer(config.connectTimeout, () => {
      if (!waiting()) return
      if (this.#paused) return this.#expect(what, waiting)
      const seconds = Math.round(config.connectTimeout / 1_000)
      this.fail(new SourceFailure('SOURCE_TIMEOUT', `${what} did not come within ${seconds} s`))
    })
  }

  #stopTimers(): void {
    this.#cancelDeadline()
    this.#cancelKeepalive()
    this.#cancelSilence()
    this.#subscriptions.close()
  }

  #lost(error: Error | undefined): SourceFailure {
    if (error) return explainDial(error, this.#options.config, 'SOURCE_LOST')
    return new SourceFailure(
      'SOURCE_LOST',
      this.session
        ? 'the broker closed it (another client with the same client id, or the broker is stopping)'
        : 'the broker closed it without an answer (is source.url its MQTT port, with TLS or without?)',
    )
  }

  #connectPacket(password: string | undefined): Uint8Array {
    const { config, clientId, will } = this.#options
    const protocolVersion = this.#version5 ? 5 : 4
    return mqttPacket.generate(
      {
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion,
        clean: false,
        clientId,
        keepalive: Math.ceil(config.keepalive / 1_000),
        ...(config.username !== undefined && { username: config.username }),
        ...(password !== undefined && { password: Buffer.from(password) }),
        ...(will && {
          will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1, retain: true },
        }),
        ...(this.#version5 && {
          properties: {
            sessionExpiryInterval: Math.ceil(config.sessionExpiry / 1_000),
            receiveMaximum: config.receiveMaximum,
            topicAliasMaximum: 0,
          },
        }),
      },
      { protocolVersion },
    )
  }
}

function sameContent(a: Message, b: Message): boolean {
  return (
    a.topic === b.topic &&
    a.oversize?.size === b.oversize?.size &&
    Buffer.compare(a.payload, b.payload) === 0
  )
}
