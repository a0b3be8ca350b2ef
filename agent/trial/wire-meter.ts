import {
  compress,
  encodeBatch,
  encodeItem,
  type Item,
  type LaneRecord,
} from '../../shared/batch.ts'
import type { AdmittedReading } from '../../shared/reading.ts'

/** Readings in a batch, as the uplink makes them by default when there is plenty. */
const perBatch = 10_000
const header = {
  agent: 'trial',
  incarnation: new Uint8Array(16),
  lane: 'bulk',
  before: { high: 0, low: 0 },
  after: { high: 0, low: 0 },
  predecessor: undefined,
  boot: new Uint8Array(16),
  sentMs: 0,
  ledger: undefined,
} as const

/** Counts bytes that readings and alerts would take on the wire, in full batches. */
export class WireMeter {
  #readings: AdmittedReading[] = []
  #records: LaneRecord[] = []
  #bytes = 0

  /** The reading is encoded later: it must not change. */
  add(reading: AdmittedReading): void {
    this.#readings.push(reading)
    if (this.#readings.length === perBatch) this.#send()
  }

  addRecord(record: LaneRecord): void {
    this.#records.push(record)
    if (this.#records.length === perBatch) this.#send()
  }

  bytes(): number {
    this.#send()
    return this.#bytes
  }

  #send(): void {
    const items: Item[] = []
    if (this.#readings.length > 0) items.push({ kind: 'readings', readings: this.#readings })
    if (this.#records.length > 0) items.push({ kind: 'records', records: this.#records })
    if (items.length === 0) return
    const last = this.#readings.length + this.#records.length
    const batch = encodeBatch({ ...header, first: 1, last }, items.map(encodeItem))
    this.#bytes += compress(batch, 'zstd').length
    this.#readings = []
    this.#records = []
  }
}
