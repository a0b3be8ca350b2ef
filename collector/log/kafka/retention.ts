import type { Cluster, Place } from './cluster.ts'
import { bytesOf, firstBatch, lastBatch, totalsIn } from './totals.ts'

export interface Retention {
  /** Bodies of one partition; undefined keeps everything. */
  bytes: number | undefined
  ageMs: number | undefined
}

/** Removes the oldest batches of a partition. What is held stands in a topic of its own and stays. */
export async function retain(
  cluster: Cluster,
  place: Place,
  { bytes, ageMs }: Retention,
  nowMs: number,
): Promise<void> {
  const { first, next } = await cluster.ends(place)
  const cuts = [first]
  if (ageMs !== undefined) cuts.push((await cluster.offsetSince(place, nowMs - ageMs)) ?? next)
  if (bytes !== undefined) cuts.push(await cutBySize(cluster, place, bytes))
  const cut = Math.max(...cuts)
  if (cut > first) await cluster.deleteBefore(place, cut)
}

/** The first offset from which on the batches have no more than so many bytes: found by halving. */
async function cutBySize(cluster: Cluster, place: Place, bytes: number): Promise<number> {
  let { first: low, next: high } = await cluster.ends(place)
  const newest = await lastBatch(cluster, place)
  if (!newest) return low
  // Each batch says what was there up to and with it.
  const goal = bytesOf(totalsIn(newest)) - bytes
  const end = high
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const batch = await firstBatch(cluster, place, middle, end)
    if (batch && bytesOf(totalsIn(batch)) - batch.value.length < goal) low = batch.offset + 1
    else high = middle
  }
  return Math.min(low, newest.offset)
}
