const dayMs = 86_400_000

/**
 * ISO 8601 in UTC: milliseconds, and what is below them to the micro- or nanosecond where there is any.
 *
 * @param nanos 0 to 999,999, behind `ms`
 */
export function formatTime(ms: number, nanos = 0): string {
  const day = Math.floor(ms / dayMs)
  const inDay = ms - day * dayMs
  const hours = twoDigits[Math.floor(inDay / 3_600_000)]
  const minutes = twoDigits[Math.floor(inDay / 60_000) % 60]
  const seconds = twoDigits[Math.floor(inDay / 1000) % 60]
  const text = `${date(day)}T${hours}:${minutes}:${seconds}.${threeDigits[inDay % 1000]}`
  if (nanos === 0) return `${text}Z`
  return nanos % 1000 === 0 ? `${text}${digits(nanos / 1000, 3)}Z` : `${text}${digits(nanos, 6)}Z`
}

let lastDay = Number.NaN
let lastDate = ''

/** Readings mostly stay within a day. */
function date(day: number): string {
  if (day !== lastDay) {
    lastDate = civil(day)
    lastDay = day
  }
  return lastDate
}

/** Gregorian date of a day counted from 1970-01-01, by years that begin in March. */
function civil(day: number): string {
  const shifted = day + 719_468
  const era = Math.floor(shifted / 146_097)
  const ofEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) /
      365,
  )
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const marchMonth = Math.floor((5 * ofYear + 2) / 153)
  const dayOfMonth = ofYear - Math.floor((153 * marchMonth + 2) / 5) + 1
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  return `${yearText(year)}-${twoDigits[month]}-${twoDigits[dayOfMonth]}`
}

function yearText(year: number): string {
  if (year >= 0 && year <= 9999) return digits(year, 4)
  return `${year < 0 ? '-' : '+'}${digits(Math.abs(year), 6)}`
}

const twoDigits = Array.from({ length: 100 }, (_, value) => digits(value, 2))
const threeDigits = Array.from({ length: 1000 }, (_, value) => digits(value, 3))

function digits(value: number, width: number): string {
  return String(value).padStart(width, '0')
}
