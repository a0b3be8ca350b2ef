import crc32c from 'crc-32/crc32c.js'
import type { NewRecord } from './cluster.ts'

/** Whose batch it is, and where it stands among theirs. */
export interface Producer {
  id: bigint
  epoch: number
  /** Of the first record. */
  sequence: number
}

/**
 * A record batch of Kafka, version 2, of one transaction. The client makes one as well, but from a dozen
 * objects for each record, which costs ten times as much.
 *
 * ```
 *  0  8  offset: the broker's to fill in
 *  8  4  length of what follows
 * 12  4  leader's epoch: none
 * 16  1  version: 2
 * 17  4  CRC-32C of what follows
 * 21  2  attributes: 16 transactional, 4 zstd
 * 23  4  records less one
 * 27 16  time of the first and the latest, ms
 * 43 10  producer and epoch
 * 53  4  sequence of the first
 * 57  4  records
 * 61     records, compressed together
 * ```
 *
 * @param compress makes fewer bytes of the records; left out, they stay as they are
 * Source: Kafka protocol guide, "Record Batch".
 */
export function recordBatch(
  records: readonly NewRecord[],
  producer: Producer,
  compress?: (bytes: Uint8Array) => Uint8Array,
): Uint8Array {
  const first = records[0]!.timeMs
  const writer = new BytesWriter()
  for (const [at, record] of records.entries()) writeRecord(writer, record, at, first)
  const body = compress ? compress(writer.bytes()) : writer.bytes()
  const batch = Buffer.alloc(headBytes + body.length)
  batch.writeInt32BE(batch.length - 12, 8)
  batch.writeInt32BE(-1, 12)
  batch.writeInt8(2, 16)
  batch.writeInt16BE(compress ? 16 + 4 : 16, 21)
  batch.writeInt32BE(records.length - 1, 23)
  batch.writeBigInt64BE(BigInt(first), 27)
  batch.writeBigInt64BE(BigInt(Math.max(...records.map(({ timeMs }) => timeMs))), 35)
  batch.writeBigInt64BE(producer.id, 43)
  batch.writeInt16BE(producer.epoch, 51)
  batch.writeInt32BE(producer.sequence, 53)
  batch.writeInt32BE(records.length, 57)
  batch.set(body, headBytes)
  batch.writeInt32BE(crc32c.buf(batch.subarray(21), 0), 17)
  return batch
}

const headBytes = 61
const none: Readonly<Record<string, string>> = {}

function writeRecord(
  writer: BytesWriter,
  { key, value, headers = none, common = none, timeMs }: NewRecord,
  at: number,
  firstMs: number,
): void {
  const shared = encodedHeaders(common)
  const names = Object.keys(headers)
  scratch.clear()
  scratch.byte(0)
  scratch.varint(timeMs - firstMs)
  scratch.varint(at)
  scratch.text(key)
  scratch.varint(value.length)
  scratch.raw(value)
  scratch.varint(shared.count + names.length)
  scratch.raw(shared.bytes)
  for (const name of names) {
    scratch.text(name)
    scratch.text(headers[name]!)
  }
  const bytes = scratch.bytes()
  writer.varint(bytes.length)
  writer.raw(bytes)
}

/** Headers that many records have in common are encoded once. */
const encoded = new WeakMap<object, { count: number; bytes: Uint8Array }>()

function encodedHeaders(headers: Readonly<Record<string, string>>) {
  let found = encoded.get(headers)
  if (!found) {
    const writer = new BytesWriter()
    for (const [name, text] of Object.entries(headers)) {
      writer.text(name)
      writer.text(text)
    }
    found = { count: Object.keys(headers).length, bytes: writer.bytes() }
    encoded.set(headers, found)
  }
  return found
}

class BytesWriter {
  #bytes = Buffer.allocUnsafe(4096)
  #length = 0

  clear(): void {
    this.#length = 0
  }

  /** A view: good until the next is written. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  byte(value: number): void {
    this.#reserve(1)
    this.#bytes[this.#length++] = value
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
  }

  /** With its length in front. */
  text(text: string): void {
    const length = Buffer.byteLength(text)
    this.varint(length)
    this.#reserve(length)
    this.#length += this.#bytes.write(text, this.#length)
  }

  /** Zigzag, seven bits a byte, the lowest first. @param value integer within ±2^52 */
  varint(value: number): void {
    this.#reserve(8)
    let rest = value < 0 ? -2 * value - 1 : 2 * value
    while (rest > 127) {
      this.#bytes[this.#length++] = (rest % 128) + 128
      rest = Math.floor(rest / 128)
    }
    this.#bytes[this.#length++] = rest
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(2 * (this.#length + bytes))
    grown.set(this.#bytes.subarray(0, this.#length))
    this.#bytes = grown
  }
}

const scratch = new BytesWriter()
