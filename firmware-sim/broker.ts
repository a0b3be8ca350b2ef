import { createServer, type Server, type Socket } from 'node:net'
import { Aedes } from 'aedes'
import { UserError } from '../shared/failure.ts'

export interface BrokerOptions {
  host: string
  /** 0 takes any free one. */
  port: number
}

/** A small MQTT 3.1.1 broker in this process. Sessions are kept in memory: they end with it. */
export class Broker implements AsyncDisposable {
  readonly url: string
  readonly #aedes: Aedes
  readonly #server: Server
  readonly #sockets: Set<Socket>
  #closing: Promise<void> | undefined

  private constructor(url: string, aedes: Aedes, server: Server, sockets: Set<Socket>) {
    this.url = url
    this.#aedes = aedes
    this.#server = server
    this.#sockets = sockets
  }

  /** Resolves once it listens. @throws UserError when the port cannot be had */
  static async open({ host, port }: BrokerOptions): Promise<Broker> {
    // Without a drain timeout: a subscriber that stops reading slows its publishers instead of losing
    // its connection.
    const aedes = await Aedes.createBroker({ drainTimeout: 0 })
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
    return new Broker(`mqtt://${name}:${address.port}`, aedes, server, sockets)
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
