import {
  decodeBatch,
  type Gap,
  inflate,
  type LaneRecord,
  type QuarantinedMessage,
  type RecordValue,
} from '../../shared/batch.ts'
import type { AdmittedReading, Lane, SeriesTable, Stream } from '../../shared/reading.ts'
import { maxInflatedBytes, type StoredBatch, streamOfRecord } from '../log/engine.ts'

/** One record of a stream, with who sent it and where it stands in the log. */
export type LogRecord = Place &
  (
    | { stream: 'readings'; reading: AdmittedReading; boot: Uint8Array }
    | { stream: 'alerts'; content: { [key: string]: RecordValue } }
    | { stream: 'quarantine'; message: QuarantinedMessage }
    | { stream: 'gaps'; gap: Gap }
    | { stream: 'ledger'; type: 'clock' | 'ledger'; content: { [key: string]: RecordValue } }
  )

export interface Place {
  partition: number
  offset: number
  agent: string
  /** Hex. */
  incarnation: string
  lane: Lane
  /** Of a gap the first; undefined for a ledger, which is not numbered. */
  sequence: number | undefined
  /** When the collector took it, its wall time. */
  arrivedMs: number
  /** The record's own time; the arrival's where it has none. A gap's is a range. */
  fromMs: number
  toMs: number
}

/**
 * The records that one stream gets from a batch, in order of offsets.
 *
 * @throws WireFailure when the body is no batch, which ingest does not let in
 */
export function recordsOf(stream: Stream, stored: StoredBatch, table: SeriesTable): LogRecord[] {
  const body = inflate(stored.body, stored.encoding, maxInflatedBytes)
  const { header, items } = decodeBatch(body, table)
  const { agent, lane, arrivedMs } = stored
  const incarnation = Buffer.from(stored.incarnation).toString('hex')
  const records: LogRecord[] = []
  let offset = stored.feeds[stream].first
  let sequence = header.first
  const place = (fromMs: number, toMs = fromMs): Place => ({
    partition: stored.partition,
    offset: offset++,
    agent,
    incarnation,
    lane,
    sequence,
    arrivedMs,
    fromMs,
    toMs,
  })
  for (const item of items) {
    if (item.kind === 'gap') {
      const { fromMs = arrivedMs, toMs = arrivedMs } = item
      if (stream === 'gaps') records.push({ ...place(fromMs, toMs), stream, gap: item })
      const first = sequence
      if (stream === 'readings' && item.kept)
        for (const [i, reading] of item.kept.readings.entries()) {
          sequence = first + item.kept.places[i]!
          records.push({ ...place(reading.timeMs), stream, reading, boot: header.boot })
        }
      sequence = first + item.count
    } else if (item.kind === 'readings') {
      if (stream === 'readings')
        for (const reading of item.readings) {
          records.push({ ...place(reading.timeMs), stream, reading, boot: header.boot })
          sequence += 1
        }
      else sequence += item.readings.length
    } else
      for (const record of item.records) {
        const found = ofRecord(stream, record, place, arrivedMs)
        if (found) records.push(found)
        sequence += 1
      }
  }
  if (stream === 'ledger' && header.ledger)
    records.push({
      ...place(header.sentMs),
      sequence: undefined,
      stream,
      type: 'ledger',
      content: header.ledger,
    })
  return records
}

function ofRecord(
  stream: Stream,
  record: LaneRecord,
  place: (fromMs: number) => Place,
  arrivedMs: number,
): LogRecord | undefined {
  if (streamOfRecord[record.type] !== stream) return undefined
  switch (record.type) {
    case 'quarantine':
      return { ...place(record.arrival.wallMs), stream: 'quarantine', message: record }
    case 'alert':
      return { ...place(arrivedMs), stream: 'alerts', content: record.content }
    case 'clock':
      return { ...place(arrivedMs), stream: 'ledger', type: 'clock', content: record.content }
  }
}
