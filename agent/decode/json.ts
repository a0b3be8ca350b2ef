import { Quality, type Series, type Value } from '../../shared/reading.ts'
import type { Message } from '../source/message.ts'
import type { Format, Output, PayloadDecoder } from './format.ts'
import { LongNumber, parseExact } from './json-exact.ts'
import type { MatchedTopic, OwnNames } from './matched-topic.ts'
import { follow, type Pointer, parsePointer } from './pointer.ts'
import { type DecodeRule, maxValues } from './rule.ts'
import { type Instant, readTime } from './time.ts'

/** Longest value that is text, bytes of UTF-8. */
const maxTextBytes = 256
/** Deepest nesting where every scalar is a value. */
const maxDepth = 16

/** JSON (RFC 8259): a scalar, or a document with its values and time at JSON Pointers. */
export const jsonFormat: Format = {
  prepare(rule) {
    if (rule.values === 'all') return new AllValues(rule)
    return rule.values ? new NamedValues(rule, rule.values) : new OneValue(rule)
  },
}

/** What the decoders below share: reading text, time and values. */
abstract class JsonDecoder implements PayloadDecoder {
  readonly timePointer: Pointer | undefined
  readonly #timeUnit: DecodeRule['timeUnit']
  /** Time and quality of the message in hand. */
  readonly instant: Instant = { timeMs: 0, timeNanos: 0 }
  quality: number = Quality.good

  constructor(rule: DecodeRule) {
    this.timePointer = rule.time === 'none' ? undefined : parsePointer(rule.time)
    this.#timeUnit = rule.timeUnit
  }

  decode(message: Message, topic: MatchedTopic, output: Output): string | undefined {
    if (message.payload.length === 0) return 'empty payload'
    let document: unknown
    try {
      document = parseExact(utf8.decode(message.payload))
    } catch (cause) {
      return cause instanceof SyntaxError
        ? `not JSON: ${oneLine(cause.message)}`
        : 'not JSON: invalid UTF-8'
    }
    this.#readTime(document, output)
    return this.put(document, topic, output)
  }

  /** Puts out the document's readings at `instant` with `quality`. */
  abstract put(document: unknown, topic: MatchedTopic, output: Output): string | undefined

  /** The arrival stands in for a time that is not there, and, marked, for one that cannot be meant. */
  #readTime(document: unknown, output: Output): void {
    const given =
      this.timePointer && isContainer(document) ? follow(this.timePointer, document) : undefined
    this.quality = Quality.good
    if (given !== undefined && given !== null) {
      const written = given instanceof LongNumber ? given.text : given
      if (readTime(written, this.#timeUnit, this.instant)) return
      this.quality = Quality.timeReplaced
    }
    this.instant.timeMs = output.arrival.wallMs
    this.instant.timeNanos = 0
  }

  /** @returns why `found` is no value, or why its names name no series */
  reading(found: unknown, series: Series | string, output: Output): string | undefined {
    if (typeof series === 'string') return series
    const value = toValue(found)
    if (value === undefined) return valueProblem(found)
    output.reading(series, this.instant.timeMs, this.instant.timeNanos, value, this.quality)
    return undefined
  }
}

/** One value, at a pointer, or the whole payload where that is a scalar. */
class OneValue extends JsonDecoder {
  readonly #pointer: Pointer
  readonly #text: string

  constructor(rule: DecodeRule) {
    super(rule)
    this.#text = rule.value ?? '/v'
    this.#pointer = parsePointer(this.#text)
  }

  override put(document: unknown, topic: MatchedTopic, output: Output): string | undefined {
    const found = isContainer(document) ? follow(this.#pointer, document) : document
    if (found === undefined) return `no value at ${this.#text}`
    const problem = this.reading(found, topic.series(undefined), output)
    return problem && `value: ${problem}`
  }
}

/** Values by name. A message may have some of them only. */
class NamedValues extends JsonDecoder {
  readonly #values: readonly { metric: string; pointer: Pointer; own: OwnNames }[]

  constructor(rule: DecodeRule, values: Exclude<DecodeRule['values'], 'all' | undefined>) {
    super(rule)
    this.#values = values.map(({ metric, value, ...own }) => ({
      metric,
      pointer: parsePointer(value),
      own,
    }))
  }

  override put(document: unknown, topic: MatchedTopic, output: Output): string | undefined {
    let some = false
    for (const { metric, pointer, own } of this.#values) {
      const found = follow(pointer, document)
      if (found === undefined) continue
      some = true
      const problem = this.reading(found, topic.series(metric, own), output)
      if (problem) return `${metric}: ${problem}`
    }
    return some ? undefined : 'none of the values is there'
  }
}

/** Every scalar but the time, named by its path: `motor.phase.0`. */
class AllValues extends JsonDecoder {
  #count = 0

  override put(document: unknown, topic: MatchedTopic, output: Output): string | undefined {
    if (!isContainer(document)) {
      const problem = this.reading(document, topic.series(undefined), output)
      return problem && `value: ${problem}`
    }
    this.#count = 0
    const pointer = this.timePointer
    const timeIn =
      pointer && pointer.length > 0 ? follow(pointer.slice(0, -1), document) : undefined
    const problem = this.#walk(document, undefined, 1, timeIn, topic, output)
    return problem ?? (this.#count > 0 ? undefined : 'no values')
  }

  #walk(
    container: object,
    path: string | undefined,
    depth: number,
    timeIn: unknown,
    topic: MatchedTopic,
    output: Output,
  ): string | undefined {
    if (depth > maxDepth) return `nested deeper than ${maxDepth}`
    for (const name of Object.keys(container)) {
      const found = (container as Record<string, unknown>)[name]
      const metric = path === undefined ? name : `${path}.${name}`
      let problem: string | undefined
      if (isContainer(found)) problem = this.#walk(found, metric, depth + 1, timeIn, topic, output)
      else if (container === timeIn && name === this.timePointer?.at(-1)) continue
      else if (++this.#count > maxValues) return `more than ${maxValues} values`
      else {
        problem = this.reading(found, topic.series(metric), output)
        if (problem) problem = `${oneLine(metric)}: ${problem}`
      }
      if (problem) return problem
    }
    return undefined
  }
}

// A byte order mark stays in and is no JSON, as RFC 8259 would have it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function isContainer(found: unknown): found is object {
  return typeof found === 'object' && found !== null && !(found instanceof LongNumber)
}

/** Undefined where `found` is no value that a reading can have; `valueProblem` then says why. */
function toValue(found: unknown): Value | undefined {
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

function valueProblem(found: unknown): string {
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

/** Foreign text within a reason, which is one line for a person. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go
  const plain = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').toWellFormed()
  return plain.length > 120 ? `${plain.slice(0, 119).toWellFormed()}…` : plain
}
