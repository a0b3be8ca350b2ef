import { LongNumber } from './json-exact.ts'

/** A JSON Pointer (RFC 6901), taken apart. */
export type Pointer = readonly string[]

/** @throws RangeError unless the text is empty or begins with `/`, with `~` only in `~0` and `~1` */
export function parsePointer(text: string): Pointer {
  const problem = pointerProblem(text)
  if (problem) throw new RangeError(problem)
  return text
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}

export function pointerProblem(text: string): string | undefined {
  if (text !== '' && !text.startsWith('/'))
    return `not a JSON Pointer: begins with /, as in /${text.replaceAll('.', '/')}`
  if (/~(?![01])/.test(text)) return 'not a JSON Pointer: write ~ as ~0 and / in a name as ~1'
  if (text.length > 1024) return 'longer than 1,024 characters'
  return undefined
}

/** What the pointer points at, or undefined where nothing is. */
export function follow(pointer: Pointer, document: unknown): unknown {
  let found = document
  for (const token of pointer) {
    if (typeof found !== 'object' || found === null || found instanceof LongNumber) return undefined
    // An array has only its items: neither `length` nor 01.
    const there = Array.isArray(found)
      ? /^(?:0|[1-9]\d{0,8})$/.test(token) && Object.hasOwn(found, token)
      : Object.hasOwn(found, token)
    if (!there) return undefined
    found = (found as Record<string, unknown>)[token]
  }
  return found
}
