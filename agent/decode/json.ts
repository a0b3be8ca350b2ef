import { Quality, type Series } from '../../shared/reading.ts'
import type { Message } from '../source/message.ts'
import type { Format, Output, PayloadDecoder } from './format.ts'
import { LongNumber, parseExact } from './json-exact.ts'
import { FastReader } from './json-fast.ts'
import { isContainer, toValue, valueProblem } from './json-value.ts'
import type { MatchedTopic, OwnNames } from './matched-topic.ts'
import { follow, type Pointer, parsePointer } from './pointer.ts'
import { type DecodeRule, maxValues } from './rule.ts'
import { type Instant, readTime } from './time.ts'

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
      if (!(cause instanceof SyntaxError)) return 'not JSON: invalid UTF-8'
      return looksLikeText(message.payload)
        ? 'not JSON: plain text, which JSON wants in quotes'
        : `not JSON: ${oneLine(cause.message)}`
    }
    const pointer = this.timePointer
    const given = pointer && isContainer(document) ? follow(pointer, document) : undefined
    this.readTime(given instanceof LongNumber ? given.text : given, output)
    return this.put(document, topic, output)
  }

  /** Puts out the document's readings at `instant` with `quality`. */
  abstract put(document: unknown, topic: MatchedTopic, output: Output): string | undefined

  /** The arrival stands in for a time that is not there, and, marked, for one that cannot be meant. */
  readTime(given: unknown, output: Output): void {
    this.quality = Quality.good
    if (given !== undefined && given !== null) {
      if (readTime(given, this.#timeUnit, this.instant)) return
      this.quality = Quality.timeReplaced
    }
    this.instant.timeMs = output.arrival.wallMs
    this.instant.timeNanos = 0
  }

  /**
   * @param where the value's name or pointer, for a person
   * @returns why `found` is no value, or why its names name no series
   */
  reading(
    found: unknown,
    where: string,
    series: Series | string,
    output: Output,
  ): string | undefined {
    if (typeof series === 'string') return series
    const value = toValue(found)
    if (value === undefined) return `${oneLine(where)}: ${valueProblem(found)}`
    output.reading(series, this.instant.timeMs, this.instant.timeNanos, value, this.quality)
    return undefined
  }
}

/** It begins with a word that is none of JSON's. */
function looksLikeText(payload: Uint8Array): boolean {
  const begin = utf8Lenient.decode(payload.subarray(0, 16)).trimStart()
  return /^\p{L}/u.test(begin) && !/^(?:true|false|null|NaN|Infinity)/.test(begin)
}

/** One value, at a pointer, or the whole payload where that is a scalar. */
class OneValue extends JsonDecoder {
  readonly #text: string
  readonly #pointer: Pointer
  readonly #fast: FastReader | undefined

  constructor(rule: DecodeRule) {
    super(rule)
    this.#text = rule.value ?? '/v'
    this.#pointer = parsePointer(this.#text)
    this.#fast = FastReader.for(this.#pointer, this.timePointer)
  }

  override decode(message: Message, topic: MatchedTopic, output: Output): string | undefined {
    const fast = this.#fast
    if (!fast?.read(message.payload)) return super.decode(message, topic, output)
    this.readTime(fast.time, output)
    return this.#put(fast.value, topic, output)
  }

  override put(document: unknown, topic: MatchedTopic, output: Output): string | undefined {
    const found = isContainer(document) ? follow(this.#pointer, document) : document
    return this.#put(found, topic, output)
  }

  #put(found: unknown, topic: MatchedTopic, output: Output): string | undefined {
    if (found === undefined) return `no value at ${this.#text}`
    return this.reading(found, 'value', topic.series(undefined), output)
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
      const problem = this.reading(found, metric, topic.series(metric, own), output)
      if (problem) return problem
    }
    return some ? undefined : 'none of the values is there'
  }
}

/** Every scalar but the time, named by its path: `motor.phase.0`. */
class AllValues extends JsonDecoder {
  #count = 0

  override put(document: unknown, topic: MatchedTopic, output: Output): string | undefined {
    if (!isContainer(document)) {
      return this.reading(document, 'value', topic.series(undefined), output)
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
      else problem = this.reading(found, metric, topic.series(metric), output)
      if (problem) return problem
    }
    return undefined
  }
}

// A byte order mark stays in and is no JSON, as RFC 8259 would have it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const utf8Lenient = new TextDecoder()

/** Foreign text within a reason, which is one line for a person: nothing that a terminal would obey. */
function oneLine(text: string): string {
  const plain = text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
  return plain.length > 120 ? `${plain.slice(0, 119).toWellFormed()}…` : plain
}
