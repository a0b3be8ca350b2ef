import { connect, createServer, type Server, type Socket } from 'node:net'
import { cleanUp, type Test } from './clean-up.ts'

export interface Target {
  host: string
  port: number
}

/** A TCP balancer on loopback: each connection goes to the next target that takes it. */
export class Balancer {
  readonly #server: Server
  readonly #targets: readonly Target[]
  readonly #sockets = new Set<Socket>()
  #next = 0

  private constructor(server: Server, targets: readonly Target[]) {
    this.#server = server
    this.#targets = targets
    server.on('connection', (near) => {
      this.#track(near)
      this.#connect(near, this.#targets.length)
    })
  }

  static async open(t: Test, targets: readonly Target[]): Promise<Balancer> {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const balancer = new Balancer(server, targets)
    cleanUp(t, () => balancer.#close())
    return balancer
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  /** Breaks every connection, in the middle of whatever it carries: whoever comes back lands elsewhere. */
  shake(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  #connect(near: Socket, triesLeft: number): void {
    if (triesLeft === 0) return void near.destroy()
    const far = connect(this.#targets[this.#next++ % this.#targets.length]!)
    this.#track(far)
    far.once('connect', () => {
      far.removeAllListeners('error')
      far.on('error', () => near.destroy())
      far.once('close', () => near.destroy())
      near.once('close', () => far.destroy())
      near.pipe(far).pipe(near)
    })
    far.once('error', () => this.#connect(near, triesLeft - 1))
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => this.#sockets.delete(socket))
  }

  #close(): void {
    this.#server.close()
    this.shake()
  }
}
