import { formatTime } from '../../shared/time-text.ts'
import { jsonValue } from '../../shared/value-text.ts'
import { type Column, columns, type Row } from './columns.ts'

/**
 * A row as one JSON object: members named and ordered as the columns, without those that are null.
 * Timestamps are ISO 8601 in UTC, to the microsecond where there is any. Integers are written whole, also
 * beyond 2^53; a number that is not finite is the text `NaN`, `Infinity` or `-Infinity`.
 *
 * @param chosen the columns that it has
 */
export function rowJson(row: Row, chosen: readonly Column[] = columns): string {
  let text = ''
  for (const { name, type } of chosen) {
    const value = row[name]
    if (value === null) continue
    text += `${text === '' ? '{' : ','}"${name}":`
    if (type === 'timestamp') text += `"${timestampText(value as bigint)}"`
    else if (type === 'json') text += JSON.stringify(value)
    else text += jsonValue(value as number | bigint | boolean | string)
  }
  return `${text}}`
}

/** @param micros since 1970 */
export function timestampText(micros: bigint): string {
  const below = Number(((micros % 1000n) + 1000n) % 1000n)
  return formatTime(Number((micros - BigInt(below)) / 1000n), below * 1000)
}
