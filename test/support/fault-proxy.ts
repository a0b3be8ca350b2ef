import { connect, createServer, type Server, type Socket } from 'node:net'
import { cleanUp, type Test } from './clean-up.ts'

/** Sees what passes on one connection. */
export interface Watcher {
  /** From the client to the server. */
  up(bytes: Uint8Array): void
  down(bytes: Uint8Array): void
}

/**
 * What happens on the way:
 * `pass`: nothing. `refuse`: connections break, and new ones do. `silent`: not a byte arrives any more in
 * either direction and nobody is told, as when a router has forgotten the connection. `mute`: what the
 * client sends arrives, and no answer comes back.
 */
type Mode = 'pass' | 'refuse' | 'silent' | 'mute'

/** A TCP relay on loopback that breaks as links do; gone when the test ends. */
export class FaultProxy {
  readonly port: number
  connections = 0
  /** Bytes that came through, either way. */
  bytes = 0
  readonly #server: Server
  readonly #target: number
  readonly #watch: (() => Watcher) | undefined
  readonly #pairs = new Set<Pair>()
  #mode: Mode = 'pass'
  #cutAt = Number.POSITIVE_INFINITY
  #whenCut: (() => void) | undefined

  private constructor(server: Server, target: number, watch: (() => Watcher) | undefined) {
    this.#server = server
    this.#target = target
    this.#watch = watch
    this.port = (server.address() as { port: number }).port
    server.on('connection', (near) => this.#connect(near))
  }

  /** @param target port on loopback; nothing need listen there yet */
  static async open(t: Test, target: number, watch?: () => Watcher): Promise<FaultProxy> {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const proxy = new FaultProxy(server, target, watch)
    cleanUp(t, () => proxy.#close())
    return proxy
  }

  /** Connections that were silent stay so for ever; new ones pass. */
  pass(): void {
    this.#mode = 'pass'
  }

  refuse(): void {
    this.#mode = 'refuse'
    for (const pair of this.#pairs) pair.destroy()
  }

  silence(): void {
    this.#mode = 'silent'
    for (const pair of this.#pairs) pair.silence()
  }

  mute(): void {
    this.#mode = 'mute'
    for (const pair of this.#pairs) pair.mute()
  }

  /** Lets so many more bytes through and then breaks the connection, wherever it is; resolves when it has. */
  cutAfter(bytes: number): Promise<void> {
    this.#cutAt = this.bytes + bytes
    return new Promise((resolve) => {
      this.#whenCut = resolve
    })
  }

  #connect(near: Socket): void {
    this.connections += 1
    near.on('error', () => {})
    if (this.#mode === 'refuse') {
      near.resetAndDestroy()
      return
    }
    const far = connect({ host: '127.0.0.1', port: this.#target })
    const pair = new Pair(near, far, this.#watch?.(), (chunk) => this.#passing(chunk, pair))
    this.#pairs.add(pair)
    for (const socket of [near, far])
      socket.on('close', () => {
        if (pair.silent) return // The other side never hears of it.
        this.#pairs.delete(pair)
        pair.destroy()
      })
    if (this.#mode === 'silent') pair.silence()
    if (this.#mode === 'mute') pair.mute()
  }

  /** What of a chunk gets through. */
  #passing(chunk: Buffer, pair: Pair): Buffer {
    const room = this.#cutAt - this.bytes
    if (chunk.length < room) {
      this.bytes += chunk.length
      return chunk
    }
    this.bytes += room
    this.#cutAt = Number.POSITIVE_INFINITY
    setImmediate(() => pair.destroy()) // Once the piece that gets through is written.
    this.#whenCut?.()
    return chunk.subarray(0, room)
  }

  async #close(): Promise<void> {
    for (const pair of this.#pairs) pair.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** One connection through the proxy. */
class Pair {
  silent = false
  readonly #near: Socket
  readonly #far: Socket

  constructor(
    near: Socket,
    far: Socket,
    watcher: Watcher | undefined,
    passing: (chunk: Buffer) => Buffer,
  ) {
    this.#near = near
    this.#far = far
    far.on('error', () => {})
    relay(near, far, (chunk) => {
      const through = passing(chunk)
      watcher?.up(through)
      return through
    })
    relay(far, near, (chunk) => {
      const through = passing(chunk)
      watcher?.down(through)
      return through
    })
  }

  silence(): void {
    this.silent = true
    this.#near.removeAllListeners('drain').pause()
    this.#far.removeAllListeners('drain').pause()
  }

  mute(): void {
    this.#near.removeAllListeners('drain')
    this.#far.pause()
  }

  destroy(): void {
    this.#near.destroy()
    this.#far.destroy()
  }
}

function relay(from: Socket, to: Socket, pass: (chunk: Buffer) => Buffer): void {
  from.setNoDelay(true)
  from.on('data', (chunk: Buffer) => {
    if (!to.write(pass(chunk))) from.pause()
  })
  to.on('drain', () => from.resume())
  from.on('end', () => to.end())
}
