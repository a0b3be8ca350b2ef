import { perStream, type Statistics } from '../engine.ts'
import type { Message, NatsLink, StreamFacts } from './link.ts'
import { bodyBytes, offsetsPerMessage, readFeeds } from './message.ts'

type Sums = Record<
  keyof Statistics,
  { records: number; batches: number; bytes: number; fromMs: number; toMs: number }
>

/** Messages that are counted together: what retention takes is left out by whole blocks. */
const blockMessages = 1024

/**
 * What a partition holds, counted from its messages' headers: once from the beginning, then what has
 * come since.
 */
export class PartitionStatistics {
  readonly #link: NatsLink
  readonly #stream: string
  readonly #blocks = new Map<number, Sums>()
  /** Sequences counted, the first and the last. */
  #first = 1
  #last = 0
  #counting: Promise<Statistics> | undefined

  constructor(link: NatsLink, stream: string) {
    this.#link = link
    this.#stream = stream
  }

  /** Several that ask at once share the work. */
  get(): Promise<Statistics> {
    this.#counting ??= this.#count().finally(() => {
      this.#counting = undefined
    })
    return this.#counting
  }

  async #count(): Promise<Statistics> {
    const facts = await this.#link.facts(this.#stream)
    await this.#leaveOut(facts.firstSequence)
    if (facts.lastSequence > this.#last) await this.#add(this.#last + 1, facts.lastSequence)
    this.#last = facts.lastSequence
    return this.#describe(facts)
  }

  /** What stands before `first` is gone. */
  async #leaveOut(first: number): Promise<void> {
    if (first <= this.#first) return
    const begun = blockOf(first)
    for (const block of this.#blocks.keys()) if (block <= begun) this.#blocks.delete(block)
    this.#first = first
    const end = Math.min(this.#last, (begun + 1) * blockMessages - 1)
    if (first <= end) await this.#add(first, end)
    this.#last = Math.max(this.#last, first - 1)
  }

  async #add(fromSequence: number, toSequence: number): Promise<void> {
    for await (const message of this.#link.scan(this.#stream, {
      fromSequence,
      headersOnly: true,
    })) {
      if (message.sequence > toSequence) return
      this.#addMessage(message)
      if (message.sequence === toSequence) return
    }
  }

  #addMessage(message: Message): void {
    const block = blockOf(message.sequence)
    let sums = this.#blocks.get(block)
    if (!sums) {
      sums = noSums()
      this.#blocks.set(block, sums)
    }
    let bytes = bodyBytes(message)
    for (const [stream, { count, fromMs, toMs }] of Object.entries(readFeeds(message))) {
      if (count === 0) continue
      const sum = sums[stream as keyof Sums]
      sum.records += count
      sum.batches += 1
      sum.bytes += bytes // Of the first stream that it feeds alone.
      bytes = 0
      sum.fromMs = Math.min(sum.fromMs, fromMs)
      sum.toMs = Math.max(sum.toMs, toMs)
    }
  }

  #describe({ firstSequence, lastSequence }: StreamFacts): Statistics {
    const next = lastSequence * offsetsPerMessage
    const blocks = [...this.#blocks.values()]
    return perStream((stream) => {
      const each = blocks.map((sums) => sums[stream])
      const sum = (name: 'records' | 'batches' | 'bytes') =>
        each.reduce((total, one) => total + one[name], 0)
      const records = sum('records')
      const hasAny = records > 0
      return {
        records,
        batches: sum('batches'),
        bytes: sum('bytes'),
        first: hasAny ? Math.max(0, firstSequence - 1) * offsetsPerMessage : next,
        next,
        fromMs: hasAny ? Math.min(...each.map(({ fromMs }) => fromMs)) : undefined,
        toMs: hasAny ? Math.max(...each.map(({ toMs }) => toMs)) : undefined,
      }
    })
  }
}

function blockOf(sequence: number): number {
  return Math.floor(sequence / blockMessages)
}

function noSums(): Sums {
  return perStream(() => ({
    records: 0,
    batches: 0,
    bytes: 0,
    fromMs: Number.POSITIVE_INFINITY,
    toMs: Number.NEGATIVE_INFINITY,
  }))
}
