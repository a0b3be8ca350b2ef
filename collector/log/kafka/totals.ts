import { streams } from '../../../shared/reading.ts'
import { type Feed, perStream, type Statistics, type StoredBatch } from '../engine.ts'
import { batchIn, feedsIn, offsetsPerMessage } from '../headers.ts'
import type { Cluster, Place, StoredRecord } from './cluster.ts'

/**
 * What a partition has taken since its beginning, up to and with a batch: each batch carries it in a
 * header, so that what the partition holds follows from its first and its last. A line for each stream:
 * `readings=<records>/<batches>/<bytes>/<earliest>/<latest>`.
 */
export type Totals = Record<keyof Statistics, Total>

interface Total {
  records: number
  batches: number
  /** Bodies; a batch counts for the first stream that it feeds. */
  bytes: number
  fromMs: number
  toMs: number
}

export const totalsHeader = 'Headgate-Totals'

export function noTotals(): Totals {
  return perStream(() => ({
    records: 0,
    batches: 0,
    bytes: 0,
    fromMs: Number.POSITIVE_INFINITY,
    toMs: Number.NEGATIVE_INFINITY,
  }))
}

/** With a batch more or, by sign −1, without it; times stay then. */
export function plus(
  totals: Totals,
  feeds: Record<keyof Totals, Feed>,
  bytes: number,
  sign = 1,
): Totals {
  let rest = bytes
  return perStream((stream) => {
    const total = totals[stream]
    const { count, fromMs, toMs } = feeds[stream]
    if (count === 0) return total
    const own = rest
    rest = 0
    return {
      records: total.records + sign * count,
      batches: total.batches + sign,
      bytes: total.bytes + sign * own,
      fromMs: Math.min(total.fromMs, fromMs),
      toMs: Math.max(total.toMs, toMs),
    }
  })
}

export function totalsText(totals: Totals): string {
  return streams
    .filter((stream) => totals[stream].records > 0)
    .map((stream) => {
      const { records, batches, bytes, fromMs, toMs } = totals[stream]
      return `${stream}=${records}/${batches}/${bytes}/${fromMs}/${toMs}`
    })
    .join(' ')
}

export function totalsIn({ header }: StoredRecord): Totals {
  const totals = noTotals()
  for (const part of header(totalsHeader)?.split(' ') ?? []) {
    const [stream = '', ...numbers] = part.split(/[=/]/)
    const total = totals[stream as keyof Totals]
    if (!total) continue // Of a newer version.
    const [records = 0, batches = 0, bytes = 0, fromMs = 0, toMs = 0] = numbers.map(Number)
    Object.assign(total, { records, batches, bytes, fromMs, toMs })
  }
  return totals
}

/** Bytes of all bodies together. */
export function bytesOf(totals: Totals): number {
  return streams.reduce((sum, stream) => sum + totals[stream].bytes, 0)
}

/** The last batch of a partition; undefined when it has none. It is looked for from the end. */
export async function lastBatch(cluster: Cluster, place: Place): Promise<StoredRecord | undefined> {
  const { first, next } = await cluster.ends(place)
  // Behind the last batch stand marks of transactions, and what was aborted.
  for (let back = 8; ; back *= 8) {
    const from = Math.max(first, next - back)
    const last = await lastBetween(cluster, place, from, next)
    if (last || from === first) return last
  }
}

async function lastBetween(
  cluster: Cluster,
  place: Place,
  fromOffset: number,
  toOffset: number,
): Promise<StoredRecord | undefined> {
  let last: StoredRecord | undefined
  for await (const { records } of cluster.read(place, { fromOffset, toOffset }))
    last = records.at(-1) ?? last
  return last
}

/** The first batch at or behind an offset; undefined when there is none. */
export async function firstBatch(
  cluster: Cluster,
  place: Place,
  fromOffset: number,
  toOffset: number,
): Promise<StoredRecord | undefined> {
  for await (const { records } of cluster.read(place, { fromOffset, toOffset }))
    if (records[0]) return records[0]
  return undefined
}

/** Times are of all that was ever taken: retention does not narrow them. */
export async function statisticsOf(cluster: Cluster, place: Place): Promise<Statistics> {
  const { first, next } = await cluster.ends(place)
  const oldest = await firstBatch(cluster, place, first, next)
  const newest = oldest && (await lastBatch(cluster, place))
  const all = newest ? totalsIn(newest) : noTotals()
  const gone = oldest ? before(oldest) : noTotals()
  return perStream((stream) => {
    const total = all[stream]
    const records = total.records - gone[stream].records
    return {
      records,
      batches: total.batches - gone[stream].batches,
      bytes: total.bytes - gone[stream].bytes,
      first: (records > 0 ? first : next) * offsetsPerMessage,
      next: next * offsetsPerMessage,
      fromMs: records > 0 ? total.fromMs : undefined,
      toMs: records > 0 ? total.toMs : undefined,
    }
  })
}

/** What was there before this batch. */
function before(batch: StoredRecord): Totals {
  const feeds = feedsIn(batch.header, batch.offset)
  return plus(totalsIn(batch), feeds, batch.value.length, -1)
}

export function batchOf(record: StoredRecord, partition: number): StoredBatch {
  return batchIn(record.header, { index: record.offset, partition, body: record.value })
}
