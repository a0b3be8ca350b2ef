import { createServer, type Server, type Socket } from 'node:net'
import { Aedes } from 'aedes'
import { UserError } from '../shared/failure.ts'
import { type QueueLimits, SessionQueues } from './session-queue.ts'

export interface BrokerOptions {
  host: string
  /** 0 takes any free one. */
  port: number
  /** What one session may be owed before publishers wait. Default: 10,000 messages, 32 MiB. */
  limits?: QueueLimits
  /** A session that has been away for longer is forgotten, so that it holds nobody up for ever. */
  sessionExpiryMs?: number
  /** Told when publishers begin to wait for a session. */
  onHold?: (session: string, queued: number) => void
}

/** Well below the 65,535 packet ids that there are. */
export const defaultLimits: QueueLimits = { maxMessages: 10_000, maxBytes: 32 * 2 ** 20 }
export const defaultSessionExpiryMs = 3_600_000

/**
 * A small MQTT 3.1.1 broker in this process. Sessions are kept in memory: they end with it. At QoS 1 and 2
 * nothing is dropped for want of room; its publisher is not acknowledged until there is some.
 */
export class Broker implements AsyncDisposable {
  readonly url: string
  readonly #aedes: Aedes
  readonly #queues: SessionQueues
  readonly #server: Server
  readonly #sockets: Set<Socket>
  #closing: Promise<void> | undefined

  private constructor(
    url: string,
    aedes: Aedes,
    queues: SessionQueues,
    server: Server,
    sockets: Set<Socket>,
  ) {
    this.url = url
    this.#aedes = aedes
    this.#queues = queues
    this.#server = server
    this.#sockets = sockets
  }

  /** Resolves once it listens. @throws UserError when the port cannot be had */
  static async open(options: BrokerOptions): Promise<Broker> {
    const { host, port } = options
    const queues = new SessionQueues(options.limits ?? defaultLimits, options.onHold ?? (() => {}))
    const aedes = await Aedes.createBroker({
      persistence: queues,
      // A subscriber that stops reading slows its publishers instead of losing its connection.
      drainTimeout: 0,
      authorizePublish(client, packet, callback) {
        if (packet.topic.startsWith('$SYS/')) callback(new Error('$SYS/ is reserved'))
        else if (packet.qos === 0) callback(null)
        else queues.admit(client, () => callback(null))
      },
      authorizeForward: (client, packet) => (queues.forwards(client, packet) ? packet : null),
    })
    forgetAbsent(aedes, queues, options.sessionExpiryMs ?? defaultSessionExpiryMs)
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
      socket.setNoDelay(true)
      aedes.handle(socket)
    })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    server.once('error', reject).listen({ host, port }, resolve)
    try {
      await promise
    } catch (cause) {
      aedes.close()
      throw new UserError(listenProblem(cause as NodeJS.ErrnoException, host, port), { cause })
    }
    const address = server.address() as { port: number }
    const name = host.includes(':') ? `[${host}]` : host
    return new Broker(`mqtt://${name}:${address.port}`, aedes, queues, server, sockets)
  }

  /** Messages that sessions are owed. */
  get queued(): number {
    return this.#queues.size
  }

  /** Closes every connection; safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  [Symbol.asyncDispose] = () => this.close()

  async #shutDown(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    await new Promise<void>((resolve) => this.#aedes.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}

/** Ends the sessions of clients that stay away. */
function forgetAbsent(aedes: Aedes, queues: SessionQueues, expiryMs: number): void {
  const timers = new Map<string, NodeJS.Timeout>()
  aedes.on('client', ({ id }) => {
    clearTimeout(timers.get(id))
    timers.delete(id)
  })
  aedes.on('clientDisconnect', (client) => {
    if (client.clean || aedes.closed) return
    const forget = () => {
      timers.delete(client.id)
      void queues.cleanSubscriptions(client)
    }
    clearTimeout(timers.get(client.id))
    timers.set(client.id, setTimeout(forget, expiryMs).unref())
  })
  aedes.on('closed', () => {
    for (const timer of timers.values()) clearTimeout(timer)
  })
}

function listenProblem({ code }: NodeJS.ErrnoException, host: string, port: number): string {
  switch (code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is taken: give another one, or --port 0 for any free one`
    case 'EACCES':
      return `no permission to listen on port ${port}: give one from 1024 on`
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `${host} is no address of this machine (${code}): check --host`
    default:
      return `cannot listen on ${host}:${port} (${code})`
  }
}
