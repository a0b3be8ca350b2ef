import { text } from '../../shared/config.ts'
import type { Stream } from '../../shared/reading.ts'
import type { Row } from './columns.ts'

/** What a name (of a topic, a subject, a measurement) may be made of. */
const fields = ['stream', 'device', 'metric', 'agent', 'lane'] as const
type Field = (typeof fields)[number]

/** A name with `{field}`s in it. `{label.site}` stands for the label `site`. */
export class NameTemplate {
  readonly #literals: string[] = []
  readonly #fields: string[] = []

  /** @throws RangeError when it is none, see `nameTemplate` */
  constructor(template: string) {
    const problem = problemOf(template)
    if (problem) throw new RangeError(problem)
    for (const [at, part] of template.split(/\{([^}]*)\}/).entries())
      (at % 2 === 0 ? this.#literals : this.#fields).push(part)
  }

  /** @param fit makes what a field holds, which may be empty, fit to be part of the name */
  fill(row: Row, stream: Stream, fit: (text: string) => string): string {
    let name = this.#literals[0]!
    for (const [at, field] of this.#fields.entries())
      name += fit(fieldOf(field, row, stream)) + this.#literals[at + 1]!
    return name
  }
}

/**
 * Schema of a template.
 *
 * @param alsoProblem what the kind of name forbids in what stands between the fields
 */
export function nameTemplate(alsoProblem: (literal: string) => string | undefined) {
  return text((template) => {
    const problem = problemOf(template)
    if (problem) return problem
    return alsoProblem(template.replaceAll(/\{[^}]*\}/g, 'x'))
  })
}

/** Whether a stream's records have, as a rule, one device and one metric. */
export function hasPoints(stream: Stream): boolean {
  return stream === 'readings' || stream === 'alerts'
}

/** Why a template does not go with a stream: its records have no device and no metric. */
export function templateProblem(template: string, stream: Stream): string | undefined {
  const wanted = /\{(device|metric|label\.[^}]*)\}/.exec(template)
  return wanted && !hasPoints(stream)
    ? `records of ${stream} have no ${wanted[0]}: leave it out of ${template}`
    : undefined
}

function problemOf(template: string): string | undefined {
  const literal = template.replaceAll(/\{([^{}]*)\}/g, (whole, field: string) =>
    fields.some((name) => name === field) || /^label\../.test(field) ? '' : whole,
  )
  const unknown = /\{[^{}]*\}/.exec(literal)
  if (unknown)
    return `${unknown[0]} is no field: there are ${fields.map((name) => `{${name}}`).join(', ')} and {label.<name>}`
  return /[{}]/.test(literal) ? 'has a { or } without its other half' : undefined
}

function fieldOf(field: string, row: Row, stream: Stream): string {
  if (field === 'stream') return stream
  if (field.startsWith('label.')) {
    const label = field.slice('label.'.length)
    return row.labels && Object.hasOwn(row.labels, label) ? row.labels[label]! : ''
  }
  return row[field as Exclude<Field, 'stream'>] ?? ''
}

/**
 * One level of a hierarchical name, whatever a device calls itself: percent-encoded where `special` matches
 * or a character is `%`, a space or a control; `_` where it is empty.
 */
export function levelEscape(special: RegExp): (text: string) => string {
  const reserved = new RegExp(`[%\\s\\p{Cc}]|${special.source}`, 'gu')
  return (level) =>
    level === ''
      ? '_'
      : level.replaceAll(reserved, (found) =>
          [...Buffer.from(found)]
            .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
            .join(''),
        )
}
