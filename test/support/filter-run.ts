import assert from 'node:assert/strict'
import {
  createFilter,
  type Filter,
  type FilterConfig,
  filterSchema,
  type Judgement,
} from '../../agent/filter/filter.ts'
import type { StateChange } from '../../agent/state.ts'
import type { LaneRecord } from '../../shared/batch.ts'
import type { AdmittedReading, Arrival, Lane } from '../../shared/reading.ts'

export interface Logged {
  reading: AdmittedReading
  lane: Lane
  derived: boolean
}

/**
 * A filter beside a store that survives its kills: what a judgement says counts once it is committed, and
 * the ledger must balance then, every time.
 */
export class FilterRun {
  readonly log: Logged[] = []
  readonly alerts: (LaneRecord & { type: 'alert' })['content'][] = []
  readonly ledger = { received: 0, admitted: 0, suppressed: 0, absorbed: 0, held: 0 }
  readonly #store = new Map<string, Uint8Array>()
  #rules: FilterConfig
  #filter: Filter

  /** @param rules as an agent.yaml has them under `filter` */
  constructor(rules: unknown) {
    this.#rules = filterSchema.parse(rules)
    this.#filter = createFilter({ rules: this.#rules })
  }

  /** Judges a group; `crash` kills the process before it is committed, and the group is delivered again. */
  judge(readings: readonly AdmittedReading[], { crash = false } = {}): void {
    if (crash) {
      this.#filter.judge(readings.map((reading) => ({ ...reading })))
      this.restart()
    }
    const judgement = this.#filter.judge(readings.map((reading) => ({ ...reading })))
    this.#commit(judgement, readings.length)
  }

  tick(now: Arrival): void {
    this.#commit(this.#filter.tick(now), 0)
  }

  flush(): void {
    this.#commit(this.#filter.flush(), 0)
    assert.equal(this.ledger.held, 0)
  }

  forget(device: string, metric: string): void {
    this.#commit(this.#filter.forget([{ device, metric }]), 0)
  }

  checkpoint(maxBytes = 1 << 20): StateChange[] {
    const changes = this.#filter.checkpoint(maxBytes)
    this.#apply(changes)
    return changes
  }

  /** Kills the process, and starts another, maybe under other rules. */
  restart(rules?: unknown): void {
    if (rules !== undefined) this.#rules = filterSchema.parse(rules)
    this.#filter = createFilter({ rules: this.#rules, saved: this.saved() })
  }

  saved(): { key: string; value: Uint8Array }[] {
    return [...this.#store].map(([key, value]) => ({ key, value }))
  }

  get counts() {
    return this.#filter.counts
  }

  /** What is in the log of one series, in order of admission. */
  of(device: string, metric: string): Logged[] {
    return this.log.filter(
      ({ reading: { series } }) => series.device === device && series.metric === metric,
    )
  }

  #commit(judgement: Judgement, received: number): void {
    const { ledger } = this
    ledger.received += received
    ledger.suppressed += judgement.suppressed
    ledger.absorbed += judgement.absorbed
    ledger.held += judgement.held
    for (const { lane, reading, derived } of judgement.admitted) {
      this.log.push({ lane, reading, derived: derived ?? false })
      if (!derived) ledger.admitted++
    }
    for (const record of judgement.records) {
      assert.equal(record.type, 'alert')
      if (record.type === 'alert') this.alerts.push(record.content)
    }
    this.#apply(judgement.state)
    assert.equal(
      ledger.received,
      ledger.admitted + ledger.suppressed + ledger.absorbed + ledger.held,
      'the ledger balances',
    )
    assert.ok(ledger.held >= 0 && judgement.suppressed >= 0 && judgement.absorbed >= 0)
  }

  #apply(changes: readonly StateChange[]): void {
    for (const { space, key, value } of changes) {
      assert.equal(space, 'filter')
      if (value) this.#store.set(key, value)
      else assert.ok(this.#store.delete(key), `nothing to delete at ${key}`)
    }
  }
}
