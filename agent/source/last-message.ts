import { BoundedMap } from '../../shared/bounded-map.ts'
import { ContentHasher } from './content-hash.ts'

/** A topic's last message: enough to know a retained copy of it again. */
export interface LastMessage {
  /** Hash of the topic, signed; stands for it where topics are stored. */
  readonly topicHigh: number
  readonly topicLow: number
  /** Hash of topic and payload; both 0 while nothing is known. */
  high: number
  low: number
  /** Readings that it gave. */
  readings: number
}

/** Topics held at least, and at most twice as many. */
const capacity = 10_000
/** They are stored in so many parts, and only changed parts are written. */
const parts = 16
/** topicHigh 4 | topicLow 4 | high 4 | low 4 | readings 4, big-endian */
const rowBytes = 20

/**
 * The last message of each topic. Soft state: losing the newest of it lets a retained copy through that
 * was seen before; nothing else rests on it.
 */
export class LastMessages {
  readonly #topics = new BoundedMap<string, LastMessage>(capacity)
  /** What is to be stored, by topic hash; a superset of `#topics` that begins with what was stored. */
  #known = new Map<bigint, LastMessage>()
  readonly #changed = new Set<number>()
  readonly #hasher = new ContentHasher()

  /** The entry of a topic, to be changed through `update`. */
  of(topic: string): LastMessage {
    const known = this.#topics.get(topic)
    if (known) return known
    this.#hasher.topic(topic)
    const { high: topicHigh, low: topicLow } = this.#hasher
    const key = keyOf(topicHigh, topicLow)
    const last = this.#known.get(key) ?? { topicHigh, topicLow, high: 0, low: 0, readings: 0 }
    this.#topics.set(topic, last)
    this.#known.set(key, last)
    if (this.#known.size > 2 * capacity) this.#forget()
    return last
  }

  update(last: LastMessage, high: number, low: number): void {
    if (last.high === high && last.low === low) return
    last.high = high
    last.low = low
    this.#changed.add(partOf(last))
  }

  /** Drops those that were known first: a map keeps the order of insertion. */
  #forget(): void {
    for (const key of this.#known.keys()) {
      if (this.#known.size <= capacity) break
      this.#known.delete(key)
    }
  }

  load(part: Uint8Array): void {
    const view = new DataView(part.buffer, part.byteOffset, part.length)
    for (let at = 0; at + rowBytes <= part.length; at += rowBytes) {
      const [topicHigh, topicLow] = [view.getInt32(at), view.getInt32(at + 4)]
      this.#known.set(keyOf(topicHigh, topicLow), {
        topicHigh,
        topicLow,
        high: view.getInt32(at + 8),
        low: view.getInt32(at + 12),
        readings: view.getUint32(at + 16),
      })
    }
  }

  /** The parts that have changed since this was last asked, as they are stored. */
  changedParts(): { part: number; value: Uint8Array }[] {
    if (this.#changed.size === 0) return []
    const rows = new Map<number, LastMessage[]>()
    for (const part of this.#changed) rows.set(part, [])
    for (const last of this.#known.values()) rows.get(partOf(last))?.push(last)
    this.#changed.clear()
    return [...rows].map(([part, lasts]) => ({ part, value: encode(lasts) }))
  }
}

function encode(lasts: readonly LastMessage[]): Uint8Array {
  const value = new Uint8Array(lasts.length * rowBytes)
  const view = new DataView(value.buffer)
  for (const [index, last] of lasts.entries()) {
    const at = index * rowBytes
    view.setInt32(at, last.topicHigh)
    view.setInt32(at + 4, last.topicLow)
    view.setInt32(at + 8, last.high)
    view.setInt32(at + 12, last.low)
    view.setUint32(at + 16, Math.min(last.readings, 0xffffffff))
  }
  return value
}

function partOf({ topicLow }: LastMessage): number {
  return (topicLow >>> 0) % parts
}

function keyOf(high: number, low: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)
}
