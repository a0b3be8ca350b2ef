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
}

/** All that arrived while the last group was being committed, in order of arrival. */
export interface MessageGroup {
  messages: Message[]
  arrival: Arrival
  /** Which connection delivered it; acknowledgements go there or nowhere. */
  connection: number
  /** Our name for the broker's session; changes when the broker says that it has none. 16 bytes, hex. */
  session: string
}
