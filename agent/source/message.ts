import type { Arrival } from '../../shared/reading.ts'

/** One MQTT PUBLISH as it arrived. */
export interface Message {
  topic: string
  payload: Uint8Array
  qos: 0 | 1
  /** A retained copy, given by the broker on subscribing. */
  retained: boolean
  /** The DUP flag: the broker says that it may have sent this before. */
  duplicate: boolean
  /** 1 to 65,535; 0 for QoS 0. Means something only within the connection that delivered it. */
  packetId: number
  /** Set where the payload was over the limit: `payload` is then its first 64 KiB. */
  oversize?: { size: number; sha256: Uint8Array }
  /** Set where the topic is none that MQTT allows: why, for the quarantine. No rule may decode it. */
  fault?: string
  /** Set on a copy of what was acknowledged on this connection: that acknowledgement answers for it, too. */
  isAnswered?: true
}

/**
 * All that arrived while the last group was being committed, in order of arrival; from one connection.
 * A group may be without messages: it then brings a `session` that must be committed all the same.
 */
export interface MessageGroup {
  messages: Message[]
  arrival: Arrival
  /** Which connection delivered it; acknowledgements go there or nowhere. */
  connection: number
  /** Number of the group within its connection, from 1. */
  ordinal: number
  /** The broker has provably read the acknowledgements of this connection's groups up to this one. */
  proven: number
  session: Session
}

/** What must be remembered of our session at the broker; a new object whenever it changes. */
export interface Session {
  /** Our name for it: 16 bytes, hex. Changes when the broker says that it has none. */
  token: string
  /** URL and client id: a session means nothing to another broker, or under another name. */
  broker: string
  /** Filters that the broker has granted within it. */
  subscribed: readonly string[]
}
