import { ByteWriter, ParquetWriter, type SchemaElement } from 'hyparquet-writer'
import { type ColumnType, columns, type Row, rowOf } from '../sinks/columns.ts'
import type { LogRecord } from './record.ts'

/** Records in a row group: what is gathered before something is written, and encoded at a stretch. */
const groupRows = 10_000
/** Row groups of one file: what each says of itself stays in memory to its end. */
const maxGroups = 10_000

const types: Record<ColumnType, Partial<SchemaElement>> = {
  timestamp: {
    type: 'INT64',
    converted_type: 'TIMESTAMP_MICROS',
    logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
  },
  text: { type: 'BYTE_ARRAY', converted_type: 'UTF8' },
  json: { type: 'BYTE_ARRAY', converted_type: 'JSON' },
  double: { type: 'DOUBLE' },
  int16: { type: 'INT32', converted_type: 'INT_16' },
  int32: { type: 'INT32', converted_type: 'INT_32' },
  int64: { type: 'INT64', converted_type: 'INT_64' },
  bool: { type: 'BOOLEAN' },
  id: { type: 'BYTE_ARRAY', converted_type: 'UTF8' },
}

const schema: SchemaElement[] = [
  { name: 'record', num_children: columns.length },
  ...columns.map(({ name, type, nullable }) => ({
    name,
    ...types[type],
    repetition_type: nullable ? ('OPTIONAL' as const) : ('REQUIRED' as const),
  })),
]

/** Records that are more than a file may have. */
export class ParquetTooLong extends Error {}

/** Writes records as a Parquet file, a row group after the other, with the columns of the sinks. */
export class ParquetFile {
  readonly #writer = new ByteWriter()
  readonly #file = new ParquetWriter({ writer: this.#writer, schema })
  #rows: Row[] = []
  #groups = 0

  /** @returns bytes that are ready, maybe none @throws ParquetTooLong */
  add(records: readonly LogRecord[]): Uint8Array {
    for (const record of records) this.#rows.push(rowOf(record))
    return this.#rows.length < groupRows ? none : this.#flush()
  }

  /** @returns what is left of the file */
  end(): Uint8Array {
    if (this.#rows.length > 0) this.#write()
    void this.#file.finish() // At once, as its writer is.
    return this.#take()
  }

  #flush(): Uint8Array {
    this.#write()
    return this.#take()
  }

  #write(): void {
    this.#groups += 1
    if (this.#groups > maxGroups)
      throw new ParquetTooLong(`over ${maxGroups * groupRows} records in one file: ask for less`)
    const rows = this.#rows
    this.#rows = []
    const columnData = columns.map(({ name, type }) => ({
      name,
      offsetIndex: false,
      data: rows.map((row) => (type === 'int64' ? wide(row[name]) : row[name])),
    }))
    void this.#file.write({ columnData, rowGroupSize: rows.length })
  }

  #take(): Uint8Array {
    const bytes = this.#writer.getBytes().slice()
    this.#writer.index = 0
    return bytes
  }
}

const none = new Uint8Array(0)

function wide(value: Row[keyof Row]): bigint | null {
  return value === null ? null : BigInt(value as number | bigint)
}
