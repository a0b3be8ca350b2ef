import { type Encoding, encodings } from '../../../shared/batch.ts'
import { type Chain, chainFromBytes, chainToBytes } from '../../../shared/chain.ts'
import { type Lane, lanes, type Stream, streams } from '../../../shared/reading.ts'
import {
  type Entry,
  type Feed,
  LogFailure,
  noFeed,
  perStream,
  type StoredBatch,
} from '../engine.ts'
import type { AgentSnapshot } from '../held.ts'
import type { Message } from './link.ts'

/** Offsets that one message takes of each stream: the n-th record of message s has (s − 1) · 65,536 + n. */
export const offsetsPerMessage = 65_536

/** Headers of every message on a lane's subject. */
const name = {
  agent: 'Headgate-Agent',
  lane: 'Headgate-Lane',
  incarnation: 'Headgate-Incarnation',
  predecessor: 'Headgate-Predecessor',
  /** First and last sequence. */
  sequences: 'Headgate-Sequences',
  /** Running hash before and behind them. */
  chain: 'Headgate-Chain',
  arrived: 'Headgate-Arrived',
  /** What each stream gets: `readings=500/1767225600000/1767225601000 ledger=1/…`. */
  feeds: 'Headgate-Feeds',
  type: 'Content-Type',
  encoding: 'Content-Encoding',
  /** What is held behind this message: agent, index of the present incarnation, 1 if some are set aside, rows. */
  held: 'Headgate-Held',
} as const

/** What is held of a lane, as far as it travels with the lane's last message. */
export interface LaneHeld extends AgentSnapshot {
  /** Further incarnations are on subjects of their own. */
  hasMore: boolean
}

/** A message without a batch: it says again what is held. */
export function markHeaders(held: LaneHeld): Record<string, string> {
  return { [name.held]: heldText(held) }
}

export function batchHeaders(entry: Entry, held: LaneHeld): Record<string, string> {
  const { header, feeds, encoding, arrivedMs } = entry
  const { agent, lane, incarnation, predecessor, first, last, before, after } = header
  return {
    [name.agent]: encodeURIComponent(agent),
    [name.lane]: lane,
    [name.incarnation]: hex(incarnation),
    ...(predecessor && { [name.predecessor]: hex(predecessor.incarnation) }),
    [name.sequences]: `${first}-${last}`,
    [name.chain]: `${hex(chainToBytes(before))}-${hex(chainToBytes(after))}`,
    [name.arrived]: String(arrivedMs),
    [name.feeds]: feedsText(feeds),
    [name.type]: 'application/cbor',
    [name.encoding]: encoding,
    [name.held]: heldText(held),
  }
}

/** @returns undefined when the message has none */
export function readHeld(message: Message): LaneHeld | undefined {
  const text = message.header(name.held)
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
  const first = (message.sequence - 1) * offsetsPerMessage
  const feeds = perStream(() => ({ ...noFeed, first }))
  for (const part of message.header(name.feeds)?.split(' ') ?? []) {
    const [stream = '', count = 0, fromMs = 0, toMs = 0] = part.split(/[=/]/)
    const feed = feeds[stream as Stream]
    if (!feed) continue // Of a newer version.
    Object.assign(feed, { count: Number(count), fromMs: Number(fromMs), toMs: Number(toMs) })
  }
  return feeds
}

function feedsText(feeds: Record<Stream, Feed>): string {
  return streams
    .filter((stream) => feeds[stream].count > 0)
    .map((stream) => {
      const { count, fromMs, toMs } = feeds[stream]
      return `${stream}=${count}/${fromMs}/${toMs}`
    })
    .join(' ')
}

/** It is neither a mark nor a row of what is held. */
export function hasBatch(message: Message): boolean {
  return message.header(name.sequences) !== undefined
}

/** @throws LogFailure LOG_REFUSED when the message is none of ours */
export function readBatch(message: Message, partition: number): StoredBatch {
  const text = (header: string) => message.header(header) ?? ''
  const [first = Number.NaN, last = Number.NaN] = text(name.sequences).split('-').map(Number)
  const [before = '', after = ''] = text(name.chain).split('-')
  const lane = lanes.find((known) => known === text(name.lane)) as Lane | undefined
  const encoding = encodings.find((known) => known === text(name.encoding)) as Encoding | undefined
  const predecessor = text(name.predecessor)
  if (!lane || !encoding || Number.isNaN(first + last))
    throw new LogFailure('LOG_REFUSED', `message ${message.sequence} is none of ours`)
  return {
    partition,
    agent: decodeURIComponent(text(name.agent)),
    incarnation: bytesOf(text(name.incarnation)),
    lane,
    first,
    last,
    before: chainOf(before),
    after: chainOf(after),
    predecessor: predecessor === '' ? undefined : bytesOf(predecessor),
    feeds: readFeeds(message),
    arrivedMs: Number(text(name.arrived)),
    encoding,
    body: message.body,
  }
}

/** Of a message whose body was not asked for. */
export function bodyBytes(message: Message): number {
  return Number(message.header('Nats-Msg-Size') ?? message.body.length)
}

function chainOf(text: string): Chain {
  return chainFromBytes(bytesOf(text))
}

function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'))
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}
