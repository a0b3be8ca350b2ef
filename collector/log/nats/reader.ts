import type { LogItem, ReadRequest } from '../engine.ts'
import type { Message, NatsLink } from './link.ts'
import { offsetsPerMessage, readBatch, readFeeds } from './message.ts'

/**
 * Reads one stream of one partition: the partition's messages in their order, of which those that bring
 * the stream nothing are left out. Where few are wanted their headers are looked through first.
 */
export async function* readPartition(
  link: NatsLink,
  place: { stream: string; partition: number },
  request: ReadRequest,
): AsyncGenerator<LogItem> {
  const { stream, follow = false, fromOffset = 0, fromMs, toMs, signal } = request
  const toOffset = request.toOffset ?? Number.POSITIVE_INFINITY
  // As the leader says: what has been acknowledged is read.
  const { lastSequence } = await link.facts(place.stream)
  const fromSequence = Math.floor(fromOffset / offsetsPerMessage) + 1
  const toSequence = Math.min(
    follow ? Number.POSITIVE_INFINITY : lastSequence,
    Math.ceil(toOffset / offsetsPerMessage),
  )
  if (fromSequence > toSequence) return
  const headersOnly = stream !== 'readings' || fromMs !== undefined || toMs !== undefined
  const isWanted = (message: Message) => {
    const feed = readFeeds(message)[stream]
    return (
      feed.count > 0 &&
      feed.first + feed.count > fromOffset &&
      feed.first < toOffset &&
      feed.toMs >= (fromMs ?? Number.NEGATIVE_INFINITY) &&
      feed.fromMs < (toMs ?? Number.POSITIVE_INFINITY)
    )
  }
  for await (const message of link.scan(place.stream, { fromSequence, headersOnly, signal })) {
    if (message.sequence > toSequence) return
    if (isWanted(message)) {
      const whole = headersOnly ? await link.at(place.stream, message.sequence) : message
      // Retention may have taken it since.
      if (whole) yield { type: 'batch', ...readBatch(whole, place.partition) }
    }
    if (message.sequence === toSequence) return
  }
}
