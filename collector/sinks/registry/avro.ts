import avro, { type Type } from 'avsc'
import type { Column, Row } from '../columns.ts'
import type { Schema } from './schemas.ts'

/** Of one long at a time; the library changes it, and keeps nothing of it. */
const longBytes = Buffer.alloc(8)
const longView = new DataView(longBytes.buffer, longBytes.byteOffset, 8)

/** 64 bits whole, where the library's own goes to 53. */
const long = avro.types.LongType.__with({
  toBuffer: (value: number | bigint) => {
    longView.setBigInt64(0, BigInt(value), true)
    return longBytes
  },
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  isValid: (value: unknown) => typeof value === 'bigint' || Number.isSafeInteger(value),
  compare: (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0),
  toJSON: String,
  fromJSON: BigInt,
}) as unknown as Type

/** @param chosen what the schema was made of */
export function avroEncoder({ text }: Schema, chosen: readonly Column[]): (row: Row) => Buffer {
  const type = avro.Type.forSchema(JSON.parse(text), {
    typeHook: (schema) => (isLong(schema) ? long : undefined),
  })
  const objects = chosen.filter((column) => column.type === 'json').map(({ name }) => name)
  return (row) => {
    const record: Record<string, unknown> = { ...row }
    for (const name of objects) if (row[name] !== null) record[name] = JSON.stringify(row[name])
    return type.toBuffer(record)
  }
}

function isLong(schema: unknown): boolean {
  return schema === 'long' || (schema as { type?: unknown }).type === 'long'
}
