/**
 * JSON text of a value as a trace has it: a number keeps its digits (`21.50` stays `21.50`, integers stay
 * exact), `true`, `false` and `null` are themselves, all else is a string.
 *
 * @param decimalComma read `21,5` as 21.5, as files with `;` between cells have it
 */
export function valueText(cell: string, decimalComma: boolean): string {
  const text = cell.trim()
  if (/^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(text)) return text
  const word = words.get(text)
  if (word !== undefined) return word
  const loose = looseNumber.exec(decimalComma ? text.replace(',', '.') : text)
  if (loose) {
    const [, sign, whole = '', fraction = '', exponent = ''] = loose
    // JSON knows no `+5`, `.5`, `5.` and `007`: the same number, written its way.
    return `${sign === '-' ? '-' : ''}${whole.replace(/^0+(?=\d)/, '') || '0'}${fraction && `.${fraction}`}${exponent}`
  }
  return JSON.stringify(cell)
}

const words = new Map([
  ['true', 'true'],
  ['True', 'true'],
  ['TRUE', 'true'],
  ['false', 'false'],
  ['False', 'false'],
  ['FALSE', 'false'],
  ['null', 'null'],
])
const looseNumber = /^([+-]?)(?=\.?\d)(\d*)\.?(\d*)([eE][+-]?\d+)?$/

const isoTime =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?\s?(Z|[+-]\d\d:?\d\d)?)?$/i

/** Below this a number is seconds, from it on milliseconds: the year 5138 or March 1973. */
const firstMilliseconds = 1e11
const firstTooLarge = 1e14

/**
 * A trace's time: ISO 8601, `YYYY-MM-DD HH:MM:SS` (both UTC where no zone is given), or seconds or
 * milliseconds since 1970.
 *
 * @returns undefined when it is none of them
 */
export function parseTime(cell: string): { timeMs: number; timeNanos: number } | undefined {
  const text = cell.trim()
  const iso = isoTime.exec(text)
  if (!iso) return parseEpoch(text)
  const [year, month, day, hour, minute, second] = [1, 2, 3, 4, 5, 6].map((i) =>
    Number(iso[i] ?? 0),
  ) as [number, number, number, number, number, number]
  if (month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return undefined
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  if (date.getUTCDate() !== day) return undefined
  const nanos = Number((iso[7] ?? '').padEnd(9, '0'))
  const zone = iso[8] ?? 'Z'
  let offsetMinutes = 0
  if (zone.length > 1) {
    const digits = zone.replace(':', '')
    offsetMinutes = Number(digits.slice(1, 3)) * 60 + Number(digits.slice(3))
    if (offsetMinutes >= 24 * 60) return undefined
    if (digits[0] === '-') offsetMinutes = -offsetMinutes
  }
  const minutes = hour * 60 + minute - offsetMinutes
  return {
    timeMs: date.getTime() + minutes * 60_000 + second * 1000 + Math.floor(nanos / 1e6),
    timeNanos: nanos % 1e6,
  }
}

function parseEpoch(text: string): { timeMs: number; timeNanos: number } | undefined {
  const match = /^(-?)(\d{1,14})(?:\.(\d{1,9})\d*)?$/.exec(text)
  if (!match) return undefined
  const [, sign, whole = '', fraction = ''] = match
  const seconds = Number(whole) < firstMilliseconds
  if (Number(whole) >= firstTooLarge) return undefined
  // By digits, since a float of seconds holds no nanoseconds.
  const digits = fraction.padEnd(9, '0')
  const ms = seconds ? Number(whole) * 1000 + Number(digits.slice(0, 3)) : Number(whole)
  const nanos = seconds ? Number(digits.slice(3)) : Number(digits.slice(0, 6))
  if (sign === '') return { timeMs: ms, timeNanos: nanos }
  return nanos === 0
    ? { timeMs: 0 - ms, timeNanos: 0 }
    : { timeMs: -ms - 1, timeNanos: 1_000_000 - nanos }
}
