import type { Column, ColumnType } from '../columns.ts'

/** As a registry names its kinds. */
export interface Schema {
  kind: 'AVRO' | 'JSON'
  text: string
}

/**
 * Columns are only ever extended, by such as may be null. So whoever has a later schema reads what was
 * written under an earlier one, and the registry may be left at `BACKWARD`, which is its default.
 *
 * Every column has one type, and null where it may be: of a union of several Kafka Connect makes a
 * structure, which a table's column does not take.
 */
export function avroSchema(name: string, chosen: readonly Column[]): Schema {
  const fields = chosen.map(({ name: column, type, nullable }) =>
    nullable
      ? { name: column, type: ['null', avroTypes[type]], default: null }
      : { name: column, type: avroTypes[type] },
  )
  return {
    kind: 'AVRO',
    text: JSON.stringify({ type: 'record', name, namespace: 'headgate', fields }),
  }
}

/** Of what `rowJson` writes. A model that is closed may be extended under `BACKWARD`; an open one may not. */
export function jsonSchema(name: string, chosen: readonly Column[]): Schema {
  return {
    kind: 'JSON',
    text: JSON.stringify({
      $schema: 'http://json-schema.org/draft-07/schema#',
      title: `headgate.${name}`,
      type: 'object',
      properties: Object.fromEntries(
        chosen.map(({ name: column, type }) => [column, jsonTypes[type]]),
      ),
      required: chosen.filter(({ nullable }) => !nullable).map(({ name: column }) => column),
      additionalProperties: false,
    }),
  }
}

const avroTypes: Record<ColumnType, string | object> = {
  timestamp: { type: 'long', logicalType: 'timestamp-micros' },
  text: 'string',
  // As a text, since there is no type for what a record says, and tables take no maps.
  json: 'string',
  double: 'double',
  int16: 'int',
  int32: 'int',
  int64: 'long',
  bool: 'boolean',
  id: 'string',
}

const jsonTypes: Record<ColumnType, object> = {
  timestamp: { type: 'string', format: 'date-time' },
  text: { type: 'string' },
  json: { type: 'object' },
  double: { oneOf: [{ type: 'number' }, { enum: ['NaN', 'Infinity', '-Infinity'] }] },
  int16: { type: 'integer' },
  int32: { type: 'integer' },
  int64: { type: 'integer' },
  bool: { type: 'boolean' },
  id: { type: 'string' },
}
