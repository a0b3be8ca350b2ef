import { streams } from '../shared/reading.ts'
import type { CompletenessQuestion } from './fanout/completeness.ts'
import { hasSeries, type Query } from './fanout/fanout.ts'
import { type ShapeName, shapes } from './fanout/shape.ts'

/** What a reader asks for, as text: on the command line, or in a request's address. */
export interface QueryText {
  stream: string
  from?: string | undefined
  to?: string | undefined
  partition?: string | undefined
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
  if (text.partition !== undefined && !/^\d{1,4}$/.test(text.partition))
    throw new QueryProblem(`partition takes a number, not "${text.partition}"`)
  if (!hasSeries(stream) && (device !== undefined || metric !== undefined))
    throw new QueryProblem(`records of ${stream} have no device and no metric to choose by`)
  return {
    stream,
    partition: text.partition === undefined ? undefined : Number(text.partition),
    fromOffset: from.offset,
    fromOffsets: from.offsets,
    toOffset: to.offset,
    fromMs: from.timeMs,
    toMs: to.timeMs,
    device,
    metric,
  }
}

/** Which device's readings of which time somebody wants to have whole. */
export interface CompletenessText {
  device?: string | undefined
  from?: string | undefined
  to?: string | undefined
  agent?: string | undefined
}

/** @throws QueryProblem */
export function parseCompleteness(text: CompletenessText): CompletenessQuestion {
  const { device, agent } = text
  if (!device) throw new QueryProblem('name the device')
  const time = (name: 'from' | 'to') => {
    const value = text[name]
    if (value === undefined) throw new QueryProblem(`name the time: ${name} is missing`)
    const { timeMs } = parsePosition(name, value)
    if (timeMs === undefined)
      throw new QueryProblem(`${name} takes a time such as 2026-01-31T08:00:00Z, not "${value}"`)
    return timeMs
  }
  const fromMs = time('from')
  const toMs = time('to')
  if (toMs <= fromMs) throw new QueryProblem('to must lie behind from')
  return { device, fromMs, toMs, agent }
}

/** What a tail's events have as their id: of each partition the last offset given, or −1. */
export function formatSeen(offsets: readonly number[]): string {
  return offsets.join(',')
}

/** @returns undefined when it is no such id, or one of another number of partitions */
export function parseSeen(text: string, partitions: number): number[] | undefined {
  if (!/^(-1|\d{1,16})(,(-1|\d{1,16}))*$/.test(text)) return undefined
  const offsets = text.split(',').map(Number)
  return offsets.length === partitions ? offsets : undefined
}

/**
 * @throws QueryProblem when a query asks of a partition that is not there, or names an offset without
 *   saying of which
 */
export function checkPartitions({ partition, ...query }: Query, partitions: number): void {
  if (partition !== undefined && partition >= partitions)
    throw new QueryProblem(`no partition ${partition}: there are ${partitions}, from 0`)
  if (partitions === 1 || partition !== undefined) return
  if (query.fromOffset !== undefined || query.toOffset !== undefined)
    throw new QueryProblem(`of ${partitions} partitions name the one that the offset is of`)
  if (query.fromOffsets && query.fromOffsets.length !== partitions)
    throw new QueryProblem(`from takes ${partitions} offsets, one a partition`)
}

/** An offset, one for each partition, or a time in ISO 8601, in UTC where it names no zone. */
function parsePosition(
  name: string,
  text: string,
): { offset?: number; offsets?: number[]; timeMs?: number } {
  if (/^\d{1,16}$/.test(text)) return { offset: Number(text) }
  if (name === 'from' && /^\d{1,16}(,\d{1,16})+$/.test(text))
    return { offsets: text.split(',').map(Number) }
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
export function parseShape(text: string): ShapeName {
  const shape = shapes.find((name) => name === text)
  if (!shape) throw new QueryProblem(`no format "${text}": it is one of ${shapes.join(', ')}`)
  return shape
}
