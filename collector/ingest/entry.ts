import { type Encoding, inflate, outlineBatch, WireFailure } from '../../shared/batch.ts'
import { type Entry, type Feed, noFeed, perStream, streamOfRecord } from '../log/engine.ts'

export interface EntryLimits {
  /** Bytes of a body as sent, and inflated. */
  maxBodyBytes: number
  maxInflatedBytes: number
}

/** An agent's name as every engine can keep it, bytes of UTF-8. */
const maxAgentBytes = 255

/**
 * Makes a body ready for the log, with what each stream gets from it. Its columns are left to `Entry.check`.
 *
 * @param arrivedMs collector's wall time
 * @throws WireFailure when it is no batch, or larger than the limits
 */
export function readEntry(
  body: Uint8Array,
  encoding: Encoding,
  { maxBodyBytes, maxInflatedBytes, arrivedMs }: EntryLimits & { arrivedMs: number },
): Entry {
  if (body.length > maxBodyBytes)
    throw new WireFailure('WIRE_TOO_LARGE', `over ${maxBodyBytes} bytes`)
  const bytes = inflate(body, encoding, maxInflatedBytes)
  const { header, items, check: inspect } = outlineBatch(bytes)
  if (header.agent === '' || Buffer.byteLength(header.agent) > maxAgentBytes)
    throw new WireFailure('WIRE_INVALID', `an agent's name has 1 to ${maxAgentBytes} bytes`)

  const feeds = perStream(() => ({ ...noFeed }))
  for (const { kind, readings, types, fromMs = arrivedMs, toMs = arrivedMs } of items) {
    add(feeds.readings, readings, fromMs, toMs)
    // A gap is one record, however many sequences it declares.
    if (kind === 'gap') add(feeds.gaps, 1, fromMs, toMs)
    else if (types) {
      add(feeds.quarantine, types.quarantine, fromMs, toMs)
      for (const type of ['alert', 'clock'] as const)
        add(feeds[streamOfRecord[type]], types[type], arrivedMs, arrivedMs)
    }
  }
  if (header.ledger) add(feeds.ledger, 1, header.sentMs, header.sentMs)
  let left = inspect
  const check = () => {
    left?.()
    left = undefined // It holds what was inflated, and an entry may wait for long.
  }
  return { header, feeds, encoding, body, arrivedMs, check }
}

function add(feed: Feed, count: number, fromMs: number, toMs: number): void {
  if (count === 0) return
  feed.count += count
  feed.fromMs = Math.min(feed.fromMs, fromMs)
  feed.toMs = Math.max(feed.toMs, toMs)
}
