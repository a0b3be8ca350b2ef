import { z } from 'zod'
import { duration, size } from '../../shared/config.ts'
import { type Stream, streams } from '../../shared/reading.ts'
import { sinkKinds } from './kinds.ts'
import type { SinkKind } from './sink.ts'

const globs = z
  .union([z.string().min(1).max(256), z.array(z.string().min(1).max(256)).min(1).max(100)], {
    error: 'expected a name, or a list of names, where * stands for any characters',
  })
  .transform((given) => (typeof given === 'string' ? [given] : given))

const time = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d))?$/
const from = z.string().transform((given, context) => {
  if (given === 'beginning' || given === 'now') return given
  const ms = time.test(given) ? Date.parse(given) : Number.NaN
  if (!Number.isNaN(ms)) return ms
  context.addIssue({
    code: 'custom',
    message: `expected beginning, now, or a time such as 2026-01-31T08:00:00Z, not "${given}"`,
  })
  return z.NEVER
})

const kindNames = Object.keys(sinkKinds)

/** One of the outputs that the log is written to: what it is, under the name of its kind. */
const sinkSchema = z.strictObject({
  /** Its positions and its dead letter go by it: another name begins anew. */
  name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'expected letters, digits, - and _'),
  stream: z.enum(streams).default('readings'),
  /** Of readings and alerts only those of these devices and metrics. */
  match: z
    .strictObject({ device: globs.optional(), metric: globs.optional() })
    .refine(({ device, metric }) => device ?? metric, 'expected device or metric')
    .optional(),
  /** Where a new sink begins: with a time, records whose own time is before it are left out for good. */
  from: from.prefault('beginning'),
  /** Records that the output will never take are kept, up to this size, and then the oldest go. */
  deadLetter: size({ min: '64KiB', max: '64GiB' }).prefault('64MiB'),
  /** After the n-th failure in a row it waits a random time of up to min(max, base · 2^(n − 1)). */
  retry: z
    .strictObject({
      base: duration({ min: '10ms', max: '10m' }).prefault('1s'),
      max: duration({ min: '10ms', max: '1h' }).prefault('60s'),
    })
    .prefault({}),
  ...Object.fromEntries(
    Object.entries(sinkKinds).map(([name, { schema }]) => [name, schema.optional()]),
  ),
})
type Given = z.output<typeof sinkSchema> & Readonly<Record<string, unknown>>

export const sinksSchema = z.array(sinkSchema).max(64).default([])

/** A sink as it runs. */
export interface SinkConfig {
  name: string
  stream: Stream
  match: { device?: readonly string[] | undefined; metric?: readonly string[] | undefined }
  from: 'beginning' | 'now' | number
  deadLetter: number
  /** ms */
  retry: { base: number; max: number }
  kindName: string
  kind: SinkKind
  /** As the kind's schema gives them. */
  options: unknown
}

export function sinkConfigs(given: z.output<typeof sinksSchema>): SinkConfig[] {
  return (given as readonly Given[]).map((sink) => {
    const { name, stream, match = {}, from, deadLetter, retry } = sink
    const kindName = kindNames.find((each) => sink[each] !== undefined)!
    const options = sink[kindName]
    const kind = sinkKinds[kindName]!
    return { name, stream, match, from, deadLetter, retry, kindName, kind, options }
  })
}

/** What is wrong with sinks beyond each one's schema: where, below `sinks`, and what. */
export function sinkProblems(
  given: z.output<typeof sinksSchema>,
): { path: (string | number)[]; message: string }[] {
  const problems: { path: (string | number)[]; message: string }[] = []
  const names = new Set<string>()
  for (const [index, sink] of (given as readonly Given[]).entries()) {
    const complain = (message: string, ...path: string[]) =>
      problems.push({ path: [index, ...path], message })
    if (sink.retry.base > sink.retry.max) complain('is more than max', 'retry', 'base')
    if (names.has(sink.name)) complain(`"${sink.name}" is there twice`, 'name')
    names.add(sink.name)
    if (sink.match && sink.stream !== 'readings' && sink.stream !== 'alerts')
      complain(`records of ${sink.stream} have no device and no metric to choose by`, 'match')
    const kinds = kindNames.filter((name) => sink[name] !== undefined)
    const [kindName] = kinds
    if (kindName === undefined || kinds.length > 1) {
      complain(`takes one of ${kindNames.join(', ')}`)
      continue
    }
    const kind = sinkKinds[kindName]!
    const problem = kind.problem?.(sink[kindName], sink.stream)
    if (problem) complain(problem, kindName)
  }
  return problems
}
