import type { LogRecord } from '../../fanout/record.ts'
import { rowOf } from '../columns.ts'
import type { ParquetConfig } from '../parquet.ts'
import { timestampText } from '../row-json.ts'
import type { Slice } from '../sink.ts'
import { ParquetFile } from './file.ts'

/** Days in one cut: who sends times at random shall not have a thousand files open. */
const maxDays = 64
/** Rows of all files together that are not encoded yet, and bytes of what is long in them, about. */
const maxPendingRows = 10_000
const maxPendingBytes = 32 * 2 ** 20

/** What goes into files together: consecutive records of each partition, one file for each day. */
export class Cut {
  readonly #config: Pick<ParquetConfig, 'bytes' | 'date'>
  /** By day since 1970. */
  readonly #files = new Map<bigint, ParquetFile>()
  /** By partition, offset behind the last record that was looked at. */
  readonly to = new Map<number, number>()
  /** Where it begins. */
  first: { partition: number; offset: number } | undefined
  #pendingRows = 0
  #pendingBytes = 0

  constructor(config: Pick<ParquetConfig, 'bytes' | 'date'>) {
    this.#config = config
  }

  get isEmpty(): boolean {
    return this.#files.size === 0
  }

  /** Whether it should be written. */
  get isFull(): boolean {
    if (this.#files.size >= maxDays) return true
    let bytes = 0
    for (const file of this.#files.values()) bytes += file.size
    return bytes >= this.#config.bytes
  }

  /** @param records those of the slice that belong here */
  async add({ partition, from }: Slice, records: readonly LogRecord[], to: number): Promise<void> {
    this.first ??= { partition, offset: from }
    for (const [index, record] of records.entries()) {
      const row = rowOf(record)
      const day = dayOf(this.#config.date === 'time' ? row.time : row.arrived)
      let file = this.#files.get(day)
      if (!file) {
        file = new ParquetFile()
        this.#files.set(day, file)
      }
      file.add(row)
      this.#pendingRows += 1
      this.#pendingBytes += row.value_text?.length ?? (row.content ? 1_000 : 0)
      if (this.#pendingRows >= maxPendingRows || this.#pendingBytes >= maxPendingBytes)
        await this.#encode()
      else if (index % 1_000 === 999) await nextTurn()
    }
    this.to.set(partition, to)
  }

  /** Its files by their day, as in ISO 8601. */
  finish(): Map<string, Uint8Array> {
    const found = new Map<string, Uint8Array>()
    for (const [day, file] of this.#files)
      found.set(timestampText(day * dayMicros).split('T')[0]!, file.finish())
    return found
  }

  /** Those with many rows first, so that groups are large; half of the rows may stay. */
  async #encode(): Promise<void> {
    const files = [...this.#files.values()].sort((a, b) => b.pendingRows - a.pendingRows)
    const target = this.#pendingBytes >= maxPendingBytes ? 0 : maxPendingRows / 2
    for (const file of files) {
      if (this.#pendingRows <= target) break
      this.#pendingRows -= file.pendingRows
      file.encode()
      // It takes tens of milliseconds.
      await nextTurn()
    }
    this.#pendingBytes = 0
  }
}

const dayMicros = 86_400_000_000n

function dayOf(micros: bigint): bigint {
  return (micros - (((micros % dayMicros) + dayMicros) % dayMicros)) / dayMicros
}

/** Lets everybody else go first: what comes in must not wait for files. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
