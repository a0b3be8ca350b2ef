/** A number with more digits than a float is sure to keep, as it was written. */
export class LongNumber {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** Digits that a float always keeps. */
const safeDigits = 15

/**
 * Parses JSON as `JSON.parse` does, but keeps numbers exact: those of more than 15 digits become
 * `LongNumber`. Where no digits run that long it costs what `JSON.parse` costs.
 *
 * @throws SyntaxError exactly where `JSON.parse` does
 */
export function parseExact(text: string): unknown {
  const document: unknown = JSON.parse(text)
  return needsReader(text) ? new ExactReader(text).read() : document
}

/**
 * Whether digits, a point among them perhaps, run for longer than a float keeps, or there is an escape:
 * after one document with the name `\`, V8's parser gives that name to others that are written with an
 * escape (nodejs/node#63785), and any publisher may send that document.
 */
function needsReader(text: string): boolean {
  let run = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if ((code >= 0x30 && code <= 0x39) || code === 0x2e) {
      if (++run > safeDigits) return true
    } else if (code === 0x5c) return true
    else run = 0
  }
  return false
}

/** An array or object that is being filled, with the name that waits for its value. */
interface Open {
  into: unknown[] | Record<string, unknown>
  name: string | undefined
}

/**
 * Builds the tree of a text that is known to be JSON: it checks nothing, and commas and colons tell it
 * nothing. It does without recursion, since the text may be a hundred thousand brackets.
 */
class ExactReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  read(): unknown {
    const around: Open[] = []
    for (;;) {
      const code = this.#next()
      const inside = around.at(-1)
      let value: unknown
      if (code === 0x5d || code === 0x7d) {
        this.#at++
        around.pop()
        if (around.length === 0) return inside?.into
        continue
      } else if (code === 0x5b || code === 0x7b) {
        this.#at++
        // Without a prototype, `__proto__` is a name like any other.
        const into = code === 0x5b ? [] : (Object.create(null) as Record<string, unknown>)
        around.push({ into, name: undefined })
        value = into
      } else if (code === 0x22) {
        value = this.#string()
        if (inside && !Array.isArray(inside.into) && inside.name === undefined) {
          inside.name = value as string
          continue
        }
      } else value = this.#bare()
      if (inside) put(inside, value)
      else if (around.length === 0) return value
    }
  }

  /** The next character that stands for something. */
  #next(): number {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code > 0x20 && code !== 0x2c && code !== 0x3a) return code
      this.#at++
    }
  }

  #string(): string {
    const from = this.#at
    let escaped = false
    for (;;) {
      const code = this.#text.charCodeAt(++this.#at)
      if (code === 0x22) break
      if (code === 0x5c) {
        escaped = true
        this.#at++
      }
    }
    this.#at++
    return escaped
      ? (JSON.parse(this.#text.slice(from, this.#at)) as string)
      : this.#text.slice(from + 1, this.#at - 1)
  }

  /** A number, true, false or null. */
  #bare(): unknown {
    const from = this.#at
    while (!endsBare(this.#text.charCodeAt(this.#at))) this.#at++
    const text = this.#text.slice(from, this.#at)
    if (text === 'true') return true
    if (text === 'false') return false
    if (text === 'null') return null
    return text.length > safeDigits ? new LongNumber(text) : Number(text)
  }
}

function put(open: Open, value: unknown): void {
  if (Array.isArray(open.into)) open.into.push(value)
  else open.into[open.name!] = value
  open.name = undefined
}

/** White space, a comma, a closing bracket or the end of the text, whose code is NaN. */
function endsBare(code: number): boolean {
  return !(code > 0x20) || code === 0x2c || code === 0x5d || code === 0x7d
}
