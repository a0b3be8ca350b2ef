import type { RecordValue } from '../../shared/batch.ts'
import type { Series, Value } from '../../shared/reading.ts'
import type { AlertState } from './condition.ts'

/** Longest text told as a value. */
const maxText = 256

/** What a person needs to see why: which series, since when, what was found and what was allowed. */
export function alertContent(
  series: Series,
  about: {
    kind: string
    state: AlertState
    /** Index of the rule in the configuration. */
    rule: number
    timeMs: number
    sinceMs: number
  },
  more: { [key: string]: RecordValue | undefined },
): { [key: string]: RecordValue } {
  const { device, metric, unit, labels } = series
  const content: { [key: string]: RecordValue } = { ...about, device, metric }
  if (unit !== undefined) content.unit = unit
  if (Object.keys(labels).length > 0) content.labels = { ...labels }
  for (const [key, value] of Object.entries(more)) if (value !== undefined) content[key] = value
  return content
}

/** A value as plain data: what JSON does not know becomes text. */
export function told(value: Value): RecordValue {
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  if (typeof value === 'bigint') return String(value)
  return typeof value === 'string' ? value.slice(0, maxText) : value
}
