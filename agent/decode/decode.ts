import type { QuarantinedMessage } from '../../shared/batch.ts'
import { BoundedMap } from '../../shared/bounded-map.ts'
import { type AdmittedReading, type Arrival, Quality, SeriesTable } from '../../shared/reading.ts'
import type { Message } from '../source/message.ts'
import type { StateChange, StateReader } from '../state.ts'
import { type Format, Output, type PayloadDecoder } from './format.ts'
import { jsonFormat } from './json.ts'
import { MatchedTopic } from './matched-topic.ts'
import type { DecodeConfig, DecodeRule } from './rule.ts'
import { TopicTemplate } from './topic.ts'

export { type DecodeConfig, type DecodeRule, decodeSchema } from './rule.ts'
export { filtersMeet, templateNames, topicFilter } from './topic.ts'

export interface DecoderOptions {
  rules: DecodeConfig
  /** The agent's name: the device where neither topic nor rule names one. */
  agent: string
  series?: SeriesTable
  /** By name; a rule's `format` is one of them. */
  formats?: Readonly<Record<string, Format>>
}

/** What a group of messages becomes. */
export interface Decoded {
  readings: AdmittedReading[]
  /** Readings of each message, in order; 0 for a reject. */
  counts: number[]
  rejects: QuarantinedMessage[]
  /** To be committed with the group. */
  state: StateChange[]
  /** To be published once the group is committed. */
  publish: { topic: string; payload: Uint8Array }[]
}

/** Topics, and series within them, whose rule and names are remembered at least. */
const rememberedTopics = 10_000
/** Longer topics are worked out anew each time, so that a hostile publisher cannot fill the memory. */
const longestRemembered = 256
/** Topics without a rule that are counted one by one. */
const maxUnmatched = 1_000

interface Rule {
  rule: DecodeRule
  template: TopicTemplate
  decoder: PayloadDecoder
}

/** Where the messages of a topic go. `topic` is undefined where no rule matches. */
interface Route {
  topic: MatchedTopic | undefined
  decoder: PayloadDecoder | undefined
}
const noRoute: Route = { topic: undefined, decoder: undefined }

/**
 * Turns messages into readings, by the first rule whose topic matches. It never throws: what cannot be
 * decoded comes back whole, with the reason. Its formats may keep state, which is of the group last
 * decoded: where a group's commit fails, make a new decoder and restore it.
 */
export class Decoder {
  readonly #rules: readonly Rule[]
  readonly #formats: Readonly<Record<string, Format>>
  readonly #agent: string
  readonly #table: SeriesTable
  readonly #routes = new BoundedMap<string, Route>(
    rememberedTopics,
    ({ topic }) => 1 + (topic?.weight ?? 0),
  )
  readonly #unmatched = new Map<string, number>()
  #unmatchedOthers = 0

  /** @throws RangeError on a rule that `decodeSchema` would have refused */
  constructor(options: DecoderOptions) {
    this.#formats = options.formats ?? { json: jsonFormat }
    this.#agent = options.agent
    this.#table = options.series ?? new SeriesTable()
    this.#rules = options.rules.map((rule) => {
      const format = this.#formats[rule.format]
      if (!format) throw new RangeError(`no format ${rule.format}`)
      return { rule, template: new TopicTemplate(rule.topic), decoder: format.prepare(rule) }
    })
  }

  /** Gives the formats back what they kept; to be called before the first message. */
  async restore(state: StateReader): Promise<void> {
    for await (const { key, value } of state.read('decode')) {
      const slash = key.indexOf('/')
      this.#formats[key.slice(0, slash)]?.restore?.(key.slice(slash + 1), value)
    }
  }

  decode(messages: readonly Message[], arrival: Arrival): Decoded {
    const output = new Output(arrival)
    const counts: number[] = []
    const rejects: QuarantinedMessage[] = []
    for (const message of messages) {
      const before = output.readings.length
      const reason = this.#decodeOne(message, output)
      if (reason !== undefined) rejects.push(reject(message, reason, arrival))
      counts.push(output.readings.length - before)
    }
    const { readings, state, publish } = output
    return { readings, counts, rejects, state, publish }
  }

  /**
   * Messages per topic that no rule matches, since the start, in order of first appearance. Long topics
   * are cut; those beyond the first 1,000 share a last row.
   */
  unmatchedTopics(): { topic: string; count: number }[] {
    const rows = [...this.#unmatched].map(([topic, count]) => ({ topic, count }))
    if (this.#unmatchedOthers > 0)
      rows.push({ topic: '(other topics)', count: this.#unmatchedOthers })
    return rows
  }

  /** @returns why it goes into quarantine, or undefined when its readings are in `output` */
  #decodeOne(message: Message, output: Output): string | undefined {
    if (message.fault !== undefined) return message.fault
    if (message.oversize)
      return `larger than source.maxMessageBytes: ${message.oversize.size} bytes`
    const { topic, decoder } = this.#route(message.topic)
    if (!topic || !decoder) {
      this.#countUnmatched(message.topic)
      return 'no rule for this topic'
    }
    const [readings, state, publish] = [
      output.readings.length,
      output.state.length,
      output.publish.length,
    ]
    const weight = topic.weight
    output.format = topic.rule.format
    output.quality = message.retained ? Quality.retained : Quality.good
    let reason: string | undefined
    try {
      reason = decoder.decode(message, topic, output)
    } catch (error) {
      // A mistake of ours. Were it to end the agent, the broker would send the same message again, for
      // ever; in quarantine it can be seen and repaired.
      reason = `decoder failed: ${error instanceof Error ? error.message : String(error)}`
    }
    if (topic.weight > weight) this.#routes.grow(topic.weight - weight)
    if (reason === undefined) return undefined
    output.readings.length = readings
    output.state.length = state
    output.publish.length = publish
    return reason
  }

  #route(topic: string): Route {
    const known = this.#routes.get(topic)
    if (known) return known
    const route = this.#findRoute(topic)
    if (topic.length <= longestRemembered) this.#routes.set(topic, route)
    return route
  }

  #findRoute(topic: string): Route {
    for (const { rule, template, decoder } of this.#rules) {
      const taken = template.match(topic)
      if (!taken) continue
      const names = new Map(template.names.map((name, index) => [name, taken[index]!]))
      const options = { agent: this.#agent, table: this.#table }
      return { topic: new MatchedTopic(rule, names, options), decoder }
    }
    return noRoute
  }

  #countUnmatched(topic: string): void {
    const key = topic.length > longestRemembered ? `${topic.slice(0, longestRemembered)}…` : topic
    const count = this.#unmatched.get(key)
    if (count === undefined && this.#unmatched.size >= maxUnmatched) this.#unmatchedOthers++
    else this.#unmatched.set(key, (count ?? 0) + 1)
  }
}

function reject(message: Message, reason: string, arrival: Arrival): QuarantinedMessage {
  const { topic, payload, oversize } = message
  return {
    topic,
    payload,
    size: oversize?.size ?? payload.length,
    sha256: oversize?.sha256,
    reason,
    arrival,
  }
}
