/** A point as a reader of the format understands it. */
export interface ParsedPoint {
  measurement: string
  tags: Record<string, string>
  /** Integers as bigint. */
  fields: Record<string, number | bigint | boolean | string>
  time: bigint
}

/**
 * Reads lines character by character, as the format's description has it, and is strict where servers are
 * lenient: unsorted or repeated tags, unescaped characters and anything left over are errors.
 */
export function parseLines(text: string): ParsedPoint[] {
  let at = 0
  const fail = (why: string): never => {
    throw new SyntaxError(`${why} at ${at} of ${JSON.stringify(text.slice(0, at + 20))}`)
  }
  const expect = (character: string) => {
    if (text[at] !== character) fail(`no ${JSON.stringify(character)}`)
    at += 1
  }
  const name = (ends: string, escapable: string): string => {
    let found = ''
    for (; at < text.length && !ends.includes(text[at]!); at++) {
      if (text[at] === '\n') fail('a line break')
      if (text[at] === '\\' && escapable.includes(text[at + 1] ?? '\n')) at += 1
      else if (escapable.includes(text[at]!)) fail('an unescaped character')
      found += text[at]
    }
    return found || fail('an empty name')
  }
  const quoted = (): string => {
    let found = ''
    for (expect('"'); text[at] !== '"'; at++) {
      if (at >= text.length) fail('no end of a text')
      if (text[at] === '\\' && '"\\'.includes(text[at + 1] ?? '\n')) at += 1
      found += text[at]
    }
    expect('"')
    return found
  }
  const value = (): number | bigint | boolean | string => {
    if (text[at] === '"') return quoted()
    const [token] = /^[^, \n]*/.exec(text.slice(at))!
    at += token.length
    if (token === 'true' || token === 'false') return token === 'true'
    if (/^-?\d+i$/.test(token)) return BigInt(token.slice(0, -1))
    return /^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(token) ? Number(token) : fail(`${token} is no value`)
  }
  const points: ParsedPoint[] = []
  while (at < text.length) {
    const measurement = name(', ', ', ')
    if (measurement.startsWith('#')) fail('a comment')
    const tags: Record<string, string> = {}
    for (let last = ''; text[at] === ','; ) {
      expect(',')
      const key = name('=', ',= ')
      expect('=')
      if (key <= last) fail('tags are not sorted')
      last = key
      tags[key] = name(', ', ',= ')
    }
    const fields: ParsedPoint['fields'] = {}
    let separator = ' '
    do {
      expect(separator)
      const key = name('=', ',= ')
      expect('=')
      fields[key] = value()
      separator = ','
    } while (text[at] === ',')
    expect(' ')
    const [time] = /^-?\d+/.exec(text.slice(at)) ?? [fail('no time')]
    at += time.length
    expect('\n')
    points.push({ measurement, tags, fields, time: BigInt(time) })
  }
  return points
}
