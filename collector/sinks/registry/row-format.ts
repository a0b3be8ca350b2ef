import { type Column, columns, type Row } from '../columns.ts'
import type { FormatConfig } from '../registry.ts'
import { rowJson } from '../row-json.ts'
import { avroEncoder } from './avro.ts'
import { RegistryClient } from './client.ts'
import { avroSchema, jsonSchema } from './schemas.ts'

/** Makes the values of records as whoever asks the registry can read them. */
export interface RowFormat {
  /** Of what stands behind the first five bytes. */
  contentType: string
  /** Where the registry has the schema. */
  schemaUrl: string
  /** 0, the schema's number in four bytes, and the row. */
  encode(row: Row): Buffer
}

/** What is known of a reading before it is in the log. */
export const readingColumns: readonly Column[] = columns.filter(
  ({ name }) => !['content', 'log_partition', 'log_offset'].includes(name),
)

/**
 * Has the registry know the schema of a topic's values. Afterwards it is not asked again.
 *
 * @param name of the record in the schema
 * @throws RegistryFailure
 */
export async function openRowFormat(
  { format, registry }: FormatConfig,
  options: { topic: string; name: string; chosen?: readonly Column[] },
): Promise<RowFormat> {
  const { topic, name, chosen = columns } = options
  const isAvro = format === 'avro'
  const schema = (isAvro ? avroSchema : jsonSchema)(name, chosen)
  await using client = new RegistryClient(registry!)
  const id = await client.idOf(`${topic}-value`, schema)
  const prefix = Buffer.alloc(5)
  prefix.writeInt32BE(id, 1)
  const bodyOf = isAvro
    ? avroEncoder(schema, chosen)
    : (row: Row) => Buffer.from(rowJson(row, chosen))
  return {
    contentType: isAvro ? 'application/avro' : 'application/json',
    schemaUrl: client.addressOf(id),
    encode: (row) => Buffer.concat([prefix, bodyOf(row)]),
  }
}
