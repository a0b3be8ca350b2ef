import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '../shared/log.ts'
import type { Stream } from '../shared/reading.ts'
import { systemClock } from '../shared/system.ts'
import { formatTime } from '../shared/time-text.ts'
import { anybody, type Caller } from './auth.ts'
import { nextOffsets, type Piece, type Query, readRecords, startsNowhere } from './fanout/fanout.ts'
import { type Format, formatRecords, headerLine } from './fanout/format.ts'
import { drained, send } from './http.ts'
import { json } from './ingest/ingest.ts'
import type { LogEngine, Statistics } from './log/engine.ts'
import {
  checkPartitions,
  formatSeen,
  parseFormat,
  parseQuery,
  parseSeen,
  QueryProblem,
} from './query.ts'

/** Says now and then that a tail is alive, so that proxies and readers keep it. */
const keepAliveMs = 15_000

const contentTypes: Record<Format | 'sse', string> = {
  ndjson: 'application/x-ndjson; charset=utf-8',
  csv: 'text/csv; charset=utf-8; header=present',
  sse: 'text/event-stream; charset=utf-8',
}

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
      if (url.pathname === '/v1/verify') {
        await verify(request, response)
        return true
      }
      const match = /^\/v1\/streams\/([^/]+)\/(records|tail)$/.exec(url.pathname)
      if (!match) return false
      const [, stream = '', kind] = match
      readers += 1
      try {
        const ask = request.method === 'HEAD' ? undefined : kind === 'tail' ? tail : records
        const signal = endOf(response, stopping.signal)
        await (ask ?? head)({ log, request, response, url, stream, signal, logger, patienceMs })
      } catch (error) {
        if (!(error instanceof QueryProblem)) throw error
        send(response, json(400, { code: 'query', message: error.message }))
      } finally {
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
  const format = parseFormat(url.searchParams.get('format') ?? 'ndjson')
  response.writeHead(200, { 'content-type': contentTypes[format] })
  response.write(headerLine(query.stream, format))
  await serve(asked, query, format)
  // Cut short by our stopping, it must not look complete.
  if (signal.aborted) response.destroy()
  else response.end()
}

async function tail(asked: Asked): Promise<void> {
  const { log, request, response, url, stream, signal } = asked
  const query: Query = { ...queryOf(url, stream, log), follow: true, signal }
  const format = tailFormat(request, url)
  const last = parseSeen(String(request.headers['last-event-id'] ?? ''), log.partitions)
  if (last) query.fromOffsets = last.map((offset) => offset + 1)
  else if (startsNowhere(query)) query.fromOffsets = await nextOffsets(log, query.stream)
  response.writeHead(200, {
    'content-type': contentTypes[format],
    'cache-control': 'no-cache',
    'x-accel-buffering': 'no', // nginx would hold back what it takes for a download.
  })
  response.flushHeaders()
  if (format === 'csv') response.write(headerLine(query.stream, format))
  const stopBeating = format === 'sse' ? beat(response) : () => {}
  try {
    await serve(asked, query, format)
    response.end()
  } finally {
    stopBeating()
  }
}

/**
 * Writes what a query finds at the reader's pace. A reader that has stopped for a while holds no batch:
 * it is let go, and read again where the reader goes on.
 */
async function serve(
  { log, response, logger, patienceMs }: Asked,
  query: Query,
  format: Format | 'sse',
): Promise<void> {
  // Below the first offset, where a partition has not given anything yet.
  const seen = Array.from(
    { length: log.partitions },
    (_, partition) => (query.fromOffsets?.[partition] ?? query.fromOffset ?? 0) - 1,
  )
  do {
    let hasStopped = false
    const fromOffsets = seen.map((offset) => offset + 1)
    for await (const piece of readRecords(log, { ...query, fromOffsets })) {
      if (piece.type === 'damage') logger.error(piece, 'offsets that the disk has lost')
      if (format === 'sse') response.write(formatEvents(piece, seen))
      else response.write(formatPiece(piece, format))
      const { partition, last } = endOfPiece(piece)
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

/** Where a piece ends: its partition and last offset. */
function endOfPiece(piece: Piece): { partition: number; last: number } {
  if (piece.type === 'damage') return piece
  const { partition, offset } = piece.records.at(-1)!
  return { partition, last: offset }
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

function tailFormat(request: IncomingMessage, url: URL): Format | 'sse' {
  const named = url.searchParams.get('format')
  if (named) return parseFormat(named)
  return request.headers.accept?.includes('ndjson') ? 'ndjson' : 'sse'
}

/** Aborts when the reader goes away or the service stops. */
export function endOf(response: ServerResponse, stopping?: AbortSignal): AbortSignal {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  return stopping ? AbortSignal.any([gone.signal, stopping]) : gone.signal
}

/** Comment lines while nothing else happens and the reader keeps up. */
function beat(response: ServerResponse): () => void {
  let cancel = () => {}
  const schedule = () => {
    cancel = systemClock.timer(keepAliveMs, () => {
      if (response.destroyed) return
      if (!response.writableNeedDrain) response.write(': alive\n\n')
      schedule()
    })
  }
  schedule()
  return () => cancel()
}

/** Damage is a line of its own where the format has room for it; in CSV the offsets show it. */
function formatPiece(piece: Piece, format: Format): string {
  if (piece.type === 'records') return formatRecords(piece.records, format)
  const { first, last } = piece
  return format === 'csv' ? '' : `${JSON.stringify({ damaged: { first, last } })}\n`
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
