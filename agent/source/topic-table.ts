import { BoundedMap } from '../../shared/bounded-map.ts'
import { covers, levelsOf } from './topic-filter.ts'

/** A topic that messages have come on. */
export interface TopicEntry {
  readonly topic: string
  /** Why MQTT does not allow such a topic; undefined when it does. */
  readonly fault: string | undefined
  /** When its last message arrived, monotonic clock. */
  lastMs: number
  readonly bytes: Uint8Array
}

/** Topics held at least, and at most twice as many. */
const capacity = 10_000
/** More would hold up everything else. */
const maxComparisons = 100_000

/**
 * Interns topics by their bytes, so that a known one costs a hash and a comparison instead of decoding
 * UTF-8 for each message, and so that equal topics are one string.
 */
export class TopicTable {
  readonly #entries = new BoundedMap<number, TopicEntry>(capacity)
  /** In order of first appearance; bounded as the table is. */
  #listed = new Map<string, TopicEntry>()

  /** The topic in `bytes[from … to)`. */
  find(bytes: Uint8Array, from: number, to: number, nowMs: number): TopicEntry {
    let hash = 0x811c9dc5
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
    const known = this.#entries.get(hash)
    if (known && same(known.bytes, bytes, from, to)) {
      known.lastMs = nowMs
      return known
    }
    const entry = makeEntry(bytes.slice(from, to), nowMs)
    // On a collision the newcomer stays out: the two would take turns in throwing each other out.
    if (!known) this.#entries.set(hash, entry)
    this.#list(entry)
    return entry
  }

  #list(entry: TopicEntry): void {
    if (this.#listed.size >= capacity) this.#listed = new Map()
    this.#listed.set(entry.topic, entry)
  }

  /** Known topics; the longest known first. */
  list(): Iterable<TopicEntry> {
    return this.#listed.values()
  }

  /** Those filters that have brought nothing since `sinceMs`; all of them where there are too many to tell. */
  silent(filters: readonly string[], sinceMs: number): string[] {
    let silent = filters.map((filter) => ({ filter, levels: levelsOf(filter) }))
    let comparisons = 0
    for (const { topic, lastMs } of this.#listed.values()) {
      if (silent.length === 0) break
      if (lastMs < sinceMs) continue
      comparisons += silent.length
      if (comparisons > maxComparisons) return [...filters]
      const parts = topic.split('/')
      silent = silent.filter(({ levels }) => !covers(levels, parts))
    }
    return silent.map(({ filter }) => filter)
  }
}

function same(known: Uint8Array, bytes: Uint8Array, from: number, to: number): boolean {
  if (known.length !== to - from) return false
  for (let i = 0; i < known.length; i++) if (known[i] !== bytes[from + i]) return false
  return true
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const lossyUtf8 = new TextDecoder('utf-8', { ignoreBOM: true })

function makeEntry(bytes: Uint8Array, lastMs: number): TopicEntry {
  let topic: string
  let fault: string | undefined
  try {
    topic = strictUtf8.decode(bytes)
    fault = faultOf(topic)
  } catch {
    topic = lossyUtf8.decode(bytes)
    fault = 'the topic is not UTF-8'
  }
  return { topic, fault, lastMs, bytes }
}

function faultOf(topic: string): string | undefined {
  if (topic === '') return 'the topic is empty'
  if (/[#+]/.test(topic)) return 'the topic has a wildcard in it'
  return topic.includes('\0') ? 'the topic has U+0000 in it' : undefined
}
