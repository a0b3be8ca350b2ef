import { type Batch, decodeBatch, inflate, type Passage } from '../batch.ts'
import { SeriesTable } from '../reading.ts'

/** One batch of the log, decoded. Some of its records may lie outside of what was asked for. */
export interface StreamBatch extends Batch {
  type: 'batch'
  partition: number
  /** The stream's records in it have the offsets from here on. */
  offset: number
  count: number
  /** Collector's wall time, ms. */
  arrivedMs: number
}

export type StreamPassage = Exclude<Passage, { type: 'position' }>
export type Lost = Extract<Passage, { type: 'damage' }>

const maxInflatedBytes = 256 * 2 ** 20
const maxSeries = 100_000

/** The same, with batches inflated and decoded; series are the same objects over many of them. */
export async function* decoded(
  passages: AsyncIterable<StreamPassage>,
): AsyncGenerator<StreamBatch | Lost> {
  let table = new SeriesTable()
  for await (const passage of passages) {
    if (passage.type === 'damage') {
      yield passage
      continue
    }
    if (table.size > maxSeries) table = new SeriesTable()
    const { encoding, body, ...place } = passage
    yield { ...place, ...decodeBatch(inflate(body, encoding, maxInflatedBytes), table) }
  }
}

/** The offset behind it. */
export function behind(passage: StreamPassage | StreamBatch): number {
  return passage.type === 'damage' ? passage.last + 1 : passage.offset + passage.count
}
