export const timeUnits = ['iso', 's', 'ms', 'us', 'ns'] as const
/** How a payload writes its time; undefined takes ISO 8601 and milliseconds. */
export type TimeUnit = (typeof timeUnits)[number] | undefined

/** A time to the nanosecond, as a reading has it; one object is reused message after message. */
export interface Instant {
  timeMs: number
  timeNanos: number
}

/** 2000-01-01 and 2100-01-01: a sensor's time outside is no time. */
const earliestMs = 946_684_800_000
const latestMs = 4_102_444_800_000

/**
 * Reads a sensor's time into `into`. Numbers are exact to the nanosecond when they are given as they
 * were written (text); what is finer than that is cut off.
 *
 * @param given a number, or a number or an ISO 8601 time as text
 * @returns false when it is no time, or none from 2000 to 2100; `into` then holds no meaning
 */
export function readTime(given: unknown, unit: TimeUnit, into: Instant): boolean {
  if (typeof given === 'number')
    return (
      (Number.isSafeInteger(given)
        ? readInteger(given, unit, into)
        : readDecimal(String(given), unit, into)) && inRange(into)
    )
  if (typeof given !== 'string') return false
  const found =
    given.charCodeAt(4) === 0x2d ? readIso(given, unit, into) : readDecimal(given, unit, into)
  return found && inRange(into)
}

function inRange(instant: Instant): boolean {
  return instant.timeMs >= earliestMs && instant.timeMs < latestMs
}

function readInteger(count: number, unit: TimeUnit, into: Instant): boolean {
  if (unit === 'iso') return false
  let timeMs = count
  let timeNanos = 0
  if (unit === 's') timeMs = count * 1000
  else if (unit === 'us') {
    timeMs = Math.floor(count / 1000)
    timeNanos = (count - timeMs * 1000) * 1000
  } else if (unit === 'ns') {
    timeMs = Math.floor(count / 1_000_000)
    timeNanos = count - timeMs * 1_000_000
  }
  into.timeMs = timeMs
  into.timeNanos = timeNanos
  return true
}

/** Digits of milliseconds that are looked at, leading zeros among them. */
const longestCount = 100
/** Decimal places from a unit to the millisecond. */
const placesToMs = { s: 3, ms: 0, us: -3, ns: -6 } as const

/** A number's text, by its digits: a float cannot hold seconds and nanoseconds. */
function readDecimal(text: string, unit: TimeUnit, into: Instant): boolean {
  if (unit === 'iso') return false
  const match = /^(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,3}))?$/.exec(text)
  if (!match) return false
  const [, whole = '', fraction = '', exponent = '0'] = match
  const digits = whole + fraction
  /** Digits in front of the point, in milliseconds. */
  const point = whole.length + Number(exponent) + placesToMs[unit ?? 'ms']
  if (point < 1 || point > longestCount) return false
  into.timeMs = Number(digits.slice(0, point).padEnd(point, '0'))
  into.timeNanos = Number(digits.slice(point, point + 6).padEnd(6, '0'))
  return true
}

/**
 * ISO 8601, extended format: `2025-11-22T08:00:00.123456789+01:00`. A space may stand for the T, the
 * seconds and their fraction may be absent, and without a zone it is UTC.
 */
function readIso(text: string, unit: TimeUnit, into: Instant): boolean {
  if (unit !== undefined && unit !== 'iso') return false
  const year = twoDigits(text, 0) * 100 + twoDigits(text, 2)
  const month = twoDigits(text, 5)
  const day = twoDigits(text, 8)
  const hour = twoDigits(text, 11)
  const minute = twoDigits(text, 14)
  if (!isOneOf(text, 4, '-') || !isOneOf(text, 7, '-')) return false
  if (!isOneOf(text, 10, 'Tt ') || !isOneOf(text, 13, ':')) return false
  let at = 16
  let second = 0
  if (isOneOf(text, at, ':')) {
    second = twoDigits(text, at + 1)
    at += 3
  }
  let nanos = 0
  if (at === 19 && isOneOf(text, at, '.,')) {
    let worth = 100_000_000
    for (at++; at < text.length; at++) {
      const digit = text.charCodeAt(at) - 0x30
      if (!(digit >= 0 && digit <= 9)) break
      nanos += digit * worth
      // What is finer than a nanosecond is cut off.
      worth = Math.floor(worth / 10)
    }
    if (at === 20) return false
  }
  const zoneMinutes = zoneAt(text, at)
  // Comparisons with NaN, which stands for what is no number, are false.
  if (!(month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month))) return false
  // A leap second is the first one of the next minute, as on most clocks.
  if (!(hour <= 23 && minute <= 59 && second <= 60 && Math.abs(zoneMinutes) < 1440)) return false
  const minutes = daysSince1970(year, month, day) * 1440 + hour * 60 + minute - zoneMinutes
  into.timeMs = (minutes * 60 + second) * 1000 + Math.floor(nanos / 1_000_000)
  into.timeNanos = nanos % 1_000_000
  return true
}

/** Minutes east of UTC that the rest of the text says, or NaN where it is no zone. */
function zoneAt(text: string, at: number): number {
  if (at === text.length) return 0
  if (isOneOf(text, at, 'Zz')) return at + 1 === text.length ? 0 : Number.NaN
  if (!isOneOf(text, at, '+-')) return Number.NaN
  const hours = twoDigits(text, at + 1)
  const minutesAt = at + 3 + (isOneOf(text, at + 3, ':') ? 1 : 0)
  const minutes = at + 3 === text.length ? 0 : twoDigits(text, minutesAt)
  if (at + 3 !== text.length && minutesAt + 2 !== text.length) return Number.NaN
  if (!(minutes <= 59)) return Number.NaN
  return (hours * 60 + minutes) * (isOneOf(text, at, '-') ? -1 : 1)
}

function isOneOf(text: string, at: number, characters: string): boolean {
  return at < text.length && characters.includes(text[at]!)
}

/** The number of two digits, or NaN where there are none. */
function twoDigits(text: string, at: number): number {
  const tens = text.charCodeAt(at) - 0x30
  const ones = text.charCodeAt(at + 1) - 0x30
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN
}

function daysIn(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/** Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March. */
function daysSince1970(year: number, month: number, day: number): number {
  const marchYear = month > 2 ? year : year - 1
  const marchMonth = month > 2 ? month - 3 : month + 9
  const leapDays =
    Math.floor(marchYear / 4) - Math.floor(marchYear / 100) + Math.floor(marchYear / 400)
  return 365 * marchYear + leapDays + Math.floor((153 * marchMonth + 2) / 5) + day - 1 - 719_468
}
