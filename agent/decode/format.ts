import type { AdmittedReading, Arrival, Series, Value } from '../../shared/reading.ts'
import { Quality } from '../../shared/reading.ts'
import type { Message } from '../source/message.ts'
import type { StateChange } from '../state.ts'
import type { MatchedTopic } from './matched-topic.ts'
import type { DecodeRule } from './rule.ts'

/** A payload format. There is one object a format and decoder, so its rules can share what it learns. */
export interface Format {
  /** Prepares what decodes a rule's messages. */
  prepare(rule: DecodeRule): PayloadDecoder
  /** Takes back, before the first message, an entry that `Output.keep` has put away. */
  restore?(key: string, value: Uint8Array): void
}

export interface PayloadDecoder {
  /**
   * Puts a message's readings out, in order, and whatever else it leads to. Bad bytes are no reason to
   * throw.
   *
   * @returns why the message cannot be decoded, one line: it then goes whole into quarantine, and what
   *   it put out is taken back; undefined when it is decoded
   */
  decode(message: Message, topic: MatchedTopic, output: Output): string | undefined
}

/** What a group of messages leads to: readings, state that commits with them, messages to publish. */
export class Output {
  readonly readings: AdmittedReading[] = []
  readonly state: StateChange[] = []
  readonly publish: { topic: string; payload: Uint8Array }[] = []
  readonly arrival: Arrival
  /** Set by the decoder for each message: its format's name and its share of every reading's quality. */
  format = ''
  quality: number = Quality.good

  constructor(arrival: Arrival) {
    this.arrival = arrival
  }

  /** @param quality bits beside those that the message itself gives */
  reading(series: Series, timeMs: number, timeNanos: number, value: Value, quality: number): void {
    this.readings.push({
      series,
      timeMs,
      timeNanos,
      value,
      quality: quality | this.quality,
      arrival: this.arrival,
    })
  }

  /** Puts state away under the format's own name, in the group's atomic write; undefined deletes. */
  keep(key: string, value: Uint8Array | undefined): void {
    this.state.push({ space: 'decode', key: `${this.format}/${key}`, value })
  }

  /** Asks the source to publish, once the group is committed. */
  ask(topic: string, payload: Uint8Array): void {
    this.publish.push({ topic, payload })
  }
}
