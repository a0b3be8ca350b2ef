import { createHash, type Hash } from 'node:crypto'
import { protocolFailure } from './failure.ts'
import type { Message } from './message.ts'
import type { PieceSink } from './scanner.ts'
import type { TopicEntry, TopicTable } from './topic-table.ts'

/** How much of a payload that is over the limit is kept. */
const keptBytes = 64 * 1024
/** Longest properties of a PUBLISH, bytes. */
const maxPropertyBytes = 64 * 1024

/**
 * Reads PUBLISH packets. What follows the fixed header (MQTT 3.3.2):
 *
 *     topic length 2 | topic | packet id 2, if QoS > 0 | property length 1-4 | properties | payload
 *                                                        `------- MQTT 5 only -------'
 */
export class PublishReader {
  readonly #topics: TopicTable
  readonly #version5: boolean
  /** When the bytes at hand arrived, monotonic clock. */
  nowMs = 0

  constructor(topics: TopicTable, version5: boolean) {
    this.#topics = topics
    this.#version5 = version5
  }

  /** The message in `bytes[start … end)`; its payload is a view, not a copy. @throws SourceFailure */
  read(flags: number, bytes: Uint8Array, start: number, end: number): Message {
    const at = this.headerEnd(flags, bytes, start, end)
    if (at === undefined || at > end) throw protocolFailure('a PUBLISH shorter than its header')
    return this.message(flags, bytes, start, bytes.subarray(at, end))
  }

  /**
   * Where the payload begins; undefined while `end` comes before that can be known.
   *
   * @throws SourceFailure
   */
  headerEnd(flags: number, bytes: Uint8Array, start: number, end: number): number | undefined {
    if (end - start < 2) return undefined
    let at = start + 2 + uint16(bytes, start)
    if ((flags & 6) !== 0) {
      if (at + 2 > end) return undefined
      if (uint16(bytes, at) === 0) throw protocolFailure('a PUBLISH with packet id 0')
      at += 2
    }
    return this.#version5 ? skipProperties(bytes, at, end) : at
  }

  /** @param payload the payload, or the kept part of it @throws SourceFailure */
  message(flags: number, bytes: Uint8Array, start: number, payload: Uint8Array): Message {
    const qos = (flags >> 1) & 3
    if (qos > 1)
      throw protocolFailure(
        qos === 3
          ? 'a PUBLISH with QoS 3'
          : 'a PUBLISH with QoS 2, though we subscribe with QoS 1: if another program has used this ' +
              'client id, choose another source.clientId',
      )
    const topicEnd = start + 2 + uint16(bytes, start)
    const entry: TopicEntry = this.#topics.find(bytes, start + 2, topicEnd, this.nowMs)
    const message: Message = {
      topic: entry.topic,
      payload,
      qos: qos as 0 | 1,
      retained: (flags & 1) !== 0,
      duplicate: (flags & 8) !== 0,
      packetId: qos === 0 ? 0 : uint16(bytes, topicEnd),
    }
    if (entry.fault !== undefined) message.fault = entry.fault
    return message
  }
}

/**
 * Takes a PUBLISH that is too long to be held whole. A payload over the limit leaves its first 64 KiB, its
 * size and its SHA-256; one that is not (the header was long) comes whole.
 */
export class LargePublish implements PieceSink {
  readonly #reader: PublishReader
  readonly #flags: number
  readonly #length: number
  readonly #maxPayloadBytes: number
  readonly #done: (message: Message) => void
  /** The header as it gathers, then as it is. */
  #header = new Uint8Array(256)
  #headerFilled = 0
  #headerDone = false
  #kept = new Uint8Array(0)
  #filled = 0
  #hash: Hash | undefined

  constructor(options: {
    reader: PublishReader
    flags: number
    /** All that follows the fixed header, bytes. */
    length: number
    maxPayloadBytes: number
    done: (message: Message) => void
  }) {
    this.#reader = options.reader
    this.#flags = options.flags
    this.#length = options.length
    this.#maxPayloadBytes = options.maxPayloadBytes
    this.#done = options.done
  }

  piece(bytes: Uint8Array): void {
    if (this.#headerDone) this.#payload(bytes)
    else this.#head(bytes)
  }

  #head(bytes: Uint8Array): void {
    this.#gather(bytes)
    const end = this.#reader.headerEnd(this.#flags, this.#header, 0, this.#headerFilled)
    if (end === undefined || end > this.#headerFilled) return
    const size = this.#length - end
    const rest = this.#header.subarray(end, this.#headerFilled)
    this.#header = this.#header.subarray(0, end)
    this.#headerDone = true
    if (size > this.#maxPayloadBytes) this.#hash = createHash('sha256')
    this.#kept = new Uint8Array(this.#hash ? Math.min(size, keptBytes) : size)
    this.#payload(rest)
  }

  #gather(bytes: Uint8Array): void {
    const filled = this.#headerFilled + bytes.length
    if (filled > this.#header.length) {
      const larger = new Uint8Array(2 * filled)
      larger.set(this.#header.subarray(0, this.#headerFilled))
      this.#header = larger
    }
    this.#header.set(bytes, this.#headerFilled)
    this.#headerFilled = filled
  }

  #payload(bytes: Uint8Array): void {
    this.#hash?.update(bytes)
    const length = Math.min(bytes.length, this.#kept.length - this.#filled)
    this.#kept.set(bytes.subarray(0, length), this.#filled)
    this.#filled += length
  }

  end(): void {
    if (!this.#headerDone) throw protocolFailure('a PUBLISH shorter than its header')
    const message = this.#reader.message(this.#flags, this.#header, 0, this.#kept)
    if (this.#hash)
      message.oversize = {
        size: this.#length - this.#header.length,
        sha256: new Uint8Array(this.#hash.digest()),
      }
    this.#done(message)
  }
}

/** Length of each property that a PUBLISH may have (MQTT 5, 2.2.2.2): bytes, or how it is written. */
const propertyKinds: Readonly<Record<number, number | 'varint' | 'text' | 'pair'>> = {
  1: 1, // payload format indicator
  2: 4, // message expiry interval
  3: 'text', // content type
  8: 'text', // response topic
  9: 'text', // correlation data
  11: 'varint', // subscription identifier
  38: 'pair', // user property
}
const topicAlias = 35

/** Where the properties that begin at `at` end; undefined while `end` comes before that can be known. */
function skipProperties(bytes: Uint8Array, at: number, end: number): number | undefined {
  let position = at
  let length = 0
  for (let shift = 0; ; shift += 7) {
    if (position >= end) return undefined
    const byte = bytes[position++]!
    length += (byte & 0x7f) << shift
    if (byte < 0x80) break
    if (shift === 21) throw protocolFailure('a property length of more than 4 bytes')
  }
  if (length > maxPropertyBytes) throw protocolFailure(`${length} bytes of properties in a PUBLISH`)
  const propertiesEnd = position + length
  if (propertiesEnd > end) return undefined
  while (position < propertiesEnd) position = skipProperty(bytes, position, propertiesEnd)
  if (position > propertiesEnd) throw protocolFailure('a property that ends beyond the properties')
  return propertiesEnd
}

function skipProperty(bytes: Uint8Array, at: number, end: number): number {
  const kind = propertyKinds[bytes[at]!]
  if (bytes[at] === topicAlias) throw protocolFailure('a topic alias, though we allow none')
  if (kind === undefined) throw protocolFailure(`property ${bytes[at]} in a PUBLISH`)
  let position = at + 1
  if (typeof kind === 'number') return position + kind
  if (kind === 'varint') {
    while (position < end && bytes[position]! >= 0x80) position += 1
    return position + 1
  }
  for (let texts = kind === 'pair' ? 2 : 1; texts > 0; texts--) {
    if (position + 2 > end) throw protocolFailure('a property that ends beyond the properties')
    position += 2 + uint16(bytes, position)
  }
  return position
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}
