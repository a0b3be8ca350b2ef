import mqttPacket, { type ISubscribePacket, type Packet } from 'mqtt-packet'
import type { Connection, ConnectionHandlers, Dialer } from '../../shared/ports.ts'
import { until } from './until.ts'

/**
 * A broker that does nothing by itself but what a test says: it takes the place of the network (a
 * `Dialer`), hands its connections to the test and parses what the client writes.
 */
export class FakeBroker implements Dialer {
  /** Connections dialled, the newest last; ended ones too. */
  readonly dialled: FakeConnection[] = []
  /** Refuses to be dialled, for this reason. */
  refusing: Error | undefined
  readonly version: 4 | 5

  constructor({ version = 4 }: { version?: 4 | 5 } = {}) {
    this.version = version
  }

  async dial(handlers: ConnectionHandlers): Promise<Connection> {
    if (this.refusing) throw this.refusing
    const connection = new FakeConnection(handlers, this.version)
    this.dialled.push(connection)
    return connection
  }

  /** The `count`-th connection, once it is dialled and has sent CONNECT. */
  async connection(count = 1): Promise<FakeConnection> {
    await until(
      () => this.dialled[count - 1]?.received.length !== 0 && this.dialled.length >= count,
      `connection ${count}`,
    )
    return this.dialled[count - 1]!
  }

  /** As `connection`, after accepting it. */
  async accept(
    options: { count?: number; sessionPresent?: boolean } = {},
  ): Promise<FakeConnection> {
    const connection = await this.connection(options.count)
    connection.connack({ sessionPresent: options.sessionPresent ?? false })
    return connection
  }
}

export class FakeConnection implements Connection {
  /** What the client has sent, parsed, in order. */
  readonly received: Packet[] = []
  paused = false
  /** The client has ended it, in order or not. */
  ended = false
  readonly #handlers: ConnectionHandlers
  readonly #version: 4 | 5
  readonly #parser
  #closed = false
  #unread: Uint8Array[] = []

  constructor(handlers: ConnectionHandlers, version: 4 | 5) {
    this.#handlers = handlers
    this.#version = version
    this.#parser = mqttPacket.parser({ protocolVersion: version })
    this.#parser.on('packet', (packet) => this.received.push(packet))
  }

  write(bytes: Uint8Array): void {
    this.#parser.parse(Buffer.from(bytes))
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
    for (const bytes of this.#unread.splice(0)) this.send(bytes)
    if (this.ended) this.lose()
  }
  /** As with a real socket, the end is not seen while bytes before it are not read. */
  end(): void {
    this.ended = true
    if (this.#unread.length === 0) this.lose()
  }
  destroy(): void {
    this.ended = true
    this.lose()
  }

  /** Ends it from the broker's side. */
  lose(error?: Error): void {
    if (this.#closed) return
    this.#closed = true
    queueMicrotask(() => this.#handlers.closed(error))
  }

  /** Bytes from the broker; they wait while the client does not read. */
  send(bytes: Uint8Array): void {
    if (this.paused) this.#unread.push(bytes)
    else if (!this.#closed) this.#handlers.data(bytes)
  }

  /** All in one piece. */
  packets(...packets: Packet[]): void {
    this.send(Buffer.concat(packets.map((packet) => this.encode(packet))))
  }

  encode(packet: Packet): Buffer {
    return mqttPacket.generate(packet, { protocolVersion: this.#version })
  }

  connack({ sessionPresent = false, code = 0, properties = {} } = {}): void {
    this.packets({
      cmd: 'connack',
      sessionPresent,
      ...(this.#version === 5 ? { reasonCode: code, properties } : { returnCode: code }),
    })
  }

  publish(...publications: Publication[]): void {
    this.packets(...publications.map(publishPacket))
  }

  /** Answers the next SUBSCRIBE, with one code for all. */
  async subscribed(code = 1): Promise<ISubscribePacket> {
    const asked = await this.next('subscribe')
    this.packets({
      cmd: 'suback',
      messageId: asked.messageId!,
      granted: asked.subscriptions.map(() => code),
    })
    return asked
  }

  /** Answers what PINGREQs have no answer yet; returns how many. */
  pong(): number {
    const asked = this.of('pingreq').length - this.#ponged
    this.#ponged += asked
    for (let i = 0; i < asked; i++) this.packets({ cmd: 'pingresp' })
    return asked
  }
  #ponged = 0

  #consumed = new Map<string, number>()
  /** The next packet of a kind that was not returned yet. */
  async next<Kind extends Packet['cmd']>(cmd: Kind): Promise<Extract<Packet, { cmd: Kind }>> {
    const index = this.#consumed.get(cmd) ?? 0
    this.#consumed.set(cmd, index + 1)
    await until(() => this.of(cmd).length > index, `a ${cmd} from the client`)
    return this.of(cmd)[index]!
  }

  of<Kind extends Packet['cmd']>(cmd: Kind): Extract<Packet, { cmd: Kind }>[] {
    return this.received.filter((packet) => packet.cmd === cmd) as Extract<Packet, { cmd: Kind }>[]
  }

  /** Packet ids of the PUBACKs received, in order. */
  get acknowledged(): number[] {
    return this.of('puback').map(({ messageId }) => messageId!)
  }
}

export interface Publication {
  id?: number
  topic?: string
  payload?: string | Uint8Array
  qos?: 0 | 1 | 2
  dup?: boolean
  retain?: boolean
}

export function publishPacket(publication: Publication): Packet {
  const {
    id,
    topic = 'sensors/a/t',
    payload = `${id}`,
    qos = 1,
    dup = false,
    retain = false,
  } = publication
  return {
    cmd: 'publish',
    topic,
    payload: Buffer.from(payload as string),
    qos,
    dup,
    retain,
    ...(qos > 0 && { messageId: id! }),
  }
}
