import { type BatchHeader, type Encoding, encodings, WireFailure } from '../../shared/batch.ts'
import { BoundedMap } from '../../shared/bounded-map.ts'
import { chainToBytes } from '../../shared/chain.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, HttpAnswer } from '../../shared/ports.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import {
  type Alarm,
  type AppendAnswer,
  type Entry,
  type LogEngine,
  LogFailure,
  perStream,
} from '../log/engine.ts'
import { type EntryLimits, readEntry } from './entry.ts'

export interface IngestOptions extends EntryLimits {
  log: LogEngine
  clock: Clock
  logger: Logger
}

/** What ingest has done since the start, for the metrics. */
export interface IngestCounts {
  /** Batches by how they were answered. */
  answers: Record<AppendAnswer['code'] | 'malformed' | 'unavailable', number>
  alarms: Record<Alarm, number>
  /** Of accepted batches. */
  records: Record<Stream, number>
  bytes: number
}

/** Of a request, names in lower case. */
interface ContentHeaders {
  readonly 'content-type'?: string | undefined
  readonly 'content-encoding'?: string | undefined
}

const statusOf = { accepted: 200, duplicate: 200, hole: 409, fork: 409 } as const
const retryAfterDiskS = 5
/** The same alarm of the same agent is logged again only after this. */
const alarmQuietMs = 60_000

/** Takes batches: checks them whole, and answers with success only what the log has made durable. */
export class Ingest {
  readonly counts: IngestCounts = {
    answers: { accepted: 0, duplicate: 0, hole: 0, fork: 0, malformed: 0, unavailable: 0 },
    alarms: { clone: 0, restored: 0, unchained: 0 },
    records: perStream(() => 0),
    bytes: 0,
  }
  readonly #options: IngestOptions
  readonly #alarmed = new BoundedMap<string, { atMs: number }>(10_000)

  constructor(options: IngestOptions) {
    this.#options = options
  }

  /**
   * Answers `POST /v1/batches`; never throws for what the request holds or the disk does.
   *
   * @param sender the agent that sends, where that is known from more than the batch's own word
   */
  async take(headers: ContentHeaders, body: Uint8Array, sender?: string): Promise<HttpAnswer> {
    const refusal = refuseHeaders(headers)
    if (refusal) return this.#malformed(refusal)
    try {
      const arrivedMs = this.#options.clock.wallMs()
      const entry = readEntry(body, encodingOf(headers)!, { ...this.#options, arrivedMs })
      if (sender !== undefined && entry.header.agent !== sender)
        return this.#malformed(
          json(403, { code: 'agent', message: `the batch is not of ${sender}, who sends it` }),
        )
      const answer = await this.#options.log.append(entry)
      this.#count(entry, answer)
      return json(statusOf[answer.code], describe(answer))
    } catch (error) {
      if (error instanceof WireFailure) {
        const status = error.code === 'WIRE_TOO_LARGE' ? 413 : 400
        return this.#malformed(json(status, { code: error.code, message: oneLine(error.message) }))
      }
      if (!(error instanceof LogFailure)) throw error
      this.counts.answers.unavailable += 1
      return unavailable(error)
    }
  }

  #malformed(answer: HttpAnswer): HttpAnswer {
    this.counts.answers.malformed += 1
    return answer
  }

  #count({ header, feeds, body }: Entry, answer: AppendAnswer): void {
    this.counts.answers[answer.code] += 1
    const { agent, lane, first, last } = header
    const incarnation = hex(header.incarnation)
    const { logger } = this.#options
    if (answer.code === 'accepted') {
      for (const stream of streams) this.counts.records[stream] += feeds[stream].count
      this.counts.bytes += body.length
      for (const alarm of answer.alarms) {
        this.counts.alarms[alarm] += 1
        this.#alarm(header, alarm, alarmTexts[alarm])
      }
    } else if (answer.code === 'fork') this.#alarm(header, 'fork', 'two histories under one name')
    else if (answer.code === 'hole')
      this.#alarm(header, 'hole', `less is held (up to ${answer.held}) than the agent says`)
    logger.debug({ agent, incarnation, lane, first, last, code: answer.code }, 'batch')
  }

  #alarm({ agent, lane, incarnation }: BatchHeader, alarm: string, text: string): void {
    const nowMs = this.#options.clock.monotonicMs()
    const key = `${alarm} ${agent}`
    const last = this.#alarmed.get(key)
    if (last && nowMs - last.atMs < alarmQuietMs) return
    if (last) last.atMs = nowMs
    else this.#alarmed.set(key, { atMs: nowMs })
    this.#options.logger.warn({ alarm, agent, incarnation: hex(incarnation), lane }, text)
  }
}

const alarmTexts: Record<Alarm, string> = {
  clone: 'two incarnations of one agent send at the same time: does the gateway run twice?',
  restored: 'an agent went back to an older incarnation: was its disk put back from an image?',
  unchained: 'a known agent names no predecessor: was its data folder wiped?',
}

function refuseHeaders(headers: ContentHeaders): HttpAnswer | undefined {
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase()
  if (type !== 'application/cbor')
    return json(415, { code: 'type', message: 'send application/cbor' }, acceptable)
  if (encodingOf(headers) === undefined)
    return json(415, { code: 'encoding', message: `send ${encodings.join(', ')}` }, acceptable)
  return undefined
}

const acceptable = { 'accept-encoding': encodings.join(', '), accept: 'application/cbor' }

function encodingOf(headers: ContentHeaders): Encoding | undefined {
  const name = headers['content-encoding']?.trim().toLowerCase() || 'identity'
  return encodings.find((encoding) => encoding === name)
}

function describe(answer: AppendAnswer): object {
  const { code, held, chain } = answer
  const base = { code, held, chain: hex(chainToBytes(chain)) }
  return answer.code === 'hole'
    ? { ...base, incarnation: hex(answer.incarnation), lane: answer.lane }
    : base
}

/** The log cannot do it now: come back. */
export function unavailable({ code, message }: LogFailure): HttpAnswer {
  return json(503, { code, message: oneLine(message) }, { 'retry-after': String(retryAfterDiskS) })
}

/** An answer with a JSON document. */
export function json(
  status: number,
  document: object,
  headers: Record<string, string> = {},
): HttpAnswer {
  return {
    status,
    headers: { 'content-type': 'application/json', ...headers },
    body: new TextEncoder().encode(`${JSON.stringify(document)}\n`),
  }
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').slice(0, 500)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}
