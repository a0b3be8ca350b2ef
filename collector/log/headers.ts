import { type Encoding, encodings } from '../../shared/batch.ts'
import { type Chain, chainFromBytes, chainToBytes } from '../../shared/chain.ts'
import { type Lane, lanes, type Stream, streams } from '../../shared/reading.ts'
import { type Entry, type Feed, LogFailure, noFeed, perStream, type StoredBatch } from './engine.ts'

/**
 * How an engine that keeps each batch as a message of a broker says in headers what is in it, and numbers
 * records: the n-th of message s, counted from 0, has offset s · 65,536 + n.
 */
export const offsetsPerMessage = 65_536

/** Gives a header's text; undefined when the message has none of that name. */
export type HeaderOf = (name: string) => string | undefined

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
} as const

/** Longest that they can be, with an agent's name of any length, bytes. */
export const maxHeaderBytes = 4096

export function batchHeaders({ header, ...entry }: Entry): Record<string, string> {
  const { feeds, encoding, arrivedMs } = entry
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
  }
}

/** @param index of the message in its partition, from 0 */
export function feedsIn(header: HeaderOf, index: number): StoredBatch['feeds'] {
  const first = index * offsetsPerMessage
  const feeds = perStream(() => ({ ...noFeed, first }))
  for (const part of header(name.feeds)?.split(' ') ?? []) {
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

/** Other messages are the engine's own. */
export function hasBatchHeaders(header: HeaderOf): boolean {
  return header(name.sequences) !== undefined
}

/** @throws LogFailure LOG_REFUSED when the message is none of ours */
export function batchIn(
  header: HeaderOf,
  { index, partition, body }: { index: number; partition: number; body: Uint8Array },
): StoredBatch {
  const text = (wanted: string) => header(wanted) ?? ''
  const [first = Number.NaN, last = Number.NaN] = text(name.sequences).split('-').map(Number)
  const [before = '', after = ''] = text(name.chain).split('-')
  const lane = lanes.find((known) => known === text(name.lane)) as Lane | undefined
  const encoding = encodings.find((known) => known === text(name.encoding)) as Encoding | undefined
  const predecessor = text(name.predecessor)
  if (!lane || !encoding || Number.isNaN(first + last))
    throw new LogFailure('LOG_REFUSED', `partition ${partition}: message ${index} is none of ours`)
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
    feeds: feedsIn(header, index),
    arrivedMs: Number(text(name.arrived)),
    encoding,
    body,
  }
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
