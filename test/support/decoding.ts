import { Decoder, type DecoderOptions, decodeSchema } from '../../agent/decode/decode.ts'
import type { Message } from '../../agent/source/message.ts'
import type { Arrival } from '../../shared/reading.ts'

export const arrival: Arrival = { wallMs: Date.UTC(2026, 0, 1), monotonicMs: 1_000 }

/** A decoder with rules as they stand in agent.yaml. */
export function decoderOf(rules: object[], options: Partial<DecoderOptions> = {}): Decoder {
  return new Decoder({ rules: decodeSchema.parse(rules), agent: 'gw-001', ...options })
}

export function message(
  topic: string,
  payload: string | Uint8Array,
  more: Partial<Message> = {},
): Message {
  const bytes = typeof payload === 'string' ? new TextEncoder().encode(payload) : payload
  return {
    topic,
    payload: bytes,
    qos: 1,
    retained: false,
    duplicate: false,
    packetId: 1,
    ...more,
  }
}
