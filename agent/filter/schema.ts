import { z } from 'zod'
import { duration, parseDuration, text } from '../../shared/config.ts'
import { methods } from './detect/detection.ts'
import { aggregateNames, isAggregate, needsSketch } from './window/aggregate.ts'
import { maxOpen } from './window/windows.ts'

const pattern = z.string().min(1).max(1024)

const matchSchema = z.strictObject({
  /** Globs: `*` stands for any characters, `?` for one. */
  device: pattern.optional(),
  metric: pattern.optional(),
  /** Units as in SenML or UCUM, as decoded. */
  unit: pattern.optional(),
  labels: z.record(z.string(), pattern).optional(),
})

/** `5/s`, `0.1/m`, `10/h` to a change per millisecond; undefined when it is none. */
function parseRate(given: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*\/\s*(s|m|h)$/i.exec(given.trim())
  const unitMs = match && parseDuration(`1${match[2]!.toLowerCase()}`)
  return match && unitMs && Number(match[1]) > 0 ? Number(match[1]) / unitMs : undefined
}

/** `0.2` in the value's unit, or `0.5%` of the span seen. */
function parseError(given: string | number): { absolute: number } | { share: number } | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*%$/.exec(String(given).trim())
  if (match) {
    const share = Number(match[1]) / 100
    return share > 0 && share < 1 ? { share } : undefined
  }
  const absolute = typeof given === 'number' ? given : Number.NaN
  return absolute >= 0 && absolute < Infinity ? { absolute } : undefined
}

/** A text or number in a notation of its own. */
function notation<Output>(parse: (given: string | number) => Output | undefined, message: string) {
  return z.union([z.string(), z.number()], { error: message }).transform((given, context) => {
    const parsed = parse(given)
    if (parsed === undefined) context.addIssue({ code: 'custom', message })
    return parsed as Output
  })
}

const bound = z.number().nullable()

const checkSchema = z
  .strictObject({
    /** Least and most in the value's unit; `null` is no limit on that side. */
    range: z.tuple([bound, bound]).optional(),
    /** How far back inside the range a value must be; 2 % of the range by default. */
    hysteresis: z.number().min(0).optional(),
    rate: notation(
      (given) => parseRate(String(given)),
      'expected a rate such as 5/s, 30/m, 1/h',
    ).optional(),
    stuck: duration({ min: '1s', max: '30d' }).optional(),
    missing: duration({ min: '1s', max: '30d' }).optional(),
    /** How far a reading's time may lie ahead of the gateway's. */
    future: z.union([z.literal('off'), duration({ min: '0ms', max: '365d' })]).prefault('5m'),
    /** How far a reading's time may lie behind an earlier one's. */
    backwards: z.union([z.literal('off'), duration({ min: '0ms', max: '365d' })]).prefault('0ms'),
    /** A fault is over when it has stayed away for so long. */
    hold: duration({ min: '0ms', max: '1d' }).prefault('1m'),
    /** A fault that lasts is told again so often. */
    remind: duration({ min: '1m', max: '30d' }).prefault('1h'),
  })
  .superRefine(({ range, hysteresis }, context) => {
    const [least, most] = [range?.[0] ?? -Infinity, range?.[1] ?? Infinity]
    if (least >= most)
      context.addIssue({ code: 'custom', path: ['range'], message: 'expected [least, most]' })
    else if (hysteresis !== undefined && 2 * hysteresis >= most - least)
      context.addIssue({
        code: 'custom',
        path: ['hysteresis'],
        message: 'leaves nothing of the range',
      })
  })

/** Deviations that score 0.5, where the method counts in deviations. */
const limits = { surprise: 1, hampel: 6, ewma: 5 }

const detectSchema = z
  .strictObject({
    method: z.enum(methods).default('surprise'),
    /** Score from which on there is an alarm. */
    threshold: z.number().gt(0).max(1).default(0.5),
    /** Alarms of a series in a day, at most; the detector is made so that it seldom needs it. */
    alarmsPerDay: z.number().gt(0).max(86_400).default(10),
    /** Readings that `hampel` looks at. */
    window: z
      .int()
      .min(3)
      .max(501)
      .refine((given) => given % 2 === 1, 'must be odd')
      .default(31),
    /** Readings after which one counts half, for `ewma`. */
    halfLife: z.int().min(2).max(1_000_000).default(200),
    /** Deviations from the expected that score 0.5, for `hampel` (6) and `ewma` (5). */
    limit: z.number().gt(0).optional(),
  })
  .transform((given) => ({ ...given, limit: given.limit ?? limits[given.method] }))

const reduceSchema = z.strictObject({
  method: z.enum(['linear', 'deadband']).default('linear'),
  error: notation(
    parseError,
    'expected a distance in the unit of the value, such as 0.2, or a share of the span seen, such as 0.5%',
  ),
  heartbeat: duration({ min: '10ms', max: '30d' }).optional(),
  maxDelay: duration({ min: '10ms', max: '30d' }).optional(),
})

const windowSchema = z
  .strictObject({
    every: duration({ min: '10ms', max: '7d' }),
    /** As long as `every` by default; longer windows overlap. */
    size: duration({ min: '10ms', max: '7d' }).optional(),
    emit: z
      .array(text((name) => (isAggregate(name) ? undefined : `expected one of ${aggregateNames}`)))
      .min(1)
      .max(16)
      .refine((names) => new Set(names).size === names.length, 'named twice'),
    /** How far behind the device's newest reading one may come and still count. */
    lateness: duration({ min: '0ms', max: '7d' }).prefault('0ms'),
  })
  .superRefine(({ every, size = every, lateness, emit }, context) => {
    if (size % every !== 0)
      context.addIssue({ code: 'custom', path: ['size'], message: 'must be a multiple of every' })
    const most = needsSketch(emit) ? maxOpen / 10 : maxOpen
    if ((size + lateness) / every > most)
      context.addIssue({
        code: 'custom',
        path: ['every'],
        message: `too many windows at once: size and lateness may span ${most} of it`,
      })
  })

const ruleSchema = z
  .strictObject({
    match: matchSchema.prefault({}),
    check: checkSchema.optional(),
    detect: detectSchema.optional(),
    reduce: reduceSchema.optional(),
    /** Raw readings before and after an alarm. */
    around: z
      .strictObject({
        before: duration({ min: '0ms', max: '1h' }).prefault('0ms'),
        after: duration({ min: '0ms', max: '1h' }).prefault('0ms'),
      })
      .optional(),
    window: windowSchema.optional(),
    /** Series with a state of their own; further ones pass whole. */
    maxSeries: z.int().min(1).max(1_000_000).default(10_000),
  })
  .superRefine(({ check, detect, reduce, around, window }, context) => {
    const complain = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message })
    if (reduce && window) complain('window', 'either reduce or window')
    if (around && !reduce && !window)
      complain('around', 'does nothing: without reduce or window every reading passes')
    if (around && !check && !detect)
      complain('around', 'does nothing: no check or detect raises alarms')
  })

/** The `filter:` section: what to do with which series. The first rule that matches decides, the rest pass whole. */
export const filterSchema = z.array(ruleSchema).max(1000).default([])
export type FilterRule = z.output<typeof ruleSchema>
export type FilterConfig = z.output<typeof filterSchema>

/** The rule that `headgate filter try` uses without a configuration: the default detector alone. */
export const defaultRule: FilterRule = ruleSchema.parse({ detect: {} })
