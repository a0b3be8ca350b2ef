import { batchHeader, inflate } from '../shared/batch.ts'
import {
  ClientFailure,
  type ClientQuery,
  type LogClient,
  type StreamPassage,
} from '../shared/client.ts'
import type { Stream } from '../shared/reading.ts'
import type { LogReader, Query } from './fanout/fanout.ts'
import { type LogItem, maxInflatedBytes, noFeed, perStream } from './log/engine.ts'

/** A collector's log as if it were here, to be read as an engine or a folder is. */
export class RemoteLog implements LogReader {
  readonly partitions: number
  readonly #client: LogClient
  readonly #stream: Stream

  /** @param stream what is wanted of it; for more, such as gateways' clocks, it asks where it may */
  static async open(client: LogClient, stream: Stream): Promise<RemoteLog> {
    return new RemoteLog(client, stream, await client.partitions())
  }

  private constructor(client: LogClient, stream: Stream, partitions: number) {
    this.#client = client
    this.#stream = stream
    this.partitions = partitions
  }

  /** @throws ClientFailure */
  async *read(query: Query): AsyncGenerator<LogItem> {
    try {
      for await (const passage of this.#client.passages(asked(query)))
        yield toItem(passage, query.stream)
    } catch (error) {
      const isForbidden = error instanceof ClientFailure && error.status === 403
      if (!isForbidden || query.stream === this.#stream) throw error
    }
  }
}

function asked({
  stream,
  partition,
  device,
  metric,
  follow,
  signal,
  ...range
}: Query): ClientQuery {
  const { fromOffset, toOffset, fromMs, toMs } = range
  const from =
    fromMs !== undefined && !fromOffset
      ? { timeMs: fromMs }
      : fromOffset !== undefined
        ? { offset: fromOffset }
        : undefined
  const to =
    toOffset !== undefined
      ? { offset: toOffset }
      : toMs !== undefined
        ? { timeMs: toMs }
        : undefined
  return { stream, partition, from, to, device, metric, follow: follow ?? false, signal }
}

/** @param stream of which the records in it are known by their offsets; of others nothing is said */
export function toItem(passage: StreamPassage, stream: Stream): LogItem {
  if (passage.type === 'damage') return { ...passage, stream }
  const { partition, offset: first, count, arrivedMs } = passage
  const body = inflate(passage.body, passage.encoding, maxInflatedBytes)
  const { predecessor, ...header } = batchHeader(body)
  const feeds = perStream(() => ({ ...noFeed, first: 0 }))
  feeds[stream] = { ...noFeed, count, first }
  return {
    ...header,
    type: 'batch',
    predecessor: predecessor?.incarnation,
    partition,
    arrivedMs,
    encoding: 'identity',
    body,
    feeds,
  }
}
