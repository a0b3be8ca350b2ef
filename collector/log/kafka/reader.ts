import type { LogItem, ReadRequest } from '../engine.ts'
import { offsetsPerMessage } from '../headers.ts'
import type { Cluster, Place } from './cluster.ts'
import { batchOf } from './totals.ts'

/**
 * Reads one stream of one partition: the partition's batches in their order, of which those that bring the
 * stream nothing are left out. All of them pass over the network.
 */
export async function* readPartition(
  cluster: Cluster,
  place: Place,
  request: ReadRequest,
): AsyncGenerator<LogItem> {
  const { stream, follow = false, fromOffset = 0, signal } = request
  const { fromMs = Number.NEGATIVE_INFINITY, toMs = Number.POSITIVE_INFINITY } = request
  const endOffset = request.toOffset ?? Number.POSITIVE_INFINITY
  // What has been acknowledged is there, though perhaps not readable yet: it is waited for.
  const { first, next } = await cluster.ends(place)
  const from = Math.max(first, Math.floor(fromOffset / offsetsPerMessage))
  const end = Math.ceil(endOffset / offsetsPerMessage)
  const toOffset = follow ? end : Math.min(end, next)
  for await (const { records } of cluster.read(place, { fromOffset: from, toOffset, signal }))
    for (const record of records) {
      const batch = batchOf(record, place.partition)
      const feed = batch.feeds[stream]
      if (
        feed.count > 0 &&
        feed.first + feed.count > fromOffset &&
        feed.first < endOffset &&
        feed.toMs >= fromMs &&
        feed.fromMs < toMs
      )
        yield { type: 'batch', ...batch }
      if (signal?.aborted) return
    }
}
