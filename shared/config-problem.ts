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
      return expectation(noun(issue.expected), issue.input, issue.expected)
    case 'invalid_value':
      return expectation(oneOf(issue.values), issue.input, 'choice')
    case 'too_small':
      return bound(issue.origin, issue.inclusive ? 'at least' : 'more than', issue.minimum)
    case 'too_big':
      return bound(issue.origin, issue.inclusive ? 'at most' : 'less than', issue.maximum)
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
  return (issue: { input?: unknown }) => expectation(what, issue.input)
}

/** Names what is there by its kind only, for it may be a secret; a wrong choice is none. */
function expectation(what: string, input: unknown, kind?: string): string {
  if (input === undefined) return `missing: expected ${what}`
  if (input === null) return `empty: expected ${what}`
  const found = Array.isArray(input) ? 'array' : typeof input
  if (kind === 'choice' && found === 'string') {
    const quoted = JSON.stringify(input)
    return `expected ${what}, not ${quoted.length > 40 ? 'that' : quoted}`
  }
  if (kind === 'int' && found === 'number') return `expected ${what}`
  const quotes = kind === 'string' && (found === 'number' || found === 'boolean')
  return `expected ${what}, not ${noun(found)}${quotes ? ' (put it in quotes)' : ''}`
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

function oneOf(choices: readonly unknown[]): string {
  return choices.length <= 2 ? choices.join(' or ') : `one of ${choices.join(', ')}`
}

/** `must be at least 1`, `must have at most 3 items`. */
function bound(origin: string, relation: string, limit: number | bigint): string {
  const what = origin === 'string' ? 'character' : 'item'
  return origin === 'number' || origin === 'int' || origin === 'bigint'
    ? `must be ${relation} ${limit}`
    : `must have ${relation} ${limit} ${what}${Number(limit) === 1 ? '' : 's'}`
}

interface Found {
  path: PropertyKey[]
  message: string
  /** What was expected, where another kind of thing is there: another branch of a union may be meant. */
  expected?: string
  /** A key that nothing is known of. */
  unknownKey?: string
}

function problemsOf(issue: z.core.$ZodIssue, before: readonly PropertyKey[]): Found[] {
  const path = [...before, ...issue.path]
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        path: [...path, key],
        message: 'unknown key',
        unknownKey: key,
      }))
    case 'invalid_key':
      return issue.issues.map(({ message }) => ({ path, message: `bad name: ${message}` }))
    case 'invalid_type':
      return [{ path, message: issue.message, expected: noun(issue.expected) }]
    case 'invalid_value':
      return [{ path, message: issue.message, expected: oneOf(issue.values) }]
    case 'invalid_union':
      // Any other message is one that the schema has set.
      if (issue.message === 'Invalid input') return unionProblems(issue, path)
  }
  return [{ path, message: issue.message }]
}

/** The problems of the branch that was meant, by its kind and with the fewest of them. */
function unionProblems(issue: z.core.$ZodIssueInvalidUnion, path: PropertyKey[]): Found[] {
  const branches = issue.errors.map((branch) => branch.flatMap((inner) => problemsOf(inner, path)))
  const otherKind = (found: Found) =>
    found.path.length === path.length && found.expected !== undefined
  const [meant] = branches
    .filter((branch) => !branch.some(otherKind))
    .sort((a, b) => a.length - b.length)
  if (meant) return meant
  const kinds = branches.flatMap((branch) => branch.find(otherKind)?.expected ?? [])
  const expected = [...new Set(kinds)].join(' or ')
  return [{ path, message: expectation(expected, issue.input), expected }]
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
