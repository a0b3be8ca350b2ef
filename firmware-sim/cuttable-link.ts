import { connect, createServer, type Server, type Socket } from 'node:net'

/** A TCP relay on loopback that can be cut, as an uplink can: what is open breaks, what is new is refused. */
export class CuttableLink implements AsyncDisposable {
  readonly port: number
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Resolves with the first bytes that come back from the far side. */
  readonly firstAnswer: Promise<void>
  #cut = false

  private constructor(server: Server, port: number, target: { host: string; port: number }) {
    this.#server = server
    this.port = port
    const { promise, resolve } = Promise.withResolvers<void>()
    this.firstAnswer = promise
    server.on('connection', (near) => {
      if (this.#cut) {
        near.destroy()
        return
      }
      const far = connect(target)
      far.once('data', () => resolve())
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(socket)
        socket.pipe(other)
        socket.on('error', () => other.destroy())
        socket.on('close', () => {
          this.#sockets.delete(socket)
          other.destroy()
        })
      }
    })
  }

  static async open(target: { host: string; port: number }): Promise<CuttableLink> {
    const server = createServer()
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    return new CuttableLink(server, (server.address() as { port: number }).port, target)
  }

  get isCut(): boolean {
    return this.#cut
  }

  cut(): void {
    this.#cut = true
    for (const socket of this.#sockets) socket.destroy()
  }

  restore(): void {
    this.#cut = false
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
