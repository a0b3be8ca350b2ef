import type { Socket } from 'node:net'
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet'
import { sleep } from '../shared/clock.ts'
import { UserError } from '../shared/failure.ts'
import type { Clock, Random } from '../shared/ports.ts'
import { certificateProblem, describe, parseTarget, refusalOf, type Target } from './target.ts'

export interface PublisherOptions {
  /** `mqtt://host:port` or `mqtts://host:port`. */
  url: string
  qos: 0 | 1
  /** CA certificates in PEM; the system's where undefined. */
  caFile?: string | undefined
  username?: string | undefined
  password?: string | undefined
  /** How long to go on without a connection, ms. */
  giveUpMs: number
  clock: Clock
  random: Random
  /** Told once for every time that the broker is lost or cannot be reached. */
  onTrouble?: (message: string) => void
}

interface InFlight {
  topic: string
  payload: string
  /** It has been on a wire, so it goes out with DUP from now on. */
  tried: boolean
}

/** Most PUBLISH packets without their PUBACK. */
const window = 1000
const baseDelayMs = 250
const maxDelayMs = 5000
/** A broker that has not answered by then is tried anew. */
const connectTimeoutMs = 10_000
/** A connection that lasted so long was a good one: the waits between tries start over. */
const stableMs = 60_000
const goodbyeMs = 3000

/**
 * An MQTT 3.1.1 client that publishes as fast as the broker acknowledges. What is not acknowledged is
 * kept, and sent again with DUP, in order, on the next connection. It asks for no keepalive: a broker that
 * holds its acknowledgements back must not lose the connection for it.
 * Invariant: at most `window` messages are in flight.
 */
export class Publisher implements AsyncDisposable {
  sent = 0
  acknowledged = 0
  resent = 0
  readonly #options: PublisherOptions
  readonly #target: Target
  readonly #clientId: string
  /** Established, so that it can be published on. */
  #socket: Socket | undefined
  /** Drops the connection under way, established or not. */
  #drop: () => void = () => {}
  /** By packet id, in order of publishing. */
  readonly #inFlight = new Map<number, InFlight>()
  #nextId = 1
  #corked = false
  /** Resolvers of whoever waits for room, an acknowledgement, a connection or the end. */
  #waiting: (() => void)[] = []
  #failure: Error | undefined
  readonly #ending = new AbortController()
  readonly #running: Promise<void>

  private constructor(options: PublisherOptions) {
    this.#options = options
    this.#target = parseTarget(options.url, options.caFile)
    this.#clientId = `headgate-sim-${Buffer.from(options.random.bytes(6)).toString('hex')}`
    this.#running = this.#run()
  }

  /** Resolves once connected. @throws UserError when that cannot be, or not before `giveUpMs` */
  static async open(options: PublisherOptions, signal: AbortSignal): Promise<Publisher> {
    const publisher = new Publisher(options)
    while (!publisher.#socket && !publisher.#failure && !signal.aborted)
      await publisher.#change(signal)
    if (publisher.#failure) throw publisher.#failure
    return publisher
  }

  get inFlight(): number {
    return this.#inFlight.size
  }

  /** Resolves when a message may be published; undefined when that is now. */
  room(signal: AbortSignal): Promise<void> | undefined {
    return this.#hasRoom() ? undefined : this.#untilRoom(signal)
  }

  publish(topic: string, payload: string): void {
    if (!this.#hasRoom()) throw new RangeError('no room for another message')
    this.sent++
    if (this.#options.qos === 0) {
      this.#write({ cmd: 'publish', topic, payload, qos: 0, dup: false, retain: false })
      return
    }
    while (this.#inFlight.has(this.#nextId)) this.#nextId = (this.#nextId % 65535) + 1
    const messageId = this.#nextId
    this.#nextId = (messageId % 65535) + 1
    const message = { topic, payload, tried: false }
    this.#inFlight.set(messageId, message)
    this.#send(messageId, message)
  }

  /** Resolves when all is acknowledged (QoS 0: at once), or at the signal. */
  async drained(signal: AbortSignal): Promise<void> {
    while (this.#inFlight.size > 0 && !signal.aborted) {
      if (this.#failure) throw this.#failure
      await this.#change(signal)
    }
  }

  /** Sends what is written, says goodbye; safe to call twice. Acknowledgements are not waited for. */
  async close(): Promise<void> {
    this.#ending.abort()
    const cancel = this.#options.clock.timer(goodbyeMs, () => this.#drop())
    if (this.#socket) this.#socket.end(generate({ cmd: 'disconnect' }))
    else this.#drop()
    this.#notify()
    await this.#running
    cancel()
  }

  [Symbol.asyncDispose] = () => this.close()

  #hasRoom(): boolean {
    return (
      this.#socket !== undefined && !this.#socket.writableNeedDrain && this.#inFlight.size < window
    )
  }

  async #untilRoom(signal: AbortSignal): Promise<void> {
    while (!this.#hasRoom()) {
      if (this.#failure) throw this.#failure
      signal.throwIfAborted()
      await this.#change(signal)
    }
  }

  /** Resolves at the next event on the connection, or at the signal. */
  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done)
        resolve()
      }
      signal.addEventListener('abort', done, { once: true })
      this.#waiting.push(done)
    })
  }

  #notify(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  #send(messageId: number, message: InFlight): void {
    if (!this.#socket) return
    const { topic, payload, tried } = message
    if (tried) this.resent++
    message.tried = true
    this.#write({ cmd: 'publish', topic, payload, qos: 1, dup: tried, retain: false, messageId })
  }

  /** Gathers what is written within one turn of the loop into one system call. */
  #write(packet: Packet): void {
    const socket = this.#socket
    if (!socket) return
    if (!this.#corked) {
      this.#corked = true
      socket.cork()
      setImmediate(() => {
        this.#corked = false
        socket.uncork()
      })
    }
    socket.write(generate(packet))
  }

  /** Connects, and connects again, until the end or until it has been without a broker for too long. */
  async #run(): Promise<void> {
    const { clock, random, giveUpMs, onTrouble } = this.#options
    let attempt = 0
    let lastConnectedMs = clock.monotonicMs()
    while (!this.#ending.signal.aborted) {
      let reason: string
      let lost = false
      const startMs = clock.monotonicMs()
      try {
        reason = (await this.#session()) ?? 'closed the connection'
        lost = true
        lastConnectedMs = clock.monotonicMs()
        if (lastConnectedMs - startMs >= stableMs) attempt = 0
      } catch (error) {
        if (error instanceof UserError) {
          this.#fail(error)
          return
        }
        reason = describe(error)
      }
      if (this.#ending.signal.aborted) break
      const withoutMs = clock.monotonicMs() - lastConnectedMs
      const where = this.#target.label
      if (withoutMs >= giveUpMs) {
        const advice = 'is one running there? Start one with "headgate broker", or check --broker'
        this.#fail(
          new UserError(
            `broker ${where}: ${reason}; no connection for ${Math.round(withoutMs / 1000)} s: ${advice}`,
          ),
        )
        return
      }
      const limit = giveUpMs === Number.POSITIVE_INFINITY ? '' : ` for up to ${giveUpMs / 1000} s`
      if (lost || attempt === 0) onTrouble?.(`broker ${where}: ${reason}; trying again${limit}`)
      // The first try is at once.
      const ceilingMs = attempt === 0 ? 0 : Math.min(maxDelayMs, baseDelayMs * 2 ** attempt)
      attempt++
      const delayMs = Math.min(random.uniform() * ceilingMs, giveUpMs - withoutMs)
      await sleep(clock, delayMs, this.#ending.signal).catch(() => {})
    }
  }

  #fail(error: Error): void {
    this.#failure = error
    this.#notify()
  }

  /**
   * One connection, from dialling to its end.
   *
   * @returns why it ended, when it had been established
   * @throws UserError when trying again cannot help, another error when it can
   */
  #session(): Promise<string | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
    const socket = this.#target.dial()
    let established = false
    let problem: unknown
    const stop = (error: unknown) => {
      problem ??= error
      socket.destroy()
    }
    const cancelTimeout = this.#options.clock.timer(connectTimeoutMs, () =>
      stop(new Error(`no answer within ${connectTimeoutMs / 1000} s`)),
    )
    const incoming = parser({ protocolVersion: 4 })
    incoming.on('packet', (packet) => {
      if (packet.cmd === 'connack') {
        const refusal = refusalOf(packet)
        if (refusal) return stop(refusal)
        established = true
        cancelTimeout()
        this.#socket = socket
        for (const [messageId, message] of this.#inFlight) this.#send(messageId, message)
      } else if (packet.cmd === 'puback' && this.#inFlight.delete(packet.messageId!)) {
        this.acknowledged++
      }
    })
    incoming.on('error', (error) => stop(new Error(`no MQTT broker (${error.message})`)))
    socket.setNoDelay(true).setKeepAlive(true, 15_000)
    socket.on(this.#target.secure ? 'secureConnect' : 'connect', () =>
      socket.write(generate(this.#connectPacket())),
    )
    socket.on('data', (bytes) => {
      incoming.parse(bytes)
      this.#notify()
    })
    socket.on('drain', () => this.#notify())
    socket.on('error', (error) => {
      problem ??= certificateProblem(error) ?? error
    })
    socket.on('close', () => {
      cancelTimeout()
      if (this.#socket === socket) this.#socket = undefined
      this.#corked = false
      this.#notify()
      if (problem instanceof UserError || !established)
        reject(problem ?? new Error('closed the connection before answering'))
      else resolve(problem === undefined ? undefined : describe(problem))
    })
    this.#drop = () => stop(undefined)
    return promise
  }

  #connectPacket(): IConnectPacket {
    const { username, password } = this.#options
    return {
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: this.#clientId,
      clean: true,
      keepalive: 0,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password: Buffer.from(password) }),
    }
  }
}
