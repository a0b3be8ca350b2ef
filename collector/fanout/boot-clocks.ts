import { decodeBatch, inflate } from '../../shared/batch.ts'
import { type AdmittedReading, clocksSetAfterMs, Quality } from '../../shared/reading.ts'
import { maxInflatedBytes } from '../log/engine.ts'
import type { LogReader } from './fanout.ts'

/** A reading without a time of its own carries its arrival's, which batching may have coarsened by this. */
const arrivalToleranceMs = 1_000

/**
 * How far the clocks of gateways were off, boot by boot, from the records that they send once they know.
 * Read from the log when a reading first needs it, and again when one comes from a boot not known yet.
 */
export class BootClocks {
  readonly #log: LogReader
  readonly #offsets = new Map<string, number>()
  /** Ledger offset per partition up to which clock records have been read. */
  readonly #readTo = new Map<number, number>()

  constructor(log: LogReader) {
    this.#log = log
  }

  /**
   * True time less monotonic time in a boot, ms; undefined while its gateway has not told.
   *
   * @param partition where the log has the agent
   */
  async offsetOf(partition: number, agent: string, boot: Uint8Array): Promise<number | undefined> {
    const key = keyOf(agent, Buffer.from(boot).toString('hex'))
    if (!this.#offsets.has(key)) await this.#read(partition)
    return this.#offsets.get(key)
  }

  async #read(partition: number): Promise<void> {
    const fromOffset = this.#readTo.get(partition) ?? 0
    for await (const item of this.#log.read({ stream: 'ledger', partition, fromOffset })) {
      if (item.type === 'damage') continue
      this.#readTo.set(partition, item.feeds.ledger.first + item.feeds.ledger.count)
      const { items } = decodeBatch(inflate(item.body, item.encoding, maxInflatedBytes))
      for (const each of items)
        for (const record of each.kind === 'records' ? each.records : []) {
          if (record.type !== 'clock') continue
          const { boot, offsetMs } = record.content
          if (typeof boot === 'string' && typeof offsetMs === 'number')
            this.#offsets.set(keyOf(item.agent, boot), offsetMs)
        }
    }
  }
}

function keyOf(agent: string, boot: string): string {
  return `${agent}/${boot}`
}

/** Its time is the gateway's, from before the gateway's clock was set. */
export function isUnset({ timeMs, arrival }: AdmittedReading): boolean {
  return (
    arrival.wallMs < clocksSetAfterMs && Math.abs(timeMs - arrival.wallMs) <= arrivalToleranceMs
  )
}

/**
 * The reading at its true time, marked.
 *
 * @param offsetMs true time less monotonic time, in the reading's boot
 */
export function shifted(reading: AdmittedReading, offsetMs: number): AdmittedReading {
  const { timeMs, arrival, quality } = reading
  const byMs = Math.round(offsetMs - (arrival.wallMs - arrival.monotonicMs))
  return {
    ...reading,
    timeMs: timeMs + byMs,
    quality: quality | Quality.clockRepaired,
    arrival: { ...arrival, wallMs: arrival.wallMs + byMs },
  }
}
