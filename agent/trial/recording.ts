import type { Store } from '../../shared/ports.ts'
import { type Reading, SeriesTable, type Value } from '../../shared/reading.ts'
import { formatTime } from '../../shared/time-text.ts'
import type { Trace } from '../../shared/trace.ts'
import { csvValue } from '../../shared/value-text.ts'
import { readTail } from '../outbox/tail.ts'
import { type Labelling, labelOf } from './labelling.ts'

/** One row of what was recorded. */
export interface RecordedRow {
  /** Time and value as they stand there. */
  time: string
  cell: string
  /** Undefined where the row is none, or has no value. */
  reading: Reading | undefined
  /** When it came, wall ms; never less than in the row before. */
  atMs: number
}

/** What a filter is tried on. */
export interface Recording {
  name: string
  /** Whether it is all about one series, so that rows need not name it. */
  single: boolean
  rows(): AsyncIterable<RecordedRow[]>
}

/** A trace, whose readings come when they are measured, labelled as the decoder would have it. */
export function recordingOfTrace(trace: Trace, labelling: Labelling): Recording {
  const table = new SeriesTable()
  return {
    name: trace.file,
    single: trace.single,
    async *rows() {
      for await (const rows of trace.rows()) {
        const out: RecordedRow[] = []
        for (const { time, samples, cells } of rows) {
          if (samples.length === 0)
            out.push({ time, cell: cells[0] ?? '', reading: undefined, atMs: 0 })
          for (const [index, sample] of samples.entries()) {
            const { device, metric, timeMs, timeNanos, atMs } = sample
            const series = table.intern(device, metric, labelOf(labelling, device, metric))
            const value = valueIn(sample.value)
            const reading = { series, timeMs, timeNanos, value, quality: 0 }
            out.push({ time, cell: cells[index]!, reading, atMs })
          }
        }
        yield out
      }
    },
  }
}

/** Readings given out at once. */
const perPart = 1_000

/** What an agent has received, and keeps in its tail. */
export function recordingOfTail(name: string, store: Store): Recording {
  return {
    name,
    single: false,
    async *rows() {
      let part: RecordedRow[] = []
      let atMs = -Infinity
      for await (const { series, timeMs, timeNanos, value, quality, arrival } of readTail(store)) {
        atMs = Math.max(atMs, arrival.wallMs)
        const reading = { series, timeMs, timeNanos, value, quality }
        part.push({ time: formatTime(timeMs, timeNanos), cell: csvValue(value), reading, atMs })
        if (part.length < perPart) continue
        yield part
        part = []
      }
      yield part
    },
  }
}

/** A value from its JSON text; integers stay exact to 64 bits. */
function valueIn(text: string): Value {
  const value = JSON.parse(text) as Value
  if (typeof value !== 'number' || Number.isSafeInteger(value) || !/^-?\d+$/.test(text))
    return value
  const exact = BigInt(text)
  return exact >= -(2n ** 63n) && exact < 2n ** 64n ? exact : value
}
