import { itemCount, type NumberedReading, PassageReader, readingsOf } from './batch.ts'
import { ClientFailure } from './client/failure.ts'
import { type HttpLinkOptions, httpLink } from './client/http.ts'
import {
  behind,
  decoded,
  type Lost,
  type StreamBatch,
  type StreamPassage,
} from './client/stream.ts'
import { sleep } from './clock.ts'
import type { Clock, Random } from './ports.ts'
import type { Stream } from './reading.ts'
import { systemClock, systemRandom } from './system.ts'
import { formatTime } from './time-text.ts'

export { ClientFailure, type ClientFailureCode, clientFailures } from './client/failure.ts'
export { type ConsumerOptions, GroupConsumer } from './client/group.ts'
export type { Lost, StreamBatch, StreamPassage } from './client/stream.ts'

/** Sends one request to a collector. */
export interface ClientLink {
  /** Rejects when there is no answer; its body throws when it is cut short. */
  ask(request: ClientRequest, signal?: AbortSignal): Promise<ClientAnswer>
}
export interface ClientRequest {
  method: 'GET' | 'POST'
  path: string
  headers: Record<string, string>
  body?: string
}
export interface ClientAnswer {
  status: number
  body: AsyncIterable<Uint8Array>
}

export type ClientOptions = HttpLinkOptions & {
  clock?: Clock
  random?: Random
  /** Told before something is tried again. */
  onRetry?: (why: string, delayMs: number) => void
  /** How long a request that ends is tried again for, ms; one minute by default. A tail is for ever. */
  patienceMs?: number
}

/** Which batches are wanted. */
export interface ClientQuery {
  stream: Stream
  /** Only of this partition; otherwise of all. */
  partition?: number | undefined
  /** An offset of the partition, or of each of them; or a time, ms. */
  from?: { offset: number } | { offsets: readonly number[] } | { timeMs: number } | undefined
  to?: { offset: number } | { timeMs: number } | undefined
  device?: string | undefined
  metric?: string | undefined
  /** At the end, wait for more; without `from` only what is new. */
  follow?: boolean
  signal?: AbortSignal | undefined
}

/** A reading, with where it stands in the log. */
export interface StreamReading extends NumberedReading {
  partition: number
  offset: number
  agent: string
  /** Hex. */
  incarnation: string
  arrivedMs: number
}

/** A tail that says nothing for so long has lost its connection: it is told of its position far more often. */
const silenceMs = 60_000
const retry = { baseMs: 500, maxMs: 30_000 }
const maxAnswerBytes = 2 ** 20

/**
 * Reads a collector's log. What is lost on the way is asked for again from where it was lost, so a loop over
 * batches goes on over restarts of the collector, and gets each batch once.
 */
export class LogClient {
  readonly #link: ClientLink
  readonly #options: ClientOptions
  readonly #clock: Clock
  readonly #random: Random

  constructor(options: ClientOptions, link: ClientLink = httpLink(options)) {
    this.#options = options
    this.#link = link
    this.#clock = options.clock ?? systemClock
    this.#random = options.random ?? systemRandom
  }

  /** Partitions of the log. @throws ClientFailure */
  async partitions(): Promise<number> {
    const { partitions } = (await this.json('/v1/log')) as { partitions: number }
    return partitions
  }

  /**
   * Batches in the order of the log, within each partition.
   *
   * @throws ClientFailure when the first request fails, when one is refused, or for good
   */
  async *batches(query: ClientQuery): AsyncGenerator<StreamBatch | Lost> {
    yield* decoded(this.passages(query))
  }

  /** Readings that fit the query exactly; of offsets that are lost nothing is said. @throws ClientFailure */
  async *readings(query: Omit<ClientQuery, 'stream'>): AsyncGenerator<StreamReading> {
    for await (const batch of this.batches({ ...query, stream: 'readings' }))
      if (batch.type === 'batch') yield* wantedReadings(batch, query)
  }

  /** As `batches`, not inflated. */
  async *passages(query: ClientQuery): AsyncGenerator<StreamPassage> {
    const { signal } = query
    const state: { next: number[] | undefined; progress: boolean } = {
      next: undefined,
      progress: false,
    }
    let attempt = 0
    let failingSinceMs = this.#clock.monotonicMs()
    for (;;) {
      state.progress = false
      try {
        yield* this.#stretch(query, state)
        // A tail ends when the collector stops.
        if (!query.follow || query.to || signal?.aborted) return
        throw new ClientFailure('CLIENT_UNREACHABLE', 'the collector has ended the tail')
      } catch (error) {
        if (signal?.aborted) return
        const failure = asFailure(error)
        // Until there was a first answer it is the caller who has to know.
        if (!failure.retry || !state.next) throw failure
        const nowMs = this.#clock.monotonicMs()
        if (state.progress) {
          attempt = 0
          failingSinceMs = nowMs
        }
        const patienceMs = query.follow ? Infinity : (this.#options.patienceMs ?? 60_000)
        if (nowMs - failingSinceMs > patienceMs) throw failure
        await this.#backOff(failure, attempt++, signal)
        if (signal?.aborted) return
      }
    }
  }

  /** One request, as far as it gets. */
  async *#stretch(
    query: ClientQuery,
    state: { next: number[] | undefined; progress: boolean },
  ): AsyncGenerator<StreamPassage> {
    const ended = new AbortController()
    const end = () => ended.abort(query.signal?.reason)
    // Combined by hand: what `AbortSignal.any` combines, a signal that lives long keeps for ever.
    query.signal?.addEventListener('abort', end)
    if (query.signal?.aborted) end()
    let cancel = () => {}
    const heard = () => {
      cancel()
      if (query.follow)
        cancel = this.#clock.timer(silenceMs, () => ended.abort(new Error('nothing was heard')))
    }
    try {
      heard()
      const headers: Record<string, string> = state.next
        ? { 'last-event-id': state.next.map((next) => next - 1).join(',') }
        : {}
      const answer = await this.#ask({ method: 'GET', path: pathOf(query), headers }, ended.signal)
      const reader = new PassageReader()
      for await (const chunk of answer.body) {
        heard()
        for (const passage of reader.take(chunk)) {
          state.progress = true
          if (passage.type === 'position') {
            state.next = passage.next
            continue
          }
          if (!state.next)
            throw new ClientFailure('CLIENT_FOREIGN', 'it does not say where it begins')
          yield passage
          // Once it is taken: what is being worked on when this ends is not asked for again by this loop.
          state.next[passage.partition] = behind(passage)
        }
      }
      if (reader.restBytes > 0) throw new Error('it ends in the middle')
    } finally {
      cancel()
      query.signal?.removeEventListener('abort', end)
      ended.abort()
    }
  }

  /** A JSON answer to GET. @throws ClientFailure */
  async json(path: string, signal?: AbortSignal): Promise<unknown> {
    return readJson(await this.#ask({ method: 'GET', path, headers: {} }, signal))
  }

  /** An answer of any kind, as it comes; once it is being read it is not asked for again. @throws ClientFailure */
  async bytes(path: string, signal?: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    return (await this.#ask({ method: 'GET', path, headers: {} }, signal)).body
  }

  /** A JSON answer to a POST of JSON. @throws ClientFailure */
  async post(path: string, document: object, signal?: AbortSignal): Promise<unknown> {
    const headers = { 'content-type': 'application/json' }
    const body = JSON.stringify(document)
    return readJson(await this.#ask({ method: 'POST', path, headers, body }, signal))
  }

  /** Does it again while it fails for now, until it succeeds or the signal aborts. */
  async persist<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work()
      } catch (error) {
        const failure = asFailure(error)
        if (!failure.retry || signal?.aborted) throw failure
        await this.#backOff(failure, attempt, signal)
      }
    }
  }

  async #ask(request: ClientRequest, signal: AbortSignal | undefined): Promise<ClientAnswer> {
    const answer = await this.#link.ask(request, signal).catch((cause: unknown) => {
      throw new ClientFailure('CLIENT_UNREACHABLE', explain(cause), { cause })
    })
    const { status } = answer
    if (status === 200) return answer
    const text = await readText(answer)
    const isBusy = status === 429 || status >= 500
    const said = parse(text)
    const code = isBusy && status !== 501 ? 'CLIENT_BUSY' : 'CLIENT_REFUSED'
    throw new ClientFailure(code, `${status} ${text.trim()}`, {
      status,
      ...(said && { answer: said }),
    })
  }

  async #backOff(failure: ClientFailure, attempt: number, signal?: AbortSignal): Promise<void> {
    const mostMs = Math.min(retry.maxMs, retry.baseMs * 2 ** Math.min(attempt, 16))
    const delayMs = Math.round(this.#random.uniform() * mostMs)
    this.#options.onRetry?.(failure.message, delayMs)
    await sleep(this.#clock, delayMs, signal).catch(() => {})
  }
}

function pathOf({ stream, partition, from, to, device, metric, follow }: ClientQuery): string {
  const parameters = new URLSearchParams({ format: 'cbor' })
  const set = (name: string, value: string | undefined) =>
    value !== undefined && parameters.set(name, value)
  set('partition', partition?.toString())
  set('from', from && positionText(from))
  set('to', to && positionText(to))
  set('device', device)
  set('metric', metric)
  return `/v1/streams/${stream}/${follow ? 'tail' : 'records'}?${parameters}`
}

function positionText(
  position: { offset: number } | { offsets: readonly number[] } | { timeMs: number },
): string {
  if ('offset' in position) return String(position.offset)
  return 'offsets' in position ? position.offsets.join(',') : formatTime(position.timeMs)
}

function* wantedReadings(
  batch: StreamBatch,
  { from, to, device, metric }: Omit<ClientQuery, 'stream'>,
): Generator<StreamReading> {
  const { header, items, partition, arrivedMs } = batch
  const fromMs = from && 'timeMs' in from ? from.timeMs : -Infinity
  const toMs = to && 'timeMs' in to ? to.timeMs : Infinity
  const firstOffset = from && 'offset' in from ? from.offset : 0
  const first = from && 'offsets' in from ? (from.offsets[partition] ?? 0) : firstOffset
  const end = to && 'offset' in to ? to.offset : Infinity
  const place = {
    partition,
    arrivedMs,
    agent: header.agent,
    incarnation: Buffer.from(header.incarnation).toString('hex'),
  }
  let { offset } = batch
  let sequence = header.first
  for (const item of items) {
    const places = item.kind === 'gap' ? item.kept?.places : undefined
    for (const [i, reading] of readingsOf(item).entries()) {
      const { timeMs, series } = reading
      const isWanted =
        offset >= first &&
        offset < end &&
        timeMs >= fromMs &&
        timeMs < toMs &&
        (device === undefined || series.device === device) &&
        (metric === undefined || series.metric === metric)
      if (isWanted) yield { ...reading, ...place, offset, sequence: sequence + (places?.[i] ?? i) }
      offset += 1
    }
    sequence += itemCount(item)
  }
}

function asFailure(error: unknown): ClientFailure {
  if (error instanceof ClientFailure) return error
  // What does not decode came cut or garbled; what is garbled for good is found by the end of patience.
  return new ClientFailure('CLIENT_UNREACHABLE', explain(error), { cause: error })
}

function explain(error: unknown): string {
  const { code, message } = error as { code?: string; message?: string }
  if (code === 'ECONNREFUSED') return 'nobody listens there: is it running?'
  return message || code || String(error)
}

async function readText({ body }: ClientAnswer): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > maxAnswerBytes) throw new ClientFailure('CLIENT_FOREIGN', 'its answer has no end')
  }
  return Buffer.concat(chunks).toString('utf8')
}

async function readJson(answer: ClientAnswer): Promise<unknown> {
  const document = parse(await readText(answer))
  if (document === undefined) throw new ClientFailure('CLIENT_FOREIGN', 'its answer is no JSON')
  return document
}

function parse(text: string): object | undefined {
  try {
    const document: unknown = JSON.parse(text)
    return typeof document === 'object' && document !== null ? document : undefined
  } catch {
    return undefined
  }
}
