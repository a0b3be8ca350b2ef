import { z } from 'zod'
import { text } from '../../shared/config.ts'
import { nameProblem } from './name.ts'
import { pointerProblem } from './pointer.ts'
import { timeUnits } from './time.ts'
import { templateNames, templateProblem } from './topic.ts'

/** Most values that a rule names, and that a message may have where a rule takes all. */
export const maxValues = 1_000

const name = text(nameProblem)
const pointer = text(pointerProblem)
const labels = z
  .record(
    text((label) =>
      /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/.test(label)
        ? undefined
        : 'expected a letter or _, then letters, digits, _, . or -, 64 at most',
    ),
    z.union([z.string(), z.number(), z.boolean()]).transform(String).pipe(name),
  )
  .refine((given) => Object.keys(given).length <= 16, 'at most 16 labels')

const ownValue = { unit: name.optional(), labels: labels.optional() }
const namedValue = z.strictObject({ metric: name, value: pointer, ...ownValue })

/** `{ temp: /temp }` or `{ temp: { value: /temp, unit: Cel } }`. */
const valueMap = z
  .record(
    name,
    z.union([
      pointer.transform((value) => ({ value })),
      z.strictObject({ value: pointer, ...ownValue }),
    ]),
  )
  .transform((given) => Object.entries(given).map(([metric, value]) => ({ metric, ...value })))

const valueList = z.array(namedValue).superRefine((given, context) => {
  const seen = new Set<string>()
  for (const [index, { metric }] of given.entries()) {
    if (seen.has(metric))
      context.addIssue({ code: 'custom', path: [index, 'metric'], message: 'named twice' })
    seen.add(metric)
  }
})

/** How the messages of some topics become readings. The first rule whose topic matches decides. */
const ruleSchema = z
  .strictObject({
    /** `sensors/{device}/{metric}`; see `TopicTemplate`. */
    topic: text(templateProblem),
    format: z.enum(['json']).default('json'),
    /** Where the topic does not name it; the agent's name where nothing does. */
    device: name.optional(),
    /** Where the topic does not name it; `value` where nothing does. */
    metric: name.optional(),
    unit: name.optional(),
    labels: labels.optional(),
    /** JSON Pointer of a message's one value; `/v` where there are no `values`. */
    value: pointer.optional(),
    /** Every scalar is a value, or these are; at most 1,000. */
    values: z
      .union([z.literal('all'), valueList, valueMap])
      .refine(
        (given) => given === 'all' || (given.length >= 1 && given.length <= maxValues),
        `names 1 to ${maxValues} values`,
      )
      .optional(),
    /** JSON Pointer, or `none`: arrival time is the reading's. */
    time: text((given) => (given === 'none' ? undefined : pointerProblem(given))).default('/t'),
    /** How the time is written; ISO 8601 or milliseconds by default. */
    timeUnit: z.enum(timeUnits).optional(),
  })
  .superRefine((rule, context) => {
    const complain = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: path.split('/'), message })
    if (rule.value !== undefined && rule.values !== undefined)
      complain('value', 'either value or values')
    const names = templateNames(rule.topic)
    for (const key of ['device', 'metric'] as const)
      if (rule[key] !== undefined && names.includes(key))
        complain(key, `the topic names the ${key} already`)
    for (const label of Object.keys(rule.labels ?? {}))
      if (names.includes(label)) complain(`labels/${label}`, 'the topic gives this label already')
  })

export const decodeSchema = z.array(ruleSchema).min(1).max(1_000)
export type DecodeRule = z.output<typeof ruleSchema>
export type DecodeConfig = readonly DecodeRule[]
