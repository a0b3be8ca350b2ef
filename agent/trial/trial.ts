import type { LaneRecord, RecordValue } from '../../shared/batch.ts'
import { type AdmittedReading, type Series, SeriesTable, type Value } from '../../shared/reading.ts'
import type { Sample, Trace } from '../../shared/trace.ts'
import { createFilter, type FilterConfig } from '../filter/filter.ts'
import { type Labelling, labelOf } from './labelling.ts'
import { SeriesTrial } from './series-trial.ts'
import { WireMeter } from './wire-meter.ts'

/** What became of one value of a trace. */
export interface TrialRow {
  /** As they stand in the trace. */
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
  file: string
  readings: number
  kept: number
  suppressed: number
  absorbed: number
  /** Readings that the filter made. */
  derived: number
  badRows: number
  /** Compressed, as they would go over the wire. */
  bytes: { before: number; after: number }
  series: ReturnType<SeriesTrial['report']>[]
  alerts: { [key: string]: RecordValue }[]
}

/** Looks at time between two readings at most so often: silence is seen this exactly. */
const looks = 60

/**
 * Runs the real filter over a recorded trace, as if its readings arrived when they were measured, and keeps
 * account of what would have happened.
 */
export class Trial {
  readonly #rules: FilterConfig
  readonly #labelling: Labelling
  readonly #table = new SeriesTable()
  readonly #series = new Map<Series, SeriesTrial>()
  readonly #pending: Pending[] = []
  readonly #undecided = new Map<AdmittedReading, Undecided>()
  readonly #before = new WireMeter()
  readonly #after = new WireMeter()
  readonly #alerts: TrialReport['alerts'] = []
  #derived = 0
  #badRows = 0

  /** @param labelling how series are labelled, as the decoder would have it */
  constructor(rules: FilterConfig, labelling: Labelling) {
    this.#rules = rules
    this.#labelling = labelling
  }

  /** Gives every row, in order, as soon as it is decided. */
  async *run(trace: Trace): AsyncGenerator<TrialRow[], TrialReport> {
    const filter = createFilter({ rules: this.#rules, observer: this })
    const patient = this.#rules.some(({ check, reduce, window }) => check ?? reduce ?? window)
    let startMs: number | undefined
    let nowMs = 0
    for await (const rows of trace.rows()) {
      for (const { time, samples, cells, problem } of rows) {
        if (problem !== undefined) this.#bad(time)
        for (const [index, sample] of samples.entries()) {
          startMs ??= sample.atMs
          const arrival = { wallMs: sample.atMs, monotonicMs: sample.atMs - startMs }
          if (patient && sample.atMs > nowMs && nowMs > 0) {
            const stepMs = Math.max(1000, (sample.atMs - nowMs) / looks)
            for (let atMs = nowMs + stepMs; atMs < sample.atMs; atMs += stepMs) {
              const wallMs = Math.floor(atMs)
              this.#account(filter.tick({ wallMs, monotonicMs: wallMs - startMs }))
            }
          }
          nowMs = sample.atMs
          const reading = this.#begin(sample, time, cells[index]!, arrival)
          this.#account(filter.judge([reading]))
        }
      }
      yield this.#decided()
    }
    this.#account(filter.flush())
    yield this.#decided()
    return this.#report(trace.file)
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

  #begin(
    sample: Sample,
    time: string,
    cell: string,
    arrival: AdmittedReading['arrival'],
  ): AdmittedReading {
    const { device, metric, timeMs, timeNanos } = sample
    const series = this.#table.intern(device, metric, labelOf(this.#labelling, device, metric))
    const value = valueIn(sample.value)
    const reading: AdmittedReading = { series, timeMs, timeNanos, value, quality: 0, arrival }
    this.#before.add({ ...reading })
    let trial = this.#series.get(series)
    if (!trial) {
      trial = new SeriesTrial(series)
      this.#series.set(series, trial)
    }
    const pending = { row: rowOf({ time, cell, device, metric }), decided: false }
    this.#pending.push(pending)
    this.#undecided.set(reading, { pending, series: trial, index: trial.take(reading) })
    return reading
  }

  #bad(time: string): void {
    this.#badRows++
    const row = rowOf({ time, cell: '', device: '', metric: '' })
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

  #report(file: string): TrialReport {
    const series = [...this.#series.values()].map((trial) => trial.report(this.#alerts))
    const sum = (name: 'readings' | 'kept' | 'suppressed' | 'absorbed') =>
      series.reduce((total, one) => total + one[name], 0)
    return {
      file,
      readings: sum('readings'),
      kept: sum('kept'),
      suppressed: sum('suppressed'),
      absorbed: sum('absorbed'),
      derived: this.#derived,
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

/** A value from its JSON text; integers stay exact to 64 bits. */
function valueIn(text: string): Value {
  const value = JSON.parse(text) as Value
  if (typeof value !== 'number' || Number.isSafeInteger(value) || !/^-?\d+$/.test(text))
    return value
  const exact = BigInt(text)
  return exact >= -(2n ** 63n) && exact < 2n ** 64n ? exact : value
}
