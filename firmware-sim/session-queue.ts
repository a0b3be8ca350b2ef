import { Readable } from 'node:stream'
import type { AedesPublishPacket, Client, PubrelPacket, Subscription } from 'aedes'
import MemoryPersistence from 'aedes-persistence/asyncPersistence.js'

/** A PUBLISH that a session is owed, or the PUBREL that follows one of QoS 2. */
type Owed = (AedesPublishPacket | (PubrelPacket & Pick<AedesPublishPacket, 'brokerCounter'>)) & {
  dup?: boolean
}

interface Subscriber {
  clientId: string
  qos?: 0 | 1 | 2
}

interface Entry {
  packet: Owed
  bytes: number
  /** Connection that it was last sent on. */
  sentOn: Client | undefined
  /** From the first sending on, for as long as it is owed. */
  messageId: number | undefined
}

interface Queue {
  /** By the broker's counter, in order of publishing. */
  entries: Map<number, Entry>
  byMessageId: Map<number, Entry>
  bytes: number
  /** Highest counter that has been acknowledged. */
  acknowledged: number
  /** The session is connecting: what is queued goes first, and what is published now joins the queue. */
  draining: boolean
  /** Publishers have begun to wait for it, and that has been told; until it is empty again. */
  told: boolean
  /** Called when another entry has been sent. */
  onSent: (() => void) | undefined
}

export interface QueueLimits {
  maxMessages: number
  maxBytes: number
}

/**
 * What sessions are owed at QoS 1 and 2, in memory and bounded. It stands in for the queues of aedes' own
 * memory persistence (11.0.0), which have no bound, search from the front for every packet, and after a
 * reconnect give the packet ids of unacknowledged messages to new ones, so that an acknowledgement takes
 * the wrong message away. Here a message keeps its id until it is acknowledged, is sent again with DUP, and
 * goes out in order, once on each connection.
 *
 * A queue at its limit makes publishers wait: `admit` is called before their PUBACK.
 */
export class SessionQueues extends MemoryPersistence {
  readonly #limits: QueueLimits
  readonly #onHold: (session: string, queued: number) => void
  readonly #queues = new Map<string, Queue>()
  /** Publishers that wait, in order. */
  #held: (() => void)[] = []

  /** @param onHold told when publishers begin to wait, and for whom */
  constructor(limits: QueueLimits, onHold: (session: string, queued: number) => void) {
    super()
    this.#limits = limits
    this.#onHold = onHold
  }

  /** Messages that are owed, over all sessions. */
  get size(): number {
    let size = 0
    for (const { entries } of this.#queues.values()) size += entries.size
    return size
  }

  /**
   * Calls back once every queue has room. Never makes a client wait that is owed something itself: its
   * acknowledgements come on the connection that would stand still.
   */
  admit(client: Client | null, proceed: () => void): void {
    const own = client && this.#queues.get(client.id)
    const exempt = own != null && own.entries.size > 0
    const full = this.#held.length > 0 || exempt ? undefined : this.#full()
    if (full && !full.queue.told) {
      full.queue.told = true
      this.#onHold(full.session, full.queue.entries.size)
    }
    if (exempt || (!full && this.#held.length === 0)) proceed()
    else this.#held.push(proceed)
  }

  /** Whether a published message goes out on this connection now: aedes' `authorizeForward`. */
  forwards(client: Client, packet: AedesPublishPacket): boolean {
    const queue = this.#queues.get(client.id)
    // Without a broker id it is a retained copy; with a packet id it comes out of the queue.
    if (client.clean || !queue || !packet.brokerId || packet.messageId !== undefined) return true
    const entry = queue.entries.get(packet.brokerCounter)
    if (!entry) return packet.brokerCounter > queue.acknowledged
    return !queue.draining && entry.sentOn !== client
  }

  override async outgoingEnqueue(sub: Subscriber, packet: unknown): Promise<void> {
    this.#enqueue(sub, packet as AedesPublishPacket)
  }

  override async outgoingEnqueueCombi(subs: Subscriber[], packet: unknown): Promise<void> {
    for (const sub of subs) this.#enqueue(sub, packet as AedesPublishPacket)
  }

  /** Aedes is about to send this packet; it goes out as it leaves here. */
  override async outgoingUpdate(client: Client, given: unknown): Promise<void> {
    const packet = given as Owed & { messageId: number }
    const queue = this.#queues.get(client.id)
    if (!queue) return
    if (packet.cmd === 'pubrel' && packet.brokerCounter === undefined) {
      const entry = queue.byMessageId.get(packet.messageId)
      if (entry) entry.packet = { ...packet, brokerCounter: entry.packet.brokerCounter }
      return
    }
    const entry = queue.entries.get(packet.brokerCounter)
    if (!entry) return
    if (entry.messageId === undefined) {
      let id = packet.messageId
      while (queue.byMessageId.has(id)) id = (id % 65535) + 1
      entry.messageId = id
      queue.byMessageId.set(id, entry)
    } else {
      packet.dup = packet.cmd === 'publish'
    }
    if (packet.cmd === 'publish' && entry.packet.cmd === 'publish') packet.qos = entry.packet.qos
    packet.messageId = entry.messageId
    entry.sentOn = client
    queue.onSent?.()
  }

  /** The subscriber has acknowledged. */
  override async outgoingClearMessageId(client: Client, given: unknown): Promise<unknown> {
    const { messageId } = given as { messageId: number | undefined }
    const queue = this.#queues.get(client.id)
    const entry = messageId === undefined ? undefined : queue?.byMessageId.get(messageId)
    if (queue && entry) {
      queue.byMessageId.delete(messageId!)
      queue.entries.delete(entry.packet.brokerCounter)
      queue.bytes -= entry.bytes
      queue.acknowledged = Math.max(queue.acknowledged, entry.packet.brokerCounter)
      if (queue.entries.size === 0) queue.told = false
      this.#release()
    }
    return entry?.packet
  }

  /** Everything that is owed, oldest first, at the start of a connection. */
  override outgoingStream(client: Client): Readable {
    const queue = this.#queues.get(client.id)
    return Readable.from(queue ? this.#drain(queue, client) : [])
  }

  /** Aedes asks for them at the start of a connection, before it delivers on it. */
  override async subscriptionsByClient(client: Client): Promise<Subscription[]> {
    const subscriptions = await super.subscriptionsByClient(client)
    if (subscriptions.length > 0) this.#queue(client.id).draining = true
    return subscriptions
  }

  /** The session ends. */
  override async cleanSubscriptions(client: Client): Promise<void> {
    this.#queues.delete(client.id)
    await super.cleanSubscriptions(client)
    this.#release()
  }

  #queue(session: string): Queue {
    let queue = this.#queues.get(session)
    if (!queue) {
      queue = {
        entries: new Map(),
        byMessageId: new Map(),
        bytes: 0,
        acknowledged: 0,
        draining: false,
        told: false,
        onSent: undefined,
      }
      this.#queues.set(session, queue)
    }
    return queue
  }

  #enqueue(subscriber: Subscriber, original: AedesPublishPacket): void {
    const queue = this.#queue(subscriber.clientId)
    const { cmd, brokerId, brokerCounter, topic, payload } = original
    // Not more than was subscribed for; aedes looks at that for topics without wildcards only.
    const qos = original.qos === 2 && subscriber.qos === 1 ? 1 : original.qos
    const packet = { cmd, brokerId, brokerCounter, topic, payload, qos, retain: false, dup: false }
    const bytes = topic.length + payload.length
    queue.entries.set(brokerCounter, { packet, bytes, sentOn: undefined, messageId: undefined })
    queue.bytes += bytes
  }

  async *#drain(queue: Queue, client: Client): AsyncGenerator<Owed> {
    queue.onSent?.() // Lets the drain of a connection that broke run out.
    queue.draining = true
    for (;;) {
      let last: Entry | undefined
      for (const entry of queue.entries.values()) {
        if (entry.sentOn === client) continue
        last = entry
        yield entry.packet
      }
      // Only once the last one is out may live messages follow it.
      if (!last) break
      while (last.sentOn !== client && !client.closed)
        await new Promise<void>((resolve) => {
          queue.onSent = resolve
        })
      if (client.closed) return
    }
    queue.onSent = undefined
    queue.draining = false
  }

  /** A session at its limit. */
  #full(): { session: string; queue: Queue } | undefined {
    const { maxMessages, maxBytes } = this.#limits
    for (const [session, queue] of this.#queues)
      if (queue.entries.size >= maxMessages || queue.bytes >= maxBytes) return { session, queue }
    return undefined
  }

  /** Lets as many publishers go on as there is room for, once a quarter of every queue is free. */
  #release(): void {
    if (this.#held.length === 0) return
    const { maxMessages, maxBytes } = this.#limits
    let room = maxMessages
    for (const { entries, bytes } of this.#queues.values()) {
      if (bytes > 0.75 * maxBytes) return
      room = Math.min(room, maxMessages - entries.size)
    }
    if (room < maxMessages / 4) return
    for (const proceed of this.#held.splice(0, room)) proceed()
  }
}
