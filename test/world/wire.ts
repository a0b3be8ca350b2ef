import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
import { failure } from './disk.ts'
import type { Process } from './machine.ts'
import type { Network } from './network.ts'

/** What happens at the broker's end of a connection. */
export interface BrokerEnd {
  data(bytes: Uint8Array): void
  closed(): void
}

/** A TCP connection between an agent and its broker: bytes in order, merged and split as they come. */
export class Wire {
  readonly machine: string
  readonly connection: Connection
  /** Set by the broker once it has accepted the connection. */
  broker: BrokerEnd | undefined
  readonly #network: Network
  readonly #process: Process
  readonly #handlers: ConnectionHandlers
  readonly #toBroker: Direction
  readonly #toAgent: Direction
  /** Either end no longer takes part: nothing it sent, or is sent, matters. */
  #agentGone = false
  #brokerGone = false
  #unread: Uint8Array[] | undefined

  constructor(options: {
    machine: string
    network: Network
    process: Process
    handlers: ConnectionHandlers
  }) {
    this.machine = options.machine
    this.#network = options.network
    this.#process = options.process
    this.#handlers = options.handlers
    this.#toBroker = new Direction(options.network, {
      data: (bytes) => this.broker?.data(bytes),
      end: () => this.#endBroker(),
    })
    this.#toAgent = new Direction(options.network, {
      data: (bytes) => this.#arrive(bytes),
      end: () => this.#endAgent(undefined),
    })
    this.connection = {
      write: (bytes) => this.#toBroker.push(bytes.slice()),
      pause: () => {
        this.#unread ??= []
      },
      resume: () => this.#resume(),
      end: () => this.#toBroker.push('end'),
      destroy: () => {
        if (this.#agentGone) return
        // What the system still had to send may go out, or not.
        if (this.#network.seeded.chance(0.5)) this.#toBroker.clear()
        this.#toBroker.push('end')
        const report = this.#closing(undefined)
        this.#process.after(0, report)
      },
    }
  }

  get isOpen(): boolean {
    return !this.#agentGone && !this.#brokerGone
  }

  send(bytes: Uint8Array): void {
    if (!this.#brokerGone) this.#toAgent.push(bytes)
  }

  /** The broker closes it in order. */
  close(): void {
    if (this.#brokerGone) return
    this.#brokerGone = true
    this.broker = undefined
    this.#toAgent.push('end')
  }

  /** Both ends learn that it is lost, with all that was under way. */
  reset(): void {
    // What is sent from now on is lost with it: nothing comes behind a part that is missing.
    this.#toAgent.cut()
    this.#toBroker.cut()
    this.#network.cross(() => this.#endAgent(failure('ECONNRESET', 'read')))
    this.#network.cross(() => this.#endBroker())
  }

  /** Whatever is sent from now on vanishes, and nobody learns of it. */
  vanish(): void {
    this.#toAgent.cut()
    this.#toBroker.cut()
  }

  /** The agent's process is gone; its system closes what it had open. */
  orphan(): void {
    this.#agentGone = true
    this.#toAgent.cut()
    this.#toBroker.push('end')
  }

  #arrive(bytes: Uint8Array): void {
    if (this.#agentGone || !this.#process.alive) return
    if (this.#unread) this.#unread.push(bytes)
    else this.#handlers.data(bytes)
  }

  #resume(): void {
    const unread = this.#unread
    this.#unread = undefined
    for (const bytes of unread ?? []) {
      if (this.#unread) (this.#unread as Uint8Array[]).push(bytes)
      else this.#arrive(bytes)
    }
  }

  #endAgent(error: Error | undefined): void {
    const report = this.#closing(error)
    if (this.#process.alive) report()
  }

  /** Ends the agent's side; the result tells it so, once. */
  #closing(error: Error | undefined): () => void {
    const isNews = !this.#agentGone
    this.#agentGone = true
    this.#toAgent.cut()
    return () => {
      if (isNews) this.#handlers.closed(error)
    }
  }

  #endBroker(): void {
    if (this.#brokerGone) return
    this.#brokerGone = true
    this.#toBroker.cut()
    this.broker?.closed()
    this.broker = undefined
    this.#toAgent.push('end')
  }
}

class Direction {
  readonly #network: Network
  readonly #end: { data(bytes: Uint8Array): void; end(): void }
  #queue: (Uint8Array | 'end')[] = []
  #crossing = false
  #isCut = false

  constructor(network: Network, end: { data(bytes: Uint8Array): void; end(): void }) {
    this.#network = network
    this.#end = end
  }

  push(item: Uint8Array | 'end'): void {
    if (this.#isCut) return
    this.#queue.push(item)
    if (this.#crossing) return
    this.#crossing = true
    this.#network.cross(() => this.#arrive())
  }

  clear(): void {
    this.#queue = []
  }

  cut(): void {
    this.#isCut = true
    this.#queue = []
  }

  /** All that was sent meanwhile arrives in one piece, or in two. */
  #arrive(): void {
    this.#crossing = false
    const items = this.#queue
    this.#queue = []
    const end = items.indexOf('end')
    const bytes = Buffer.concat((end < 0 ? items : items.slice(0, end)) as Uint8Array[])
    const { seeded } = this.#network
    const split = seeded.chance(0.2) ? seeded.below(bytes.length + 1) : 0
    for (const piece of [bytes.subarray(0, split), bytes.subarray(split)])
      if (piece.length > 0 && !this.#isCut) this.#end.data(piece)
    if (end >= 0 && !this.#isCut) this.#end.end()
  }
}
