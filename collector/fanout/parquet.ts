import { rowOf } from '../sinks/columns.ts'
import { ParquetFile } from '../sinks/parquet/file.ts'
import type { LogRecord } from './record.ts'

/** Records in a row group: what is gathered before something is written, and encoded at a stretch. */
const groupRows = 10_000
/** Row groups of one file: what each says of itself stays in memory to its end. */
const maxGroups = 1_000

/** Records that are more than a file may have. */
export class ParquetTooLong extends Error {}

/** Records as a Parquet file like those of the sink, given out one row group after the other. */
export class ParquetStream {
  readonly #file = new ParquetFile()
  #groups = 0

  /** @returns bytes that are ready, maybe none @throws ParquetTooLong */
  add(records: readonly LogRecord[]): Uint8Array {
    for (const record of records) this.#file.add(rowOf(record))
    if (this.#file.pendingRows < groupRows) return none
    this.#groups += 1
    if (this.#groups > maxGroups)
      throw new ParquetTooLong(`over ${maxGroups * groupRows} records in one file: ask for less`)
    this.#file.encode()
    return this.#file.take()
  }

  /** @returns what is left of the file */
  end(): Uint8Array {
    return this.#file.finish()
  }
}

const none = new Uint8Array(0)
