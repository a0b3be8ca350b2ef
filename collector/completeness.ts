import type { IncomingMessage, ServerResponse } from 'node:http'
import { formatTime } from '../shared/time-text.ts'
import {
  type Completeness,
  type CompletenessQuestion,
  completeness,
  type KnownLog,
} from './fanout/completeness.ts'
import { send } from './http.ts'
import { json } from './ingest/ingest.ts'
import { parseCompleteness, QueryProblem } from './query.ts'
import { endOf } from './streams.ts'

/** Questions that wait for their turn; one is answered at a time, since each reads a part of the log. */
const maxWaiting = 16

/** Answers `GET /v1/completeness`. */
export class CompletenessService {
  readonly #log: KnownLog
  #waiting = 0
  #turn: Promise<unknown> = Promise.resolve()

  constructor(log: KnownLog) {
    this.#log = log
  }

  async answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> {
    if (url.pathname !== '/v1/completeness') return false
    let question: CompletenessQuestion
    try {
      question = questionOf(url)
    } catch (error) {
      if (!(error instanceof QueryProblem)) throw error
      send(response, json(400, { code: 'query', message: error.message }))
      return true
    }
    if (request.method === 'HEAD') {
      response.writeHead(200).end()
      return true
    }
    if (this.#waiting >= maxWaiting) {
      const message = 'too many questions wait already: come back'
      send(response, json(429, { code: 'busy', message }, { 'retry-after': '1' }))
      return true
    }
    this.#waiting += 1
    const signal = endOf(response)
    const answered = this.#turn.then(() => completeness(this.#log, { ...question, signal }))
    this.#turn = answered.catch(() => {})
    try {
      send(response, json(200, describeCompleteness(question, await answered)))
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      this.#waiting -= 1
    }
    return true
  }
}

function questionOf({ searchParams }: URL): CompletenessQuestion {
  const known = ['device', 'from', 'to', 'agent']
  for (const name of searchParams.keys())
    if (!known.includes(name))
      throw new QueryProblem(`unknown parameter "${name}": there are ${known.join(', ')}`)
  const of = (name: string) => searchParams.get(name) ?? undefined
  return parseCompleteness({
    device: of('device'),
    from: of('from'),
    to: of('to'),
    agent: of('agent'),
  })
}

/** As JSON: times are text, and what is not known is left out. */
export function describeCompleteness(
  { device, fromMs, toMs }: CompletenessQuestion,
  { state, asOfMs, readings, agents, missing, waiting }: Completeness,
) {
  return {
    device,
    from: formatTime(fromMs),
    to: formatTime(toMs),
    state,
    asOf: optionalTime(asOfMs),
    readings,
    agents,
    missing: missing.map(({ fromMs, toMs, ...rest }) => ({
      ...rest,
      from: optionalTime(fromMs),
      to: optionalTime(toMs),
    })),
    waiting: waiting.map(({ agent, reason, heardMs, settledMs }) => ({
      agent,
      reason,
      heard: optionalTime(heardMs),
      settled: optionalTime(settledMs),
    })),
  }
}
export type CompletenessAnswer = ReturnType<typeof describeCompleteness>

function optionalTime(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : formatTime(ms)
}
