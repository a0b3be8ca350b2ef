import type { RecordValue } from '../../shared/batch.ts'
import type { Lane, Series } from '../../shared/reading.ts'
import type { LogRecord } from '../fanout/record.ts'

/**
 * The columns that every output has, in this order, whatever it is. Only ever extended, at the end:
 * who reads an output may rely on their names, types and meaning. `docs/SINKS.md` has the same table.
 *
 * `timestamp`: microseconds since 1970-01-01T00:00Z. `id`: 128 bits as 32 hexadecimal digits, lower case.
 * `json`: an object.
 */
export const columns = [
  { name: 'time', type: 'timestamp', nullable: false },
  { name: 'time_nanos', type: 'int16', nullable: false },
  { name: 'device', type: 'text', nullable: true },
  { name: 'metric', type: 'text', nullable: true },
  { name: 'unit', type: 'text', nullable: true },
  { name: 'labels', type: 'json', nullable: true },
  { name: 'value', type: 'double', nullable: true },
  { name: 'value_int', type: 'int64', nullable: true },
  { name: 'value_bool', type: 'bool', nullable: true },
  { name: 'value_text', type: 'text', nullable: true },
  { name: 'quality', type: 'int32', nullable: true },
  { name: 'between_points', type: 'text', nullable: true },
  { name: 'epsilon', type: 'double', nullable: true },
  { name: 'content', type: 'json', nullable: true },
  { name: 'agent', type: 'text', nullable: false },
  { name: 'incarnation', type: 'id', nullable: false },
  { name: 'lane', type: 'text', nullable: false },
  { name: 'sequence', type: 'int64', nullable: true },
  { name: 'log_partition', type: 'int16', nullable: false },
  { name: 'log_offset', type: 'int64', nullable: false },
  { name: 'received', type: 'timestamp', nullable: true },
  { name: 'arrived', type: 'timestamp', nullable: false },
] as const satisfies readonly { name: keyof Row; type: ColumnType; nullable: boolean }[]

export type Column = (typeof columns)[number]
export type ColumnType =
  | 'timestamp'
  | 'text'
  | 'json'
  | 'double'
  | 'int16'
  | 'int32'
  | 'int64'
  | 'bool'
  | 'id'

/** One record as values of the columns; null where it has none. */
export interface Row {
  /** The record's own time: a reading's, an alert's, the first of a gap; otherwise its arrival. */
  time: bigint
  /** Nanoseconds behind the microsecond, 0 to 999. */
  time_nanos: number
  /** Of readings and alerts. A gap names what it concerns in `content`. */
  device: string | null
  metric: string | null
  unit: string | null
  labels: Readonly<Record<string, string>> | null
  /** Every number; of an integer beyond ±2^53 the nearest double. May be NaN or infinite. */
  value: number | null
  /** An integer beyond ±2^53 exactly, where it fits in 64 bits with a sign. */
  value_int: bigint | null
  value_bool: boolean | null
  /** A text; or the digits of an integer of 2^63 and more. */
  value_text: string | null
  /** Bits of `Quality`; 0 is good. */
  quality: number | null
  /** How to read between two points: `raw`, `hold` or `linear`. */
  between_points: Series['between'] | null
  /** Bound of what a reduction left out, in the value's unit; 0 for raw. */
  epsilon: number | null
  /** What a record of another stream than `readings` says. */
  content: { readonly [key: string]: RecordValue } | null
  /** With `incarnation`, `lane` and `sequence` a record's identity. */
  agent: string
  incarnation: string
  lane: Lane
  /** 1 ≤ sequence < 2^53; null for a ledger, which is not numbered. Of a gap the first. */
  sequence: number | null
  log_partition: number
  /** Position in the stream's partition. */
  log_offset: number
  /** When the gateway had it, by its own clock. */
  received: bigint | null
  /** When the collector took it. */
  arrived: bigint
}

export function rowOf(record: LogRecord): Row {
  const row: Row = {
    time: micros(record.fromMs),
    time_nanos: 0,
    device: null,
    metric: null,
    unit: null,
    labels: null,
    value: null,
    value_int: null,
    value_bool: null,
    value_text: null,
    quality: null,
    between_points: null,
    epsilon: null,
    content: null,
    agent: record.agent,
    incarnation: record.incarnation,
    lane: record.lane,
    sequence: record.sequence ?? null,
    log_partition: record.partition,
    log_offset: record.offset,
    received: null,
    arrived: micros(record.arrivedMs),
  }
  switch (record.stream) {
    case 'readings': {
      const { series, timeMs, timeNanos, value, quality, arrival } = record.reading
      row.time = micros(timeMs, timeNanos)
      row.time_nanos = timeNanos % 1000
      row.device = series.device
      row.metric = series.metric
      row.unit = series.unit ?? null
      row.labels = series.labels
      row.quality = quality
      row.between_points = series.between
      row.epsilon = series.epsilon
      row.received = micros(arrival.wallMs)
      if (typeof value === 'number') row.value = value
      else if (typeof value === 'boolean') row.value_bool = value
      else if (typeof value === 'string') row.value_text = value
      else if (value !== null) {
        row.value = Number(value)
        if (BigInt.asIntN(64, value) === value) row.value_int = value
        else row.value_text = String(value)
      }
      break
    }
    case 'alerts': {
      const { timeMs, device, metric, unit, labels } = record.content
      if (typeof timeMs === 'number' && Math.abs(timeMs) <= maxTimeMs)
        row.time = micros(Math.round(timeMs))
      row.device = textOf(device)
      row.metric = textOf(metric)
      row.unit = textOf(unit)
      if (isTexts(labels)) row.labels = labels
      row.content = record.content
      break
    }
    case 'quarantine': {
      const { topic, reason, size, sha256, payload, arrival } = record.message
      row.received = micros(arrival.wallMs)
      row.content = {
        topic,
        reason,
        size,
        ...(sha256 && { sha256: Buffer.from(sha256).toString('hex') }),
        payload: Buffer.from(payload).toString('base64'),
      }
      break
    }
    case 'gaps': {
      const { count, reason, series, fromMs, toMs, atLeast, kept } = record.gap
      row.content = {
        first: record.sequence ?? 0,
        last: (record.sequence ?? 0) + count - 1,
        count: count - (kept?.places.length ?? 0),
        reason,
        series: series.map((each) => ({ ...each })),
        ...(fromMs !== undefined && { fromMs }),
        ...(toMs !== undefined && { toMs }),
        ...(atLeast && { atLeast }),
      }
      break
    }
    case 'ledger':
      row.content = { type: record.type, ...record.content }
      break
  }
  return row
}

/** Latest time that a record may have, and less than none the earliest, ms: that of the wire. */
const maxTimeMs = 2 ** 48

/** @param nanos 0 to 999,999, behind `ms`; what is below the microsecond is left out */
function micros(ms: number, nanos = 0): bigint {
  return BigInt(ms) * 1000n + BigInt(Math.floor(nanos / 1000))
}

function textOf(value: RecordValue | undefined): string | null {
  return typeof value === 'string' ? value : null
}

function isTexts(value: RecordValue | undefined): value is Record<string, string> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => typeof each === 'string')
  )
}
