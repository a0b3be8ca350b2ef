import mqttPacket, { type Packet } from 'mqtt-packet'
import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
import type { Seeded } from '../support/seeded.ts'
import type { Coverage } from './coverage.ts'
import { failure } from './disk.ts'
import type { Process } from './machine.ts'
import type { Network } from './network.ts'
import type { Trace } from './trace.ts'
import { type BrokerEnd, Wire } from './wire.ts'

/** What a device published and the broker has taken over: the truth that everything is measured by. */
export interface Accepted {
  /** Counts up in the order of acceptance. */
  number: number
  device: string
  topic: string
  payload: Uint8Array
  qos: 0 | 1
  /** What must become of it: one reading each, or one quarantined message. */
  contents: readonly string[]
  /** Set where the filter may leave it out, and a consumer must be able to tell what it was. */
  point: Point | undefined
  /** An agent has sent a PUBACK for it, or for what the broker takes for it. */
  acknowledged: boolean
  /** Machines that it was sent to. */
  sentTo: Set<string>
  /**
   * Copies beyond the first that the agent cannot know for such: the broker sent it again although it had
   * read the PUBACK, or to another agent, or to one whose memory had been taken away, or it is one whose
   * packet ids prove nothing.
   */
  repeats: number
}

export interface Point {
  timeMs: number
  value: number
}

/** What kind of broker it is; all of them are real. */
export interface BrokerKind {
  version: 4 | 5
  /** Sets DUP on what it sends again: mosquitto does, aedes does not. */
  setsDuplicate: boolean
  /** Packet ids are the lowest free ones instead of counting up. */
  reusesIds: boolean
  /** Sends again in any order, new messages in between. */
  reorders: boolean
  maxInFlight: number
}

interface Session {
  filters: Set<string>
  queue: Accepted[]
  inFlight: Map<number, Accepted>
  lastId: number
  /** Ids that have ever been used. */
  used: Set<number>
}

/**
 * An MQTT broker at byte level, and the record of what it has accepted. Honest by default: what it has
 * accepted it delivers until it reads a PUBACK, over restarts too.
 */
export class Broker {
  readonly kind: BrokerKind
  /** Sees every message that a PUBACK was read for. */
  readonly acknowledged: (message: Accepted) => void
  readonly record: Accepted[] = []
  isUp = true
  /** More in flight than any client has allowed. */
  floods = false
  /** Sends what it has just sent once more on the same connection: probability. */
  stutters = 0
  readonly #network: Network
  readonly #coverage: Coverage
  readonly #seeded: Seeded
  readonly #trace: Trace
  #sessions = new Map<string, Session>()
  readonly #clients = new Map<string, Client>()
  /** Connections, CONNECT sent or not. */
  readonly #wires = new Set<Wire>()
  readonly #subscribers = new Set<() => void>()
  /** Sessions as last written to disk, by a broker that writes them now and then. */
  #saved = new Map<string, Session>()

  constructor(options: {
    kind: BrokerKind
    network: Network
    trace: Trace
    acknowledged?: (message: Accepted) => void
  }) {
    this.kind = options.kind
    this.acknowledged = options.acknowledged ?? (() => {})
    this.#network = options.network
    this.#coverage = options.network.coverage
    this.#seeded = options.network.seeded
    this.#trace = options.trace
  }

  /** Opens a connection from an agent; follows the contract of `Dialer`. */
  dial(
    machine: string,
    process: Process,
    handlers: ConnectionHandlers,
    signal: AbortSignal,
  ): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const aborted = () => reject(signal.reason)
      if (signal.aborted) return aborted()
      signal.addEventListener('abort', aborted, { once: true })
      this.#network.cross(() => {
        if (!process.alive || signal.aborted) return
        if (this.#network.strikes('hang')) return this.#coverage.hit('hang')
        signal.removeEventListener('abort', aborted)
        if (!this.isUp) return reject(failure('ECONNREFUSED', 'connect'))
        const wire = new Wire({ machine, network: this.#network, process, handlers })
        wire.broker = new Client(this, wire)
        this.#wires.add(wire)
        resolve(wire.connection)
      })
    })
  }

  accept(message: Omit<Accepted, 'number' | 'acknowledged' | 'sentTo' | 'repeats'>): void {
    const accepted: Accepted = {
      ...message,
      number: this.record.length,
      acknowledged: false,
      sentTo: new Set(),
      repeats: 0,
    }
    this.record.push(accepted)
    for (const [id, session] of this.#sessions) {
      if (![...session.filters].some((filter) => matches(filter, message.topic))) continue
      const client = this.#clients.get(id)
      if (message.qos === 0) client?.publish(accepted, 0, false)
      else session.queue.push(accepted)
      client?.pump()
    }
  }

  /** An agent is connected, and what is published in these topics will reach it. */
  hears(topics: readonly string[]): boolean {
    return [...this.#clients.keys()].some((id) => {
      const { filters } = this.#sessions.get(id)!
      return topics.every((topic) => [...filters].some((filter) => matches(filter, topic)))
    })
  }

  /** Nothing of any session is left to be delivered or acknowledged. */
  get isDrained(): boolean {
    for (const { queue, inFlight } of this.#sessions.values())
      if (queue.length + inFlight.size > 0) return false
    return true
  }

  /** QoS 1 messages that are sent and not acknowledged: whoever forgets now cannot know them again. */
  *inFlight(): Iterable<Accepted> {
    for (const { inFlight } of this.#sessions.values()) yield* inFlight.values()
  }

  /** What is still the broker's, oldest first. */
  unacknowledged(): Accepted[] {
    const queued = [...this.#sessions.values()].flatMap(({ queue }) => queue)
    return [...this.inFlight(), ...queued].sort((a, b) => a.number - b.number)
  }

  /** All connections are lost; so is, where the sessions are not kept, what they held. */
  stop(sessions: 'kept' | 'lost' | 'stale'): void {
    this.isUp = false
    for (const client of [...this.#clients.values()]) client.lose()
    for (const wire of this.#wires) wire.reset()
    this.#wires.clear()
    this.#clients.clear()
    if (sessions === 'lost') this.#sessions = new Map()
    else if (sessions === 'stale') this.#restore()
    this.#coverage.hit(
      sessions === 'lost' ? 'broker restart without session' : 'broker restart with session',
    )
  }

  start(): void {
    this.isUp = true
  }

  /** Writes its sessions to disk. */
  save(): void {
    this.#saved = copySessions(this.#sessions)
  }

  /** What was acknowledged since the last save is sent again, what was queued since is forgotten. */
  #restore(): void {
    this.#sessions = copySessions(this.#saved)
    for (const { queue, inFlight } of this.#sessions.values())
      for (const message of [...queue, ...inFlight.values()])
        if (message.sentTo.size > 0) message.repeats += 1
  }

  /** Calls back as somebody subscribes, until that is taken back. */
  onSubscribe(callback: () => void): () => void {
    this.#subscribers.add(callback)
    return () => this.#subscribers.delete(callback)
  }

  subscribed(): void {
    for (const callback of this.#subscribers) this.#network.timeline.after(1, callback)
  }

  /** As brokers should be. */
  calm(): void {
    this.floods = false
    this.stutters = 0
  }

  /** Ends a connection, one way or another. */
  disturb(how: 'reset' | 'vanish'): boolean {
    for (const wire of this.#wires) {
      if (!wire.isOpen) continue
      if (how === 'reset') wire.reset()
      else wire.vanish()
      return true
    }
    return false
  }

  /** The process at this machine has died; or with it the system, which then closes nothing. */
  orphan(machine: string, how: 'killed' | 'power cut'): void {
    for (const wire of this.#wires) {
      if (wire.machine !== machine) continue
      if (how === 'killed') wire.orphan()
      else wire.vanish()
    }
  }

  connected(client: Client, id: string): { session: Session; isPresent: boolean } {
    this.#clients.get(id)?.lose()
    this.#clients.set(id, client)
    const known = this.#sessions.get(id)
    const session = known ?? {
      filters: new Set(),
      queue: [],
      inFlight: new Map(),
      lastId: 0,
      used: new Set(),
    }
    this.#sessions.set(id, session)
    return { session, isPresent: known !== undefined }
  }

  disconnected(client: Client, id: string | undefined, wire: Wire): void {
    this.#wires.delete(wire)
    if (id !== undefined && this.#clients.get(id) === client) this.#clients.delete(id)
  }

  mintId(session: Session): number {
    let id = this.kind.reusesIds ? 1 : (session.lastId % 65_535) + 1
    while (session.inFlight.has(id)) id = (id % 65_535) + 1
    session.lastId = id
    if (session.used.has(id)) this.#coverage.hit('packet-id reuse')
    session.used.add(id)
    return id
  }

  get seeded(): Seeded {
    return this.#seeded
  }

  get coverage(): Coverage {
    return this.#coverage
  }

  say(what: string, detail: string | number): void {
    this.#trace.say(what, detail)
  }
}

/** The broker's side of one connection. */
class Client implements BrokerEnd {
  readonly #broker: Broker
  readonly #wire: Wire
  readonly #parser
  #id: string | undefined
  #session: Session | undefined
  #receiveMaximum = 65_535
  /** Sent on this connection and not acknowledged. */
  #sent = 0
  #lost = false

  constructor(broker: Broker, wire: Wire) {
    this.#broker = broker
    this.#wire = wire
    this.#parser = mqttPacket.parser({ protocolVersion: broker.kind.version })
    this.#parser.on('packet', (packet) => this.#packet(packet))
  }

  data(bytes: Uint8Array): void {
    if (!this.#lost) this.#parser.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
  }

  closed(): void {
    this.#lost = true
    this.#broker.disconnected(this, this.#id, this.#wire)
  }

  /** From now on the broker knows nothing of this connection. */
  lose(): void {
    this.#lost = true
    this.#wire.close()
    this.#broker.disconnected(this, this.#id, this.#wire)
  }

  #packet(packet: Packet): void {
    if (this.#lost) return
    switch (packet.cmd) {
      case 'connect': {
        this.#id = packet.clientId
        this.#receiveMaximum = packet.properties?.receiveMaximum ?? 65_535
        const { session, isPresent } = this.#broker.connected(this, packet.clientId)
        this.#session = session
        const code = this.#broker.kind.version === 5 ? { reasonCode: 0 } : { returnCode: 0 }
        this.#broker.say('broker: CONNACK', `${this.#wire.machine} ${isPresent}`)
        this.#send({ cmd: 'connack', sessionPresent: isPresent, ...code })
        this.#again()
        return
      }
      case 'subscribe':
        for (const { topic } of packet.subscriptions) this.#session?.filters.add(topic)
        this.#send({
          cmd: 'suback',
          messageId: packet.messageId!,
          granted: packet.subscriptions.map(() => 1),
        })
        this.#broker.subscribed()
        return
      case 'unsubscribe':
        for (const topic of packet.unsubscriptions) this.#session?.filters.delete(topic)
        this.#send({ cmd: 'unsuback', messageId: packet.messageId!, granted: [0] })
        return
      case 'puback':
        this.#acknowledged(packet.messageId!)
        return
      case 'pingreq':
        this.#send({ cmd: 'pingresp' })
        return
      case 'disconnect':
        this.lose()
    }
  }

  #acknowledged(id: number): void {
    const session = this.#session!
    const message = session.inFlight.get(id)
    if (!message) return
    this.#broker.say('broker: PUBACK', message.number)
    session.inFlight.delete(id)
    message.acknowledged = true
    this.#broker.acknowledged(message)
    this.#sent -= 1
    this.pump()
  }

  /** Sends again what was in flight when the last connection ended. */
  #again(): void {
    const { kind, seeded } = this.#broker
    const session = this.#session!
    const inFlight = [...session.inFlight]
    if (kind.reorders)
      for (let i = inFlight.length - 1; i > 0; i--) {
        const j = seeded.below(i + 1)
        ;[inFlight[i], inFlight[j]] = [inFlight[j]!, inFlight[i]!]
      }
    for (const [id, message] of inFlight) {
      this.publish(message, id, kind.setsDuplicate)
      this.#sent += 1
    }
    this.pump()
  }

  /** Sends what waits, as far as the client wants it. */
  pump(): void {
    const { kind, floods, coverage } = this.#broker
    const session = this.#session
    if (!session) return
    const promised = Math.min(kind.maxInFlight, this.#receiveMaximum)
    while (session.queue.length > 0 && (floods || this.#sent < promised)) {
      const message = session.queue.shift()!
      const id = this.#broker.mintId(session)
      session.inFlight.set(id, message)
      this.#sent += 1
      if (this.#sent > promised) coverage.hit('more in flight than promised')
      this.publish(message, id, false)
      // Without DUP nobody could tell it from a new message under an id that is free again.
      if (kind.setsDuplicate && this.#broker.seeded.chance(this.#broker.stutters))
        this.#repeat(message, id)
    }
  }

  #repeat(message: Accepted, id: number): void {
    this.#broker.coverage.hit('duplicate PUBLISH')
    message.repeats += 1
    this.publish(message, id, true)
  }

  publish(message: Accepted, id: number, duplicate: boolean): void {
    const { topic, payload, qos, sentTo } = message
    const { machine } = this.#wire
    const isFirst = sentTo.size === 0
    sentTo.add(machine)
    if (!isFirst && (sentTo.size > 1 || this.#broker.kind.reusesIds)) message.repeats += 1
    this.#broker.say('broker: PUBLISH', `${message.number} as ${id}${duplicate ? ' again' : ''}`)
    this.#send({
      cmd: 'publish',
      topic,
      payload: Buffer.from(payload.buffer, payload.byteOffset, payload.length),
      qos,
      dup: duplicate,
      retain: false,
      ...(qos === 1 && { messageId: id }),
    })
  }

  #send(packet: Packet): void {
    if (this.#lost) return
    this.#wire.send(mqttPacket.generate(packet, { protocolVersion: this.#broker.kind.version }))
  }
}

function copySessions(sessions: Map<string, Session>): Map<string, Session> {
  return new Map(
    [...sessions].map(([id, { filters, queue, inFlight, lastId, used }]) => [
      id,
      {
        filters: new Set(filters),
        queue: [...queue],
        inFlight: new Map(inFlight),
        lastId,
        used: new Set(used),
      },
    ]),
  )
}

/** Whether a topic filter takes a topic (MQTT 4.7). */
function matches(filter: string, topic: string): boolean {
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [i, level] of wanted.entries()) {
    if (level === '#') return true
    if (i >= levels.length || (level !== '+' && level !== levels[i])) return false
  }
  return wanted.length === levels.length
}
