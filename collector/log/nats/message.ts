import type { Entry, StoredBatch } from '../engine.ts'
import { batchIn, batchHeaders as entryHeaders, feedsIn, hasBatchHeaders } from '../headers.ts'
import type { AgentSnapshot } from '../held.ts'
import type { Message } from './link.ts'

export { offsetsPerMessage } from '../headers.ts'

/**
 * What is held behind a message on a lane's subject: agent, index of the present incarnation, 1 if some are
 * set aside, rows.
 */
const heldName = 'Headgate-Held'

/** What is held of a lane, as far as it travels with the lane's last message. */
export interface LaneHeld extends AgentSnapshot {
  /** Further incarnations are on subjects of their own. */
  hasMore: boolean
}

/** A message without a batch: it says again what is held. */
export function markHeaders(held: LaneHeld): Record<string, string> {
  return { [heldName]: heldText(held) }
}

export function batchHeaders(entry: Entry, held: LaneHeld): Record<string, string> {
  return { ...entryHeaders(entry), [heldName]: heldText(held) }
}

/** @returns undefined when the message has none */
export function readHeld(message: Message): LaneHeld | undefined {
  const text = message.header(heldName)
  if (text === undefined) return undefined
  const [agent = '', current = '', hasMore = '', rows = ''] = text.split(' ')
  return {
    agent: decodeURIComponent(agent),
    current: Number(current),
    hasMore: hasMore === '1',
    rows: new Uint8Array(Buffer.from(rows, 'base64')),
  }
}

function heldText({ agent, current, hasMore, rows }: LaneHeld): string {
  const base64 = Buffer.from(rows).toString('base64')
  return `${encodeURIComponent(agent)} ${current} ${hasMore ? 1 : 0} ${base64}`
}

/** What each stream gets from a message; nothing from one without a batch. */
export function readFeeds(message: Message): StoredBatch['feeds'] {
  return feedsIn(message.header, message.sequence - 1)
}

/** It is neither a mark nor a row of what is held. */
export function hasBatch(message: Message): boolean {
  return hasBatchHeaders(message.header)
}

/** @throws LogFailure LOG_REFUSED when the message is none of ours */
export function readBatch(message: Message, partition: number): StoredBatch {
  return batchIn(message.header, { index: message.sequence - 1, partition, body: message.body })
}

/** Of a message whose body was not asked for. */
export function bodyBytes(message: Message): number {
  return Number(message.header('Nats-Msg-Size') ?? message.body.length)
}
