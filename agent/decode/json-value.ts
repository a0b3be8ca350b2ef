import type { Value } from '../../shared/reading.ts'
import { LongNumber } from './json-exact.ts'

/** Longest value that is text, bytes of UTF-8. */
const maxTextBytes = 256

/** What a parsed node is as a reading's value: undefined where it can be none, see `valueProblem`. */
export function toValue(found: unknown): Value | undefined {
  switch (typeof found) {
    case 'number':
      return Number.isFinite(found) ? found : undefined
    case 'boolean':
      return found
    case 'string':
      return textProblem(found) ? undefined : found
    default:
      if (found === null) return null
      return found instanceof LongNumber ? longValue(found.text) : undefined
  }
}

/** Why `toValue` finds no value. */
export function valueProblem(found: unknown): string {
  if (typeof found === 'string') return textProblem(found) ?? ''
  if (Array.isArray(found)) return 'an array, not a number, boolean, text or null'
  if (isContainer(found)) return 'an object, not a number, boolean, text or null'
  return found instanceof LongNumber && isInteger(found.text)
    ? 'integer beyond 64 bits'
    : 'number beyond a float'
}

function textProblem(text: string): string | undefined {
  if (text.length * 3 > maxTextBytes && Buffer.byteLength(text) > maxTextBytes)
    return `text longer than ${maxTextBytes} bytes`
  return text.isWellFormed() ? undefined : 'text that is not valid Unicode'
}

const minInteger = -(2n ** 63n)
const maxInteger = 2n ** 64n - 1n

function longValue(text: string): Value | undefined {
  if (!isInteger(text)) {
    const value = Number(text)
    return Number.isFinite(value) ? value : undefined
  }
  // 64 bits are at most 20 digits and a sign; a BigInt of a hundred thousand digits is dear.
  if (text.length > 21) return undefined
  const value = BigInt(text)
  if (value < minInteger || value > maxInteger) return undefined
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

function isInteger(text: string): boolean {
  return !/[.eE]/.test(text)
}

/** An object or an array. */
export function isContainer(found: unknown): found is object {
  return typeof found === 'object' && found !== null && !(found instanceof LongNumber)
}
