import type { IncomingMessage, ServerResponse } from 'node:http'
import { encodePassage } from '../shared/batch.ts'
import type { Logger } from '../shared/log.ts'
import type { Stream } from '../shared/reading.ts'
import { systemClock } from '../shared/system.ts'
import { formatTime } from '../shared/time-text.ts'
import { anybody, type Caller } from './auth.ts'
import { nextOffsets, type Piece, type Query, readRecords, startsNowhere } from './fanout/fanout.ts'
import { formatRecords } from './fanout/format.ts'
import { placeOf, type Shape, type ShapeName, shapeOf } from './fanout/shape.ts'
import { drained, send } from './http.ts'
import { json } from './ingest/ingest.ts'
import type { LogEngine, Statistics } from './log/engine.ts'
import {
  checkPartitions,
  formatSeen,
  parseQuery,
  parseSeen,
  parseShape,
  QueryProblem,
} from './query.ts'

/** Says now and then that a tail is alive, so that proxies and readers keep it. */
const keepAliveMs = 15_000

/** Parquet files that are being made at the same time: each gathers thousands of records in memory. */
const maxParquet = 4

export interface StreamService {
  /** Readers that are being served. */
  readonly readers: number
  /** Answers what is asked below `/v1/streams`; false when it is nothing of ours. */
  answer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    caller?: Caller,
  ): Promise<boolean>
  /** Ends every tail. */
  stop(): void
}

/**
 * Lets readers at the log: range reads and live tails, each at its reader's pace. A reader that stops
 * reading costs its socket and one batch.
 */
export function openStreams(
  log: LogEngine,
  logger: Logger,
  verifyAll: (breathe: () => Promise<void>) => Promise<object>,
  patienceMs = 1000,
): StreamService {
  const stopping = new AbortController()
  let readers = 0
  let parquets = 0
  let isVerifying = false
  /** Reads the whole log, so one at a time. */
  const verify = async (request: IncomingMessage, response: ServerResponse) => {
    if (isVerifying || request.method === 'HEAD')
      return send(response, json(429, { code: 'busy', message: 'it is being verified already' }))
    isVerifying = true
    const signal = endOf(response, stopping.signal)
    try {
      const report = await verifyAll(async () => {
        signal.throwIfAborted()
        await nextTurn()
      })
      send(response, json(200, report))
    } finally {
      isVerifying = false
    }
  }
  const service = {
    get readers() {
      return readers
    },
    async answer(
      request: IncomingMessage,
      response: ServerResponse,
      url: URL,
      { streams }: Caller = anybody,
    ): Promise<boolean> {
      if (url.pathname === '/v1/streams') {
        const all = Object.entries(describe(await log.statistics()))
        const shown = all.filter(([stream]) => streams?.has(stream as Stream) ?? true)
        send(response, json(200, Object.fromEntries(shown)))
        return true
      }
      if (url.pathname === '/v1/log') {
        send(response, json(200, { partitions: log.partitions, state: log.state }))
        return true
      }
      if (url.pathname === '/v1/verify') {
        await verify(request, response)
        return true
      }
      const match = /^\/v1\/streams\/([^/]+)\/(records|tail)$/.exec(url.pathname)
      if (!match) return false
      const [, stream = '', kind] = match
      const isParquet = url.searchParams.get('format') === 'parquet' && request.method !== 'HEAD'
      if (isParquet && parquets >= maxParquet) {
        const message = 'too many Parquet files are being made already: come back'
        send(response, json(429, { code: 'busy', message }, { 'retry-after': '1' }))
        return true
      }
      if (isParquet) parquets += 1
      readers += 1
      try {
        const ask = request.method === 'HEAD' ? undefined : kind === 'tail' ? tail : records
        const signal = endOf(response, stopping.signal)
        await (ask ?? head)({ log, request, response, url, stream, signal, logger, patienceMs })
      } catch (error) {
        if (!(error instanceof QueryProblem)) throw error
        send(response, json(400, { code: 'query', message: error.message }))
      } finally {
        if (isParquet) parquets -= 1
        readers -= 1
      }
      return true
    },
    stop: () => stopping.abort(),
  }
  return service
}

interface Asked {
  log: LogEngine
  request: IncomingMessage
  response: ServerResponse
  url: URL
  stream: string
  signal: AbortSignal
  logger: Logger
  /** How long a reader may take nothing before its batch is let go. */
  patienceMs: number
}

async function head({ log, response, url, stream }: Asked): Promise<void> {
  queryOf(url, stream, log)
  response.writeHead(200).end()
}

async function records(asked: Asked): Promise<void> {
  const { log, response, url, stream, signal } = asked
  const query = { ...queryOf(url, stream, log), signal }
  goOn(asked, query)
  const name = parseShape(url.searchParams.get('format') ?? 'ndjson')
  const shape = shapeOf(name, query.stream)
  const seen = seenBefore(log, query)
  response.writeHead(200, { 'content-type': shape.contentType })
  if (name === 'cbor') response.write(positionOf(seen))
  else response.write(shape.head)
  await serve(asked, query, shape, seen)
  // Cut short by our stopping, it must not look complete.
  if (signal.aborted) response.destroy()
  else response.end(shape.end())
}

async function tail(asked: Asked): Promise<void> {
  const { log, request, response, url, stream, signal } = asked
  const query: Query = { ...queryOf(url, stream, log), follow: true, signal }
  const name = tailShape(request, url)
  if (!goOn(asked, query) && startsNowhere(query))
    query.fromOffsets = await nextOffsets(log, query.stream)
  const seen = seenBefore(log, query)
  const shape = name === 'sse' ? eventsShape(seen) : shapeOf(name, query.stream)
  response.writeHead(200, {
    'content-type': shape.contentType,
    'cache-control': 'no-cache',
    'x-accel-buffering': 'no', // nginx would hold back what it takes for a download.
  })
  response.flushHeaders()
  response.write(name === 'cbor' ? positionOf(seen) : shape.head)
  const alive = { sse: () => ': alive\n\n', cbor: () => positionOf(seen) }[name as string]
  const stopBeating = alive ? beat(response, alive) : () => {}
  try {
    await serve(asked, query, shape, seen)
    response.end()
  } finally {
    stopBeating()
  }
}

/** A reader that comes back says the last id that it has seen. @returns whether this one has */
function goOn({ request, log }: Asked, query: Query): boolean {
  const last = parseSeen(String(request.headers['last-event-id'] ?? ''), log.partitions)
  if (last) query.fromOffsets = last.map((offset) => offset + 1)
  return last !== undefined
}

/** By partition the offset below the first that is wanted. */
function seenBefore({ partitions }: LogEngine, { fromOffset = 0, fromOffsets }: Query): number[] {
  return Array.from(
    { length: partitions },
    (_, partition) => (fromOffsets?.[partition] ?? fromOffset) - 1,
  )
}

function positionOf(seen: readonly number[]): Uint8Array {
  return encodePassage({ type: 'position', next: seen.map((offset) => offset + 1) })[0]!
}

/**
 * Writes what a query finds at the reader's pace. A reader that has stopped for a while holds no batch:
 * it is let go, and read again where the reader goes on.
 *
 * @param seen by partition the last offset that was given; kept up to date
 */
async function serve(
  { log, response, logger, patienceMs }: Asked,
  query: Query,
  shape: Shape,
  seen: number[],
): Promise<void> {
  do {
    let hasStopped = false
    const fromOffsets = seen.map((offset) => offset + 1)
    for await (const { chunk, partition, last, damage } of shape.read(log, {
      ...query,
      fromOffsets,
    })) {
      if (damage) logger.error(damage, 'offsets that the disk has lost')
      if (chunk.length > 0) response.write(chunk)
      seen[partition] = last
      hasStopped = !(await drained(response, patienceMs))
      if (hasStopped) break
      if (response.destroyed) return
      await nextTurn()
    }
    if (!hasStopped) return
    await drained(response)
  } while (!response.destroyed)
}

/** Lets everybody else go first: a fast reader must not keep the process from taking batches. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function queryOf(url: URL, stream: string, { partitions }: LogEngine): Query {
  const known = ['from', 'to', 'partition', 'device', 'metric', 'format']
  for (const name of url.searchParams.keys())
    if (!known.includes(name))
      throw new QueryProblem(`unknown parameter "${name}": there are ${known.join(', ')}`)
  const of = (name: string) => url.searchParams.get(name) ?? undefined
  const query = parseQuery({
    stream: decode(stream),
    from: of('from'),
    to: of('to'),
    partition: of('partition'),
    device: of('device'),
    metric: of('metric'),
  })
  checkPartitions(query, partitions)
  return query
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    throw new QueryProblem(`"${part}" is not percent-encoded as it should be`)
  }
}

function tailShape(request: IncomingMessage, url: URL): Exclude<ShapeName, 'parquet'> | 'sse' {
  const named = url.searchParams.get('format')
  if (named === 'parquet')
    throw new QueryProblem('a tail does not end, which a Parquet file has to: ask for records')
  if (named) return parseShape(named) as Exclude<ShapeName, 'parquet'>
  return request.headers.accept?.includes('ndjson') ? 'ndjson' : 'sse'
}

/** Aborts when the reader goes away or the service stops. */
export function endOf(response: ServerResponse, stopping?: AbortSignal): AbortSignal {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  return stopping ? AbortSignal.any([gone.signal, stopping]) : gone.signal
}

/** Something now and then while the reader keeps up. */
function beat(response: ServerResponse, alive: () => string | Uint8Array): () => void {
  let cancel = () => {}
  const schedule = () => {
    cancel = systemClock.timer(keepAliveMs, () => {
      if (response.destroyed) return
      if (!response.writableNeedDrain) response.write(alive())
      schedule()
    })
  }
  schedule()
  return () => cancel()
}

/** @param seen by partition the last offset given, before the next part */
function eventsShape(seen: readonly number[]): Shape {
  return {
    contentType: 'text/event-stream; charset=utf-8',
    head: '',
    async *read(log, query) {
      for await (const piece of readRecords(log, query))
        yield { chunk: formatEvents(piece, seen), ...placeOf(piece) }
    },
    end: () => '',
  }
}

/**
 * The id of an event is the offset, of each partition the last that was given: a reader that comes back
 * says the last id that it has seen.
 */
function formatEvents(piece: Piece, seen: readonly number[]): string {
  const at = seen.slice()
  if (piece.type === 'damage') {
    const { partition, first, last } = piece
    at[partition] = last
    return `event: damaged\nid: ${formatSeen(at)}\ndata: ${JSON.stringify({ first, last })}\n\n`
  }
  const lines = piece.records.map((record) => {
    at[record.partition] = record.offset
    return `id: ${formatSeen(at)}\ndata: ${formatRecords([record], 'ndjson')}\n`
  })
  return lines.join('')
}

/** What every stream holds, in the words of `headgate up --json`. */
export function describe(statistics: Statistics): Record<string, object> {
  return Object.fromEntries(
    Object.entries(statistics).map(([stream, { records: readings, fromMs, toMs, ...rest }]) => [
      stream,
      {
        readings,
        ...rest,
        from: fromMs === undefined ? undefined : formatTime(fromMs),
        to: toMs === undefined ? undefined : formatTime(toMs),
      },
    ]),
  )
}
