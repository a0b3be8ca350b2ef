import mqttPacket from './mqtt-packet.ts'

/** What waits to be published, at most; more is turned away. */
const maxWaiting = 1_000
const maxWaitingBytes = 1024 * 1024
/** QoS 1 publications without an answer, at most, where the broker does not want fewer. */
const maxInFlight = 20

interface Publication {
  topic: string
  payload: Uint8Array
  qos: 0 | 1
  retain: boolean
  /** 0 until it was sent with QoS 1. */
  packetId: number
}

/** Publishes for the decoders: in order, bounded, QoS 1 again after a lost connection. */
export class Publisher {
  readonly #version5: boolean
  #waiting: Publication[] = []
  #waitingBytes = 0
  #inFlight = new Map<number, Publication>()
  #lastId = 0
  #limit = maxInFlight
  #send: ((packet: Uint8Array) => void) | undefined

  constructor(version5: boolean) {
    this.#version5 = version5
  }

  /**
   * False when too much waits already.
   *
   * @throws RangeError when nothing can be published under `topic`
   */
  publish(
    topic: string,
    payload: Uint8Array,
    { qos = 0, retain = false }: { qos?: 0 | 1; retain?: boolean } = {},
  ): boolean {
    if (topic === '' || /[#+\0]/.test(topic))
      throw new RangeError(`no topic to publish under: ${topic}`)
    const bytes = this.#waitingBytes + payload.length
    if (this.#waiting.length >= maxWaiting || bytes > maxWaitingBytes) return false
    this.#waitingBytes = bytes
    this.#waiting.push({ topic, payload, qos, retain, packetId: 0 })
    this.#flush()
    return true
  }

  /** A connection is there: sends again what the last one left without an answer, then what waits. */
  connected(options: {
    send(packet: Uint8Array): void
    sessionPresent: boolean
    receiveMaximum: number | undefined
  }): void {
    this.#send = options.send
    this.#limit = Math.min(maxInFlight, options.receiveMaximum ?? maxInFlight)
    for (const publication of this.#inFlight.values())
      options.send(this.#encode(publication, options.sessionPresent))
    this.#flush()
  }

  disconnected(): void {
    this.#send = undefined
  }

  acknowledged(packetId: number): void {
    this.#inFlight.delete(packetId)
    this.#flush()
  }

  get waiting(): number {
    return this.#waiting.length + this.#inFlight.size
  }

  #flush(): void {
    if (!this.#send) return
    let sent = 0
    for (const publication of this.#waiting) {
      if (publication.qos === 1) {
        if (this.#inFlight.size >= this.#limit) break
        publication.packetId = this.#mintId()
        this.#inFlight.set(publication.packetId, publication)
      }
      this.#waitingBytes -= publication.payload.length
      this.#send(this.#encode(publication, false))
      sent += 1
    }
    this.#waiting.splice(0, sent)
  }

  /** From 1 to 60,000: those above are for subscriptions. */
  #mintId(): number {
    do this.#lastId = (this.#lastId % 60_000) + 1
    while (this.#inFlight.has(this.#lastId))
    return this.#lastId
  }

  #encode({ topic, payload, qos, retain, packetId }: Publication, dup: boolean): Uint8Array {
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
    const packet = { cmd: 'publish', topic, payload: bytes, qos, retain, dup } as const
    return mqttPacket.generate(qos === 1 ? { ...packet, messageId: packetId } : packet, {
      protocolVersion: this.#version5 ? 5 : 4,
    })
  }
}
