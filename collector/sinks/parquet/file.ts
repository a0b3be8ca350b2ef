import { zstdCompressSync } from 'node:zlib'
import { ByteWriter, ParquetWriter } from 'hyparquet-writer'
import { type ColumnType, columns, type Row } from '../columns.ts'

type SchemaElement = ConstructorParameters<typeof ParquetWriter>[0]['schema'][0]

const elements: Record<ColumnType, Partial<SchemaElement>> = {
  timestamp: {
    type: 'INT64',
    converted_type: 'TIMESTAMP_MICROS',
    logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
  },
  text: { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } },
  id: { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } },
  // As text: not every reader knows Parquet's JSON, and all have functions for JSON in texts.
  json: { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } },
  double: { type: 'DOUBLE' },
  int16: { type: 'INT32', converted_type: 'INT_16' },
  int32: { type: 'INT32' },
  int64: { type: 'INT64' },
  bool: { type: 'BOOLEAN' },
}

const schema: SchemaElement[] = [
  { name: 'headgate', num_children: columns.length },
  ...columns.map(({ name, type, nullable }) => ({
    name,
    repetition_type: nullable ? ('OPTIONAL' as const) : ('REQUIRED' as const),
    ...elements[type],
  })),
]

/** Columns that questions choose rows by: readers pass over groups by their least and greatest values. */
const searched = new Set<string>(['time', 'device', 'metric', 'value', 'log_offset', 'arrived'])

const guessedRowBytes = 32

/** A file in the making: whole groups of rows are encoded and compressed, the last is still rows. */
export class ParquetFile {
  readonly #bytes = new ByteWriter()
  readonly #parquet = new ParquetWriter({
    writer: this.#bytes,
    schema,
    codec: 'ZSTD',
    compressors: { ZSTD: (bytes) => zstdCompressSync(bytes) },
    createdBy: 'headgate',
  })
  #pending: unknown[][] = columns.map(() => [])
  #encodedRows = 0

  /** Rows that are not encoded yet. */
  get pendingRows(): number {
    return this.#pending[0]!.length
  }

  /** About what the file would have. */
  get size(): number {
    const rowBytes =
      this.#encodedRows > 0 ? this.#bytes.offset / this.#encodedRows : guessedRowBytes
    return this.#bytes.offset + this.pendingRows * rowBytes
  }

  add(row: Row): void {
    for (let at = 0; at < columns.length; at++) {
      const { name, type } = columns[at]!
      this.#pending[at]!.push(physical(row[name], type))
    }
  }

  /** Makes a group of the rows that are pending. */
  encode(): void {
    const rows = this.pendingRows
    if (rows === 0) return
    const columnData = columns.map(({ name }, at) => ({
      name,
      data: this.#pending[at]!,
      statistics: searched.has(name),
    }))
    this.#pending = columns.map(() => [])
    // Without a flush of its own the writer does it at once.
    void this.#parquet.write({ columnData, rowGroupSize: rows })
    this.#encodedRows += rows
  }

  /** What is encoded by now and was not taken yet, for who does not keep the file whole. */
  take(): Uint8Array {
    const bytes = this.#bytes.getBytes().slice()
    this.#bytes.index = 0
    return bytes
  }

  /** The whole file, or what was not taken of it; nothing can be added then. */
  finish(): Uint8Array {
    this.encode()
    void this.#parquet.finish()
    return this.#bytes.getBytes()
  }
}

type Cell = Row[keyof Row]

/** As the writer takes it. */
function physical(value: Cell, type: ColumnType): unknown {
  if (value === null) return undefined
  if (type === 'json') return jsonText(value as object)
  return type === 'int64' ? BigInt(value as number | bigint) : value
}

/** Labels belong to a series, of which there are few. */
const known = new WeakMap<object, string>()

function jsonText(value: object): string {
  let text = known.get(value)
  if (text === undefined) {
    text = JSON.stringify(value)
    known.set(value, text)
  }
  return text
}
