import type { z } from 'zod'
import { keysAt } from './config-schema.ts'

export interface Problem {
  /** Path into the document, such as `uplink.retry.base`; empty for the document itself. */
  path: string
  message: string
}

/** A schema's issues in a user's words. Parse with `{ error: words }` so that they are found. */
export function describe(issues: readonly z.core.$ZodIssue[], schema: z.ZodType): Problem[] {
  return issues.flatMap((issue) => problemsOf(issue, [])).map((found) => toProblem(found, schema))
}

/** What zod says of one issue, in plain words; undefined leaves a message that a schema has set. */
export function words(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return `${missing(issue.input)}expected ${noun(issue.expected)}${instead(issue.input, issue.expected)}`
    case 'invalid_value':
      return `${missing(issue.input)}expected ${issue.values.map(String).join(' or ')}${instead(issue.input)}`
    case 'too_small':
      return `${amount(issue.origin)} at least ${issue.inclusive ? '' : 'more than '}${issue.minimum}${counted(issue.origin, issue.minimum)}`
    case 'too_big':
      return `${amount(issue.origin)} at most ${issue.inclusive ? '' : 'less than '}${issue.maximum}${counted(issue.origin, issue.maximum)}`
    case 'invalid_format':
      return issue.format === 'regex'
        ? `does not match ${issue.pattern}`
        : `expected ${issue.format}`
    default:
      return undefined
  }
}

/** The `error` of a schema that takes several kinds: `expected a size such as 10MiB`. */
export function expecting(what: string) {
  return (issue: { input?: unknown }) =>
    `${missing(issue.input)}expected ${what}${instead(issue.input)}`
}

const nouns: Record<string, string> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping',
  record: 'a mapping',
}

function noun(expected: string): string {
  return nouns[expected] ?? expected
}

function missing(input: unknown): string {
  return input === undefined ? 'missing: ' : input === null ? 'empty: ' : ''
}

/** Names what is there by its kind only: it may be a secret. */
function instead(input: unknown, expected?: string): string {
  if (input === undefined || input === null) return ''
  const kind = Array.isArray(input) ? 'array' : typeof input
  if (expected === 'int' && kind === 'number') return ''
  const quote = expected === 'string' && (kind === 'number' || kind === 'boolean')
  return `, not ${noun(kind)}${quote ? ' (put it in quotes)' : ''}`
}

function amount(origin: string): string {
  return origin === 'number' || origin === 'int' || origin === 'bigint' ? 'must be' : 'needs'
}

function counted(origin: string, count: number | bigint): string {
  const one = Number(count) === 1
  if (origin === 'string') return one ? ' character' : ' characters'
  if (origin === 'number' || origin === 'int' || origin === 'bigint') return ''
  return one ? ' item' : ' items'
}

interface Found {
  path: PropertyKey[]
  message: string
  /** What is there is of another kind altogether, so that a union's other branches may be meant. */
  otherKind: boolean
  /** A key that nothing is known of. */
  unknownKey?: string
}

function problemsOf(issue: z.core.$ZodIssue, before: readonly PropertyKey[]): Found[] {
  const path = [...before, ...issue.path]
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({
      path: [...path, key],
      message: 'unknown key',
      otherKind: false,
      unknownKey: key,
    }))
  if (issue.code === 'invalid_key')
    return issue.issues.map(({ message }) => ({
      path,
      message: `its name ${message}`,
      otherKind: false,
    }))
  if (issue.code === 'invalid_union' && issue.message === 'Invalid input')
    return nearest(
      issue.errors.map((branch) => branch.flatMap((inner) => problemsOf(inner, path))),
      path,
    )
  const otherKind = issue.code === 'invalid_type' || issue.code === 'invalid_value'
  return [{ path, message: issue.message, otherKind }]
}

/** The branch of a union that was meant: of the right kind, with the fewest problems; or all of them. */
function nearest(branches: Found[][], path: PropertyKey[]): Found[] {
  const kin = branches.filter(
    (branch) => !branch.some((found) => found.otherKind && found.path.length === path.length),
  )
  const [best] = kin.sort((a, b) => a.length - b.length)
  if (best) return best
  const expectations = branches.flatMap(([first]) => (first ? [first.message] : []))
  const wanted = expectations.map((text) =>
    text.replace(/^.*?expected /, '').replace(/, not .*$/, ''),
  )
  const rest = /, not .*$/.exec(expectations[0] ?? '')?.[0] ?? ''
  const lead = /^(?:missing|empty): /.exec(expectations[0] ?? '')?.[0] ?? ''
  return [
    {
      path,
      message: `${lead}expected ${[...new Set(wanted)].join(' or ')}${rest}`,
      otherKind: true,
    },
  ]
}

function toProblem({ path, message, unknownKey }: Found, schema: z.ZodType): Problem {
  const known = unknownKey === undefined ? [] : keysAt(schema, path.slice(0, -1))
  const meant = unknownKey === undefined ? undefined : closest(unknownKey, known)
  return {
    path: path.map(String).join('.'),
    message: meant ? `${message}: did you mean ${meant}?` : message,
  }
}

function closest(text: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map((word) => ({ word, distance: editDistance(text.toLowerCase(), word.toLowerCase()) }))
    .filter(({ word, distance }) => distance <= Math.min(2, word.length / 2))
    .sort((a, b) => a.distance - b.distance)
  return best?.word
}

/** Letters to insert, delete or replace (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)),
      )
    row = next
  }
  return row[b.length]!
}
