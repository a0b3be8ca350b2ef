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

/** Longest text that is looked at as a time, characters. */
const longestText = 64

/**
 * Reads a sensor's time into `into`. Numbers are exact to the nanosecond when they are given as they
 * were written (text); what is finer than that is cut off.
 *
 * @param given a number, or a number or an ISO 8601 time as text
 * @returns false when it is no time, or none from 2000 to 2100; `into` then holds no meaning
 */
export function readTime(given: unknown, unit: TimeUnit, into: Instant): boolean {
  if (typeof given === 'number')
    return Number.isSafeInteger(given)
      ? unit !== 'iso' && readInteger(given, unit, into) && inRange(into)
      : readDecimal(String(given), unit, into) && inRange(into)
  if (typeof given !== 'string' || given.length > longestText) return false
  return (readDecimal(given, unit, into) || readIso(given, unit, into)) && inRange(into)
}

function inRange(instant: Instant): boolean {
  return instant.timeMs >= earliestMs && instant.timeMs < latestMs
}

function readInteger(count: number, unit: TimeUnit, into: Instant): boolean {
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

/** Decimal places between a unit and the nanosecond. */
const placesToNanos = { s: 9, ms: 6, us: 3, ns: 0 } as const

/** A JSON number's text: through whole numbers, since a float cannot hold seconds and nanoseconds. */
function readDecimal(text: string, unit: TimeUnit, into: Instant): boolean {
  if (unit === 'iso') return false
  const match = /^(-?\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,3}))?$/.exec(text)
  if (!match) return false
  const [, whole = '', fraction = '', exponent = '0'] = match
  const places = placesToNanos[unit ?? 'ms'] + Number(exponent) - fraction.length
  // At most 64 digits and 1,009 places: small work, and inRange has the last word.
  const digits = BigInt(whole + fraction)
  const nanos = places >= 0 ? digits * 10n ** BigInt(places) : digits / 10n ** BigInt(-places)
  if (nanos < 0n || nanos > 1n << 64n) return false
  into.timeMs = Number(nanos / 1_000_000n)
  into.timeNanos = Number(nanos % 1_000_000n)
  return true
}

/**
 * ISO 8601, extended format: `2025-11-22T08:00:00.123456789+01:00`. A space may stand for the T, the
 * seconds and their fraction may be absent, and without a zone it is UTC.
 */
function readIso(text: string, unit: TimeUnit, into: Instant): boolean {
  if (unit !== undefined && unit !== 'iso') return false
  const match =
    /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?(?:[Zz]|([+-])(\d\d):?(\d\d)?)?$/.exec(
      text,
    )
  if (!match) return false
  const [year, month, day, hour, minute] = [1, 2, 3, 4, 5].map((group) => Number(match[group]))
  const second = Number(match[6] ?? 0)
  const zoneHour = Number(match[9] ?? 0)
  const zoneMinute = Number(match[10] ?? 0)
  if (month! < 1 || month! > 12 || day! < 1 || day! > daysIn(year!, month!)) return false
  // A leap second is the first one of the next minute, as on most clocks.
  if (hour! > 23 || minute! > 59 || second > 60 || zoneHour > 23 || zoneMinute > 59) return false
  const zoneMinutes = (zoneHour * 60 + zoneMinute) * (match[8] === '-' ? -1 : 1)
  const minutes = daysSince1970(year!, month!, day!) * 1440 + hour! * 60 + minute! - zoneMinutes
  const nanos = Number((match[7] ?? '').slice(0, 9).padEnd(9, '0'))
  into.timeMs = (minutes * 60 + second) * 1000 + Math.floor(nanos / 1_000_000)
  into.timeNanos = nanos % 1_000_000
  return true
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
