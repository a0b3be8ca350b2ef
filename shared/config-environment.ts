import type { z } from 'zod'
import type { Problem } from './config-problem.ts'

/**
 * A document with environment variables put into its strings: `${NAME}`, or `${NAME:-default}`, whose
 * default also stands in for an empty variable, as in a shell.
 */
export class Substitution {
  /** The document, a copy. */
  readonly document: unknown
  readonly problems: Problem[] = []
  readonly #environment: NodeJS.ProcessEnv
  /** Paths of the strings that changed. */
  readonly #changed = new Set<string>()

  constructor(document: unknown, environment: NodeJS.ProcessEnv) {
    this.#environment = environment
    this.document = this.#copy(document, [])
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
    return text.replace(/\$\{([^}]*)\}/g, (written, inside: string) => {
      this.#changed.add(JSON.stringify(path))
      const [, name, fallback] = /^([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?$/s.exec(inside) ?? []
      const value = name === undefined ? undefined : this.#environment[name] || fallback
      if (value !== undefined) return value
      this.problems.push({
        path: path.join('.'),
        message:
          name === undefined
            ? `${written} is no variable: write \${NAME} or \${NAME:-default}`
            : `environment variable ${name} is not set (give a default: \${${name}:-…})`,
      })
      return ''
    })
  }
}

type Tree = Record<PropertyKey, unknown>

function retyped(text: string, expected: string): number | boolean | undefined {
  if (expected === 'boolean') return text === 'true' ? true : text === 'false' ? false : undefined
  return /^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : undefined
}
