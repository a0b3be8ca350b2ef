import { SSL_OP_NO_TICKET } from 'node:constants'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { Aedes, type AedesPublishPacket, type AuthErrorCode, type Client } from 'aedes'
import { UserError } from '../../shared/failure.ts'
import { maxEnvelopeBytes } from '../../shared/fleet/envelope.ts'
import { maxReportBytes } from '../../shared/fleet/reports.ts'
import { parseFleetTopic, topicRoot } from '../../shared/fleet/topics.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock } from '../../shared/ports.ts'
import type { BusHandler, FleetBus } from './bus.ts'
import { guardPackets } from './packet-guard.ts'
import { Refused } from './refused.ts'
import type { Admission, Registry } from './registry.ts'
import { RetainedByAgent } from './retained.ts'
import type { Who } from './who.ts'

export interface FleetBrokerOptions {
  host: string
  /** 0 takes a free port. */
  port: number
  maxConnections: number
  tls: { cert: string; key: string; ca: string }
  registry: Registry
  clock: Clock
  logger: Logger
  handler: BusHandler
  /** Two seem to come with the certificate of one agent. */
  cloned(agent: string): void
}

/**
 * A certificate is shown anew on each connection: no tickets. It is looked at by `accept`, for Node's server
 * takes none of an authority that is itself signed by another one.
 */
const tlsOptions = {
  requestCert: true,
  rejectUnauthorized: false,
  minVersion: 'TLSv1.2',
  secureOptions: SSL_OP_NO_TICKET,
} as const
/** A topic and the packet around a payload. */
const overheadBytes = 1_024
const maxSubscriptions = 32
/** Who was revoked, or whose certificate has ended, is looked for this often, beside what `drop` does at once. */
const sweepEveryMs = 15_000
const handshakeTimeoutMs = 15_000
/** Whoever does not read is put out after so long: a hundred of them hold everybody up. */
const drainTimeoutMs = 5_000
/** So many take-overs of an open connection within this time are no network's doing. */
const cloneTakeovers = 5
const cloneWithinMs = 120_000

/**
 * The MQTT broker in the collector: TLS with client certificates, and each agent under its own name only.
 * Sessions are never kept, for all that an agent must not miss is retained.
 */
export class FleetBroker implements FleetBus {
  readonly port: number
  readonly #aedes: Aedes
  readonly #server: Server
  readonly #options: FleetBrokerOptions
  /** Of connections that are open. */
  readonly #open = new Map<Duplex, Admission>()
  /** Of those that have just ended too: their last will is still to be judged. */
  readonly #admissions = new WeakMap<Duplex, Admission>()
  /** Connected agents; the client is the last that came under the name. */
  readonly #agents = new Map<string, Client>()
  /** When connections of an agent were taken over, lately; monotonic clock. */
  readonly #takeovers = new Map<string, number[]>()
  #cancelSweep: () => void = () => {}
  #closing: Promise<void> | undefined

  /** Resolves once it listens. @throws UserError when the port cannot be had */
  static async open(options: FleetBrokerOptions): Promise<FleetBroker> {
    const { host, port, tls } = options
    const server = createServer({
      ...tlsOptions,
      ...tls,
      handshakeTimeout: handshakeTimeoutMs,
    })
    server.maxConnections = options.maxConnections
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    server.once('error', reject).listen({ host, port }, resolve)
    await promise.catch((cause: NodeJS.ErrnoException) => {
      throw new UserError(`fleet.broker: cannot listen on ${host}:${port} (${cause.code})`, {
        cause,
      })
    })
    let broker: FleetBroker | undefined
    const aedes = await Aedes.createBroker({
      persistence: new RetainedByAgent(),
      drainTimeout: drainTimeoutMs,
      preConnect: (client, packet, done) => {
        const admission = broker?.admissionOf(client)
        if (!admission) return done(new Error('not admitted'), false)
        // An id of one's own choosing would put another's connection out.
        packet.clientId = clientIdOf(admission, packet.clientId)
        packet.clean = true
        broker?.countTakeover(admission.who)
        done(null, true)
      },
      authenticate: (client, _user, _password, done) =>
        broker?.admissionOf(client)
          ? done(null, true)
          : done(Object.assign(new Error(''), { returnCode: 5 as AuthErrorCode }), false),
      authorizePublish: (client, packet, done) => {
        const admission = client && broker?.admissionOf(client)
        // A last will of somebody who was thrown out is not heard either.
        if (
          !admission ||
          options.registry.standing(admission) ||
          !mayPublish(admission.who, packet)
        )
          return done(new Error(`not allowed to publish to ${packet.topic}`))
        if (parseFleetTopic(packet.topic)?.kind === 'result') packet.retain = false
        done(null)
      },
      authorizeSubscribe: (client, subscription, done) => {
        const admission = broker?.admissionOf(client)
        const count = Object.keys(
          (client as unknown as { subscriptions: object }).subscriptions,
        ).length
        const allowed =
          admission && count < maxSubscriptions && maySubscribe(admission.who, subscription.topic)
        done(null, allowed ? subscription : null)
      },
      published: (packet, client, done) => {
        done(null)
        if (client && parseFleetTopic(packet.topic))
          options.handler(packet.topic, bytesOf(packet), broker?.admissionOf(client)?.commonName)
      },
    })
    broker = new FleetBroker(options, aedes, server)
    return broker
  }

  private constructor(options: FleetBrokerOptions, aedes: Aedes, server: Server) {
    this.#options = options
    this.#aedes = aedes
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    server.on('secureConnection', (socket) => this.accept(socket, socket))
    server.on('tlsClientError', (error) => options.logger.debug({ err: error }, 'fleet handshake'))
    aedes.on('clientReady', (client) => {
      const who = this.admissionOf(client)?.who
      if (who?.role === 'agent') this.#agents.set(who.name, client)
    })
    aedes.on('clientDisconnect', (client) => {
      const name = this.admissionOf(client)?.who.name
      if (name !== undefined && this.#agents.get(name) === client) this.#agents.delete(name)
    })
    aedes.on('clientError', (_client, error) =>
      options.logger.debug({ err: error }, 'fleet client'),
    )
    aedes.on('connectionError', (_client, error) =>
      options.logger.debug({ err: error }, 'fleet connection'),
    )
    this.#sweepLater()
  }

  /** Connections of agents. */
  get agents(): number {
    return this.#agents.size
  }

  get connections(): number {
    return this.#open.size
  }

  admissionOf(client: Client): Admission | undefined {
    return this.#admissions.get(client.conn as unknown as Duplex)
  }

  /**
   * Takes over a connection.
   *
   * @param stream MQTT's bytes; with WebSocket another than the socket under it
   */
  accept(stream: Duplex, socket: TLSSocket): void {
    const { registry, logger } = this.#options
    const certificate = socket.getPeerX509Certificate()
    try {
      if (!certificate) throw new Refused('foreign')
      const admission = registry.admit(certificate)
      this.#admissions.set(stream, admission)
      this.#open.set(stream, admission)
      stream.once('close', () => this.#open.delete(stream))
      const payloadBytes = admission.who.role === 'agent' ? maxReportBytes : maxEnvelopeBytes
      guardPackets(stream, payloadBytes + overheadBytes)
      this.#aedes.handle(stream)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      // A stranger that knocks ever so often fills no disk.
      const level = error.code === 'foreign' ? 'debug' : 'warn'
      logger[level]({ why: error.code, from: socket.remoteAddress }, 'fleet connection turned away')
      stream.on('error', () => {})
      stream.destroy()
    }
  }

  /** A fresh certificate for connections from now on. */
  setCertificate(tls: { cert: string; key: string; ca: string }): void {
    this.#server.setSecureContext({ ...tlsOptions, ...tls })
  }

  publish(topic: string, payload: Uint8Array, { retain }: { retain: boolean }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#aedes.publish(
        { cmd: 'publish', topic, payload: Buffer.from(payload), qos: 1, retain, dup: false },
        (error) => (error ? reject(error) : resolve()),
      )
    })
  }

  isConnected(agent: string): boolean {
    return this.#agents.has(agent)
  }

  drop(commonName: string): void {
    for (const [stream, admission] of this.#open)
      if (admission.commonName === commonName) stream.destroy()
  }

  /** A connection of an agent begins: is there one already? */
  countTakeover({ role, name }: Who): void {
    if (role !== 'agent' || !this.#agents.has(name)) return
    const nowMs = this.#options.clock.monotonicMs()
    const times = (this.#takeovers.get(name) ?? []).filter((atMs) => nowMs - atMs < cloneWithinMs)
    times.push(nowMs)
    this.#takeovers.set(name, times)
    if (times.length < cloneTakeovers) return
    this.#takeovers.delete(name)
    this.#options.cloned(name)
  }

  #sweepLater(): void {
    this.#cancelSweep = this.#options.clock.timer(sweepEveryMs, () => {
      const nowMs = this.#options.clock.wallMs()
      for (const [stream, admission] of this.#open)
        if (admission.notAfterMs <= nowMs || this.#options.registry.standing(admission))
          stream.destroy()
      const sinceMs = this.#options.clock.monotonicMs() - cloneWithinMs
      for (const [name, times] of this.#takeovers)
        if (times.at(-1)! < sinceMs) this.#takeovers.delete(name)
      this.#sweepLater()
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  async #shutDown(): Promise<void> {
    this.#cancelSweep()
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await new Promise<void>((resolve) => this.#aedes.close(resolve))
    for (const stream of this.#open.keys()) stream.destroy()
    await closed
  }
}

/** An agent is there once; managers may come several times. */
function clientIdOf({ who, commonName }: Admission, given: string): string {
  return who.role === 'agent' ? commonName : `${commonName}/${given}`
}

/** `fleet acl` prints the same rules for mosquitto. */
export function mayPublish(
  who: Who,
  { topic, payload }: Pick<AedesPublishPacket, 'topic' | 'payload'>,
) {
  const target = parseFleetTopic(topic)
  if (!target) return false
  if (who.role === 'manager') return target.kind === 'desired' || target.kind === 'command'
  if (who.role !== 'agent' || target.agent !== who.name) return false
  return (
    (target.kind === 'reported' || target.kind === 'status' || target.kind === 'result') &&
    payload.length <= maxReportBytes
  )
}

export function maySubscribe(who: Who, filter: string): boolean {
  if (who.role === 'manager') return filter.startsWith(`${topicRoot}/`)
  return who.role === 'agent' && filter.startsWith(`${topicRoot}/${who.name}/`)
}

function bytesOf({ payload }: Pick<AedesPublishPacket, 'payload'>): Uint8Array {
  return typeof payload === 'string' ? Buffer.from(payload) : payload
}
