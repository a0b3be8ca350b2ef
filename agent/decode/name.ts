/** Longest device, metric, label and unit, bytes of UTF-8. */
export const maxNameBytes = 256

/** Names travel as UTF-8 and stand in tables: says what makes a text unfit for one. */
export function nameProblem(name: string): string | undefined {
  if (name === '') return 'is empty'
  // A UTF-16 unit is at most 3 bytes of UTF-8, so most names need no counting.
  if (name.length * 3 > maxNameBytes && Buffer.byteLength(name) > maxNameBytes)
    return `is longer than ${maxNameBytes} bytes`
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be in it
  if (/[\u0000-\u001f\u007f]/.test(name)) return 'has a control character'
  // Half a surrogate pair has no UTF-8: it would come out at the other end as another name.
  return name.isWellFormed() ? undefined : 'is not valid Unicode'
}
