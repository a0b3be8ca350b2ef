import { qualityText, type Reading } from '../shared/reading.ts'
import { formatTime } from '../shared/time-text.ts'
import { jsonValue } from '../shared/value-text.ts'

/** A reading as members of a JSON object, without its braces; time and value with all their digits. */
export function readingMembers({ series, timeMs, timeNanos, value, quality }: Reading): string {
  const { device, metric, unit, labels } = series
  const named = Object.keys(labels).length > 0 ? labels : undefined
  const time = formatTime(timeMs, timeNanos)
  const lead = JSON.stringify({ device, metric, unit, labels: named, time }).slice(1, -1)
  return `${lead},"value":${jsonValue(value)},"quality":"${qualityText(quality)}"`
}
