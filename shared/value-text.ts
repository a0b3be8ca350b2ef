import type { Value } from './reading.ts'

/** Null is an empty field, an empty text a quoted one. */
export function csvValue(value: Value): string {
  if (typeof value === 'string') return value === '' ? '""' : csvText(value)
  return value === null ? '' : plain(value)
}

/** JSON knows no other numbers than finite ones: the rest are written as text. Integers beyond 2^53 are whole. */
export function jsonValue(value: Value): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number' && !Number.isFinite(value)) return `"${value}"`
  return plain(value)
}

/** The shortest text that reads back as the same number; a negative zero keeps its sign. */
function plain(value: number | bigint | boolean | null): string {
  return Object.is(value, -0) ? '-0' : String(value)
}

/** A field of CSV as in RFC 4180. */
export function csvText(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
