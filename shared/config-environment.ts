import type { z } from 'zod'
import type { Problem } from './config-problem.ts'

/** What stands for `${inside}`: its value, or what is wrong with it. */
export type Lookup = (inside: string) => { value: string } | { problem: string }

/** `${NAME}`, or `${NAME:-default}`, whose default also stands in for an empty variable, as in a shell. */
export function environmentLookup(environment: NodeJS.ProcessEnv): Lookup {
  return (inside) => {
    const [, name, fallback] = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inside) ?? []
    if (name === undefined)
      return { problem: `\${${inside}} is no variable: write \${NAME} or \${NAME:-default}` }
    const value = environment[name] || fallback
    return value !== undefined
      ? { value }
      : {
          problem: `environment variable ${name} is not set (give a default: \${${name}:-…})`,
        }
  }
}

/** A document with variables put into its strings. */
export class Substitution {
  /** The document, a copy. */
  readonly document: unknown
  readonly problems: Problem[] = []
  readonly #lookup: Lookup
  /** Paths of the strings that changed. */
  readonly #changed = new Set<string>()
  /** What was put in. */
  readonly #values = new Set<string>()

  constructor(document: unknown, lookup: Lookup) {
    this.#lookup = lookup
    this.document = this.#copy(document, [])
  }

  /** Whether a problem is about something that was put in, or tells it. */
  tells({ path, message }: Problem): boolean {
    if ([...this.#changed].some((changed) => JSON.parse(changed).join('.') === path)) return true
    const shown = (value: string) =>
      message.includes(value) || message.includes(JSON.stringify(value).slice(1, -1))
    return [...this.#values].some((value) => value !== '' && shown(value))
  }

  /**
   * A variable is text: where a schema wants a number or a boolean in its place, and it reads as one, it
   * becomes one. Says whether any did, so that the document should be checked again.
   */
  retype(issues: readonly z.core.$ZodIssue[], before: readonly PropertyKey[] = []): boolean {
    let changed = false
    for (const issue of issues) {
      const path = [...before, ...issue.path]
      if (issue.code === 'invalid_union')
        for (const branch of issue.errors) changed = this.retype(branch, path) || changed
      if (issue.code !== 'invalid_type' || !this.#changed.has(JSON.stringify(path.map(String))))
        continue
      const holder = path
        .slice(0, -1)
        .reduce((tree, key) => tree[key] as Tree, this.document as Tree)
      const key = path.at(-1)!
      const value = holder[key]
      const typed = typeof value === 'string' ? retyped(value, issue.expected) : undefined
      if (typed === undefined) continue
      holder[key] = typed
      changed = true
    }
    return changed
  }

  #copy(value: unknown, path: string[]): unknown {
    if (typeof value === 'string') return this.#put(value, path)
    if (Array.isArray(value)) return value.map((item, i) => this.#copy(item, [...path, `${i}`]))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, this.#copy(item, [...path, key])]),
    )
  }

  #put(text: string, path: string[]): string {
    return text.replace(/\$\{([^}]*)\}/g, (_, inside: string) => {
      this.#changed.add(JSON.stringify(path))
      const found = this.#lookup(inside)
      if ('value' in found) {
        this.#values.add(found.value)
        return found.value
      }
      this.problems.push({ path: path.join('.'), message: found.problem })
      return ''
    })
  }
}

type Tree = Record<PropertyKey, unknown>

function retyped(text: string, expected: string): number | boolean | undefined {
  if (expected === 'boolean') return text === 'true' ? true : text === 'false' ? false : undefined
  return /^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : undefined
}
