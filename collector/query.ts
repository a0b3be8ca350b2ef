import { streams } from '../shared/reading.ts'
import { hasSeries, type Query } from './fanout/fanout.ts'
import { type Format, formats } from './fanout/format.ts'

/** What a reader asks for, as text: on the command line, or in a request's address. */
export interface QueryText {
  stream: string
  from?: string | undefined
  to?: string | undefined
  device?: string | undefined
  metric?: string | undefined
}

/** A question that cannot be answered; the message says what to change. */
export class QueryProblem extends Error {}

/** @throws QueryProblem */
export function parseQuery(text: QueryText): Query {
  const stream = streams.find((name) => name === text.stream)
  if (!stream)
    throw new QueryProblem(`no stream "${text.stream}": it is one of ${streams.join(', ')}`)
  const from = text.from === undefined ? {} : parsePosition('from', text.from)
  const to = text.to === undefined ? {} : parsePosition('to', text.to)
  const { device, metric } = text
  if (!hasSeries(stream) && (device !== undefined || metric !== undefined))
    throw new QueryProblem(`records of ${stream} have no device and no metric to choose by`)
  return {
    stream,
    fromOffset: from.offset,
    toOffset: to.offset,
    fromMs: from.timeMs,
    toMs: to.timeMs,
    device,
    metric,
  }
}

/** An offset, or a time in ISO 8601, in UTC where it names no zone. */
function parsePosition(name: string, text: string): { offset?: number; timeMs?: number } {
  if (/^\d{1,15}$/.test(text)) return { offset: Number(text) }
  const match = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/i.exec(
    text,
  )
  const timeMs = match
    ? Date.parse(text.length > 10 && !match[1] ? `${text.replace(' ', 'T')}Z` : text)
    : Number.NaN
  if (Number.isNaN(timeMs))
    throw new QueryProblem(
      `${name} takes an offset or a time such as 2026-01-31T08:00:00Z, not "${text}"`,
    )
  return { timeMs }
}

/** @throws QueryProblem */
export function parseFormat(text: string): Format {
  const format = formats.find((name) => name === text)
  if (!format) throw new QueryProblem(`no format "${text}": it is one of ${formats.join(', ')}`)
  return format
}
