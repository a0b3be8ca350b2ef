import type { Stream } from '../../../shared/reading.ts'
import { columns, type Row } from '../columns.ts'
import type { NameTemplate } from '../name-template.ts'

export interface LineOptions {
  stream: Stream
  measurement: NameTemplate
  tags: readonly (keyof Row)[]
  fields: readonly (keyof Row)[]
}

/** Why line protocol has no way to say what a record says. */
export class NotExpressible extends Error {}

/** Times that servers can tell from their own marks. */
const [minTime, maxTime] = [-(2n ** 63n) + 2n, 2n ** 63n - 2n]

/**
 * A row as one line, without its end: `measurement,tag=… field=…,… time`, with tags sorted by key and time
 * in nanoseconds. A label that bears the name of a column becomes the tag `label_<name>`.
 *
 * @throws NotExpressible
 * Source: InfluxDB 2.7, "Line protocol".
 */
export function lineOf(row: Row, { stream, measurement, tags, fields }: LineOptions): string {
  const name = measurement.fill(row, stream, (text) => text)
  if (name === '') throw new NotExpressible('the measurement has no name')
  if (name.startsWith('#'))
    throw new NotExpressible('a measurement that begins with # is a comment')
  let line = nameText(name, 'measurement', ', ')
  for (const [key, value] of tagsOf(row, tags))
    line += `,${nameText(key, 'tag', ',= ')}=${nameText(value, `tag ${key}`, ',= ')}`
  let separator = ' '
  for (const field of fields) {
    const text = fieldText(row, field)
    if (text === undefined) continue
    line += `${separator}${field}=${text}`
    separator = ','
  }
  if (separator === ' ') throw new NotExpressible('it has none of the fields')
  const time = row.time * 1000n + BigInt(row.time_nanos)
  if (time < minTime || time > maxTime)
    throw new NotExpressible('its time is not between 1677-09-21 and 2262-04-11')
  return `${line} ${time}`
}

/** Tags that have no text cannot be written, and mean the same as none. */
function tagsOf(row: Row, tags: LineOptions['tags']): [string, string][] {
  const found: [string, string][] = []
  for (const tag of tags) {
    const value = row[tag]
    if (value === null) continue
    if (tag !== 'labels') found.push([tag, String(value)])
    else
      for (const [label, text] of Object.entries(row.labels!)) found.push([labelKey(label), text])
  }
  return found
    .filter(([key, value]) => key !== '' && value !== '')
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

/** Names that a label cannot have for itself: of columns, and one that servers keep. */
const taken = new Set<string>([...columns.map(({ name }) => name), 'field', 'measurement'])

function labelKey(label: string): string {
  const bare = label.replace(/^(label_|_)+/, '')
  return taken.has(bare) ? `label_${label}` : label
}

/**
 * Of measurements, keys and tags. There is no way to write a backslash that stands before what needs one
 * itself, or last; and a line break ends the line, wherever it is.
 */
function nameText(text: string, what: string, special: ', ' | ',= '): string {
  if (/[\n\r\0]/.test(text)) throw new NotExpressible(`${what}: a line break or NUL in it`)
  if (/\\(?=[,= ]|$)/.test(text))
    throw new NotExpressible(`${what}: a backslash before a comma, space, = or the end`)
  return text.replaceAll(special === ', ' ? /[, ]/g : /[,= ]/g, '\\$&')
}

/** @returns undefined where the row has none */
function fieldText(row: Row, field: keyof Row): string | undefined {
  const value = row[field]
  if (value === null) return undefined
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return `${value}i`
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new NotExpressible(`${field} is ${value}`)
    if (!isFloat.has(field)) return `${value}i`
    return Object.is(value, -0) ? '-0' : String(value)
  }
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  // The format has room for line breaks in texts. But a server that looks for the ends of lines first
  // would take what follows for another point, which whoever publishes could then write at will.
  if (/[\n\r\0]/.test(text)) throw new NotExpressible(`${field}: a line break or NUL in it`)
  return `"${text.replaceAll(/["\\]/g, '\\$&')}"`
}

const isFloat = new Set<keyof Row>(
  columns.filter(({ type }) => type === 'double').map(({ name }) => name),
)
