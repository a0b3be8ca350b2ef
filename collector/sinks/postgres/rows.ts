import type { LogRecord } from '../../fanout/record.ts'
import { type ColumnType, columns, type Row, rowOf } from '../columns.ts'
import type { Refusal } from '../sink.ts'

/*
 * COPY's binary format:
 *
 *   "PGCOPY\n\377\r\n\0"  flags int32 = 0  extension int32 = 0
 *   rows:  fields int16, each field: length int32 (−1 null), bytes
 *   end:   int16 = −1
 *
 * Numbers are big-endian. A timestamp counts microseconds from 2000; jsonb begins with its version, 1.
 */
const head = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1')
const tail = Buffer.from([0xff, 0xff])

const epochMicros = 946_684_800_000_000n
/** 4713 BC, before which PostgreSQL has no time; its end is later than any record's. */
const firstMicros = epochMicros - 211_813_488_000_000_000n

/** What PostgreSQL calls the columns' types. */
export const sqlTypes: Record<ColumnType, string> = {
  timestamp: 'timestamptz',
  text: 'text',
  json: 'jsonb',
  double: 'double precision',
  int16: 'smallint',
  int32: 'integer',
  int64: 'bigint',
  bool: 'boolean',
  id: 'uuid',
}

/** Records as rows for COPY, less those that PostgreSQL cannot have. */
export class Rows {
  readonly records: LogRecord[] = []
  readonly refused: Refusal[] = []
  /** Of each row the day since 1970 that its time is in, and the one that it arrived on. */
  readonly days: { day: number; arrived: number }[] = []
  readonly #ends: number[] = []
  readonly #bytes: Buffer

  constructor(records: readonly LogRecord[]) {
    const writer = new Writer()
    let last = ''
    for (const record of records) {
      const row = rowOf(record)
      const reason = problemOf(row)
      if (reason !== undefined) {
        this.refused.push({ record, reason })
        continue
      }
      writer.int16(columns.length)
      for (const { name, type } of columns) writeField(writer, type, row[name])
      this.#ends.push(writer.length)
      this.records.push(record)
      const [day, arrived] = [dayOf(row.time), dayOf(row.arrived)]
      const key = `${day} ${arrived}`
      if (key !== last) this.days.push({ day, arrived })
      last = key
    }
    this.#bytes = writer.take()
  }

  get count(): number {
    return this.records.length
  }

  /** What COPY is sent for some of the rows. */
  copy(from: number, to: number): Buffer {
    const start = from === 0 ? 0 : this.#ends[from - 1]!
    return Buffer.concat([head, this.#bytes.subarray(start, this.#ends[to - 1]), tail])
  }
}

/** Why PostgreSQL cannot have a row; what is not foreseen here it tells itself. */
function problemOf(row: Row): string | undefined {
  if (row.time < firstMicros) return 'time: PostgreSQL has none before 4713 BC'
  for (const { name, type } of columns) {
    const value = row[name]
    if (value === null) continue
    const hasNul =
      type === 'text'
        ? (value as string).includes('\0')
        : type === 'json' && escapedNul.test(jsonText(value as object))
    if (hasNul) return `${name}: PostgreSQL takes no character with code 0 in a text`
  }
  return undefined
}

/** An odd number of backslashes makes it the character, not its spelling. */
const escapedNul = /(?<!\\)(?:\\\\)*\\u0000/

function writeField(writer: Writer, type: ColumnType, value: Row[keyof Row]): void {
  if (value === null) {
    writer.int32(-1)
    return
  }
  switch (type) {
    case 'timestamp':
      writer.int32(8)
      writer.int64((value as bigint) - epochMicros)
      break
    case 'int64':
      writer.int32(8)
      writer.int64(BigInt(value as number | bigint))
      break
    case 'int32':
      writer.int32(4)
      writer.int32(value as number)
      break
    case 'int16':
      writer.int32(2)
      writer.int16(value as number)
      break
    case 'double':
      writer.int32(8)
      writer.double(value as number)
      break
    case 'bool':
      writer.int32(1)
      writer.byte(value ? 1 : 0)
      break
    case 'id':
      writer.int32(16)
      writer.hex(value as string)
      break
    case 'text':
      writer.text(value as string, 0)
      break
    case 'json':
      writer.text(jsonText(value as object), 1)
      break
  }
}

/** Labels belong to a series, and come again and again. */
const texts = new WeakMap<object, string>()

function jsonText(value: object): string {
  let text = texts.get(value)
  if (text === undefined) {
    text = JSON.stringify(value)
    texts.set(value, text)
  }
  return text
}

const dayMicros = 86_400_000_000

function dayOf(micros: bigint): number {
  return Math.floor(Number(micros) / dayMicros)
}

/** Bytes that grow at their end. */
class Writer {
  #bytes = Buffer.allocUnsafe(64 * 1024)
  length = 0

  take(): Buffer {
    return this.#bytes.subarray(0, this.length)
  }

  byte(value: number): void {
    this.#reserve(1)
    this.length = this.#bytes.writeUInt8(value, this.length)
  }

  int16(value: number): void {
    this.#reserve(2)
    this.length = this.#bytes.writeInt16BE(value, this.length)
  }

  int32(value: number): void {
    this.#reserve(4)
    this.length = this.#bytes.writeInt32BE(value, this.length)
  }

  int64(value: bigint): void {
    this.#reserve(8)
    this.length = this.#bytes.writeBigInt64BE(value, this.length)
  }

  double(value: number): void {
    this.#reserve(8)
    this.length = this.#bytes.writeDoubleBE(value, this.length)
  }

  hex(digits: string): void {
    this.#reserve(digits.length / 2)
    this.length += this.#bytes.write(digits, this.length, 'hex')
  }

  /** With its length in front, and a version byte where the type has one. */
  text(text: string, version: number): void {
    const lead = version === 0 ? 4 : 5
    this.#reserve(lead + 3 * text.length)
    const start = this.length
    const bytes = this.#bytes.write(text, start + lead, 'utf8')
    this.#bytes.writeInt32BE(bytes + lead - 4, start)
    if (version !== 0) this.#bytes.writeUInt8(version, start + 4)
    this.length = start + lead + bytes
  }

  #reserve(more: number): void {
    const needed = this.length + more
    if (needed <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length))
    this.#bytes.copy(grown, 0, 0, this.length)
    this.#bytes = grown
  }
}
