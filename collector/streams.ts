import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '../shared/log.ts'
import { systemClock } from '../shared/system.ts'
import { formatTime } from '../shared/time-text.ts'
import { type Piece, type Query, readRecords } from './fanout/fanout.ts'
import { type Format, formatRecords, headerLine } from './fanout/format.ts'
import { drained, send } from './http.ts'
import { json } from './ingest/ingest.ts'
import type { LogEngine, Statistics } from './log/engine.ts'
import { parseFormat, parseQuery, QueryProblem } from './query.ts'

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
  answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean>
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
    async answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> {
      if (url.pathname === '/v1/streams') {
        send(response, json(200, describe(await log.statistics())))
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

async function head({ response, url, stream }: Asked): Promise<void> {
  queryOf(url, stream)
  response.writeHead(200).end()
}

async function records(asked: Asked): Promise<void> {
  const { response, url, stream, signal } = asked
  const query = { ...queryOf(url, stream), signal }
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
  const query = { ...queryOf(url, stream), follow: true, signal }
  const format = tailFormat(request, url)
  const last = request.headers['last-event-id']
  const { next } = (await log.statistics())[query.stream]
  if (typeof last === 'string' && /^\d{1,15}$/.test(last)) query.fromOffset = Number(last) + 1
  else if (query.fromOffset === undefined && query.fromMs === undefined) query.fromOffset = next
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
  let from = query.fromOffset
  do {
    let next: number | undefined
    for await (const piece of readRecords(log, { ...query, fromOffset: from })) {
      if (piece.type === 'damage') logger.error(piece, 'offsets that the disk has lost')
      response.write(format === 'sse' ? formatEvents(piece) : formatPiece(piece, format))
      if (!(await drained(response, patienceMs))) {
        next = lastOf(piece) + 1
        break
      }
      if (response.destroyed) return
      await nextTurn()
    }
    if (next === undefined) return
    from = next
    await drained(response)
  } while (!response.destroyed)
}

/** Last offset of a piece. */
function lastOf(piece: Piece): number {
  return piece.type === 'damage' ? piece.last : piece.records.at(-1)!.offset
}

/** Lets everybody else go first: a fast reader must not keep the process from taking batches. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function queryOf(url: URL, stream: string): Query {
  const known = ['from', 'to', 'device', 'metric', 'format']
  for (const name of url.searchParams.keys())
    if (!known.includes(name))
      throw new QueryProblem(`unknown parameter "${name}": there are ${known.join(', ')}`)
  const of = (name: string) => url.searchParams.get(name) ?? undefined
  return parseQuery({
    stream: decode(stream),
    from: of('from'),
    to: of('to'),
    device: of('device'),
    metric: of('metric'),
  })
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
function endOf(response: ServerResponse, stopping: AbortSignal): AbortSignal {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  return AbortSignal.any([gone.signal, stopping])
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

/** The id of an event is the offset: a reader that comes back says the last that it has seen. */
function formatEvents(piece: Piece): string {
  if (piece.type === 'damage') {
    const { first, last } = piece
    return `event: damaged\nid: ${last}\ndata: ${JSON.stringify({ first, last })}\n\n`
  }
  const lines = piece.records.map(
    (record) => `id: ${record.offset}\ndata: ${formatRecords([record], 'ndjson')}\n`,
  )
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
