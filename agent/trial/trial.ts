import type { LaneRecord, RecordValue } from '../../shared/batch.ts'
import type { AdmittedReading, Series } from '../../shared/reading.ts'
import { createFilter, type FilterConfig, type FilterCounts } from '../filter/filter.ts'
import type { RecordedRow, Recording } from './recording.ts'
import { SeriesTrial } from './series-trial.ts'
import { WireMeter } from './wire-meter.ts'

/** What became of one row of a recording. */
export interface TrialRow {
  /** As they stand in the recording. */
  time: string
  cell: string
  device: string
  metric: string
  /** A detector's score in [0, 1]; 0 where there is none. */
  score: number
  /** It raised a detection alert. */
  alarm: boolean
  /** `bad` is a row that is none. */
  verdict: 'admitted' | 'suppressed' | 'absorbed' | 'bad'
}

export interface TrialReport {
  name: string
  readings: number
  kept: number
  suppressed: number
  absorbed: number
  /** Readings that the filter made. */
  derived: number
  /** Readings that passed whole since their rule had as many series as it may. */
  beyondMaxSeries: number
  /** Readings that came behind their window and passed whole. */
  late: number
  /** Rows that are none, or have no value. */
  badRows: number
  /** Compressed, as they would go over the wire. */
  bytes: { before: number; after: number }
  series: ReturnType<SeriesTrial['report']>[]
  alerts: { [key: string]: RecordValue }[]
}

/** Looks at time between two readings at most so often: silence is seen this exactly. */
const looks = 60

/**
 * Runs the real filter over a recording, with the times at which its readings came, and keeps account of
 * what would have happened.
 */
export class Trial {
  readonly #rules: FilterConfig
  readonly #series = new Map<Series, SeriesTrial>()
  readonly #pending: Pending[] = []
  readonly #undecided = new Map<AdmittedReading, Undecided>()
  readonly #before = new WireMeter()
  readonly #after = new WireMeter()
  readonly #alerts: TrialReport['alerts'] = []
  #derived = 0
  #badRows = 0

  constructor(rules: FilterConfig) {
    this.#rules = rules
  }

  /** Gives every row, in order, as soon as it is decided. */
  async *run(recording: Recording): AsyncGenerator<TrialRow[], TrialReport> {
    const filter = createFilter({ rules: this.#rules, observer: this })
    const patient = this.#rules.some(({ check, reduce, window }) => check ?? reduce ?? window)
    let startMs: number | undefined
    let nowMs = 0
    for await (const rows of recording.rows()) {
      for (const row of rows) {
        if (!row.reading) {
          this.#bad(row)
          continue
        }
        startMs ??= nowMs = row.atMs
        if (patient) {
          const stepMs = Math.max(1000, (row.atMs - nowMs) / looks)
          for (let atMs = nowMs + stepMs; atMs < row.atMs; atMs += stepMs) {
            const wallMs = Math.floor(atMs)
            this.#account(filter.tick({ wallMs, monotonicMs: wallMs - startMs }))
          }
        }
        nowMs = row.atMs
        const arrival = { wallMs: nowMs, monotonicMs: nowMs - startMs }
        this.#account(filter.judge([this.#begin(row, { ...row.reading, arrival })]))
      }
      yield this.#decided()
    }
    this.#account(filter.flush())
    yield this.#decided()
    return this.#report(recording.name, filter.counts)
  }

  /** The filter tells of a reading that a detector has judged. */
  scored(reading: AdmittedReading, score: number, alarm: boolean): void {
    const { row } = this.#undecided.get(reading)!.pending
    row.score = score
    row.alarm = alarm
  }

  /** The filter tells of a verdict. */
  decided(reading: AdmittedReading, verdict: 'admitted' | 'suppressed' | 'absorbed'): void {
    const { pending, series, index } = this.#undecided.get(reading)!
    this.#undecided.delete(reading)
    pending.row.verdict = verdict
    pending.decided = true
    series.decide(index, verdict, reading)
  }

  #begin({ time, cell }: RecordedRow, reading: AdmittedReading): AdmittedReading {
    const { series } = reading
    this.#before.add({ ...reading })
    let trial = this.#series.get(series)
    if (!trial) {
      trial = new SeriesTrial(series)
      this.#series.set(series, trial)
    }
    const { device, metric } = series
    const pending = { row: rowOf({ time, cell, device, metric }), decided: false }
    this.#pending.push(pending)
    this.#undecided.set(reading, { pending, series: trial, index: trial.take(reading) })
    return reading
  }

  #bad({ time, cell }: RecordedRow): void {
    this.#badRows++
    const row = rowOf({ time, cell, device: '', metric: '' })
    this.#pending.push({ row: { ...row, verdict: 'bad' }, decided: true })
  }

  #account({
    admitted,
    records,
  }: {
    admitted: { reading: AdmittedReading; derived?: true }[]
    records: LaneRecord[]
  }): void {
    for (const { reading, derived } of admitted) {
      if (derived) this.#derived++
      this.#after.add(reading)
    }
    for (const record of records) {
      if (record.type === 'alert') this.#alerts.push(record.content)
      this.#after.addRecord(record)
    }
  }

  /** Takes the rows off that are decided, up to the first that is not. */
  #decided(): TrialRow[] {
    let end = 0
    while (end < this.#pending.length && this.#pending[end]!.decided) end++
    return this.#pending.splice(0, end).map(({ row }) => row)
  }

  /** What is known of each series, for who draws it. */
  get series(): readonly SeriesTrial[] {
    return [...this.#series.values()]
  }

  #report(name: string, { beyondMaxSeries, late }: FilterCounts): TrialReport {
    const series = [...this.#series.values()].map((trial) => trial.report(this.#alerts))
    const sum = (name: 'readings' | 'kept' | 'suppressed' | 'absorbed') =>
      series.reduce((total, one) => total + one[name], 0)
    return {
      name,
      readings: sum('readings'),
      kept: sum('kept'),
      suppressed: sum('suppressed'),
      absorbed: sum('absorbed'),
      derived: this.#derived,
      beyondMaxSeries,
      late,
      badRows: this.#badRows,
      bytes: { before: this.#before.bytes(), after: this.#after.bytes() },
      series,
      alerts: this.#alerts,
    }
  }
}

interface Pending {
  row: TrialRow
  decided: boolean
}

interface Undecided {
  pending: Pending
  series: SeriesTrial
  index: number
}

function rowOf(about: Pick<TrialRow, 'time' | 'cell' | 'device' | 'metric'>): TrialRow {
  return { ...about, score: 0, alarm: false, verdict: 'admitted' }
}
