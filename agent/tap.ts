import type { QuarantinedMessage } from '../shared/batch.ts'
import type { Reading } from '../shared/reading.ts'
import { readingMembers } from './reading-line.ts'
import type { Message } from './source/message.ts'

/** What became of a group of messages, as `agent tap` shows it. */
export interface Tapped {
  messages: readonly Message[]
  readings: readonly Reading[]
  rejects: readonly QuarantinedMessage[]
}

/**
 * One JSON line for each message that came in with how large it was, for each reading, and for each message
 * that goes into quarantine with the reason.
 */
export function tapLines({ messages, readings, rejects }: Tapped): string {
  let text = ''
  for (const { topic, payload, qos, retained, oversize } of messages) {
    const bytes = oversize?.size ?? payload.length
    text += `${JSON.stringify({ message: topic, bytes, qos, ...(retained && { retained }) })}\n`
  }
  for (const reading of readings) text += `{${readingMembers(reading)}}\n`
  for (const { topic, reason } of rejects)
    text += `${JSON.stringify({ quarantined: topic, reason })}\n`
  return text
}
