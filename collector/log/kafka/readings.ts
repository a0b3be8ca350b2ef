import { batchReadings, inflate, type NumberedReading } from '../../../shared/batch.ts'
import { qualityText } from '../../../shared/reading.ts'
import { formatTime } from '../../../shared/time-text.ts'
import { jsonValue } from '../../../shared/value-text.ts'
import { type Entry, maxInflatedBytes } from '../engine.ts'
import type { NewRecord, Place } from './cluster.ts'

/** How a reading becomes the value of a record. */
export interface ReadingFormat {
  /** Headers of every record that has it. */
  headers: Readonly<Record<string, string>>
  /**
   * Asks nobody, and throws at nothing that ingest lets in: a whole transaction would fail with it.
   *
   * @param incarnation the entry's, hex
   * @param time the reading's, ISO 8601
   */
  value(
    reading: NumberedReading,
    from: { entry: Entry; incarnation: string; time: string },
  ): Uint8Array
}

/** For whoever has no schema registry. */
export const plainJson: ReadingFormat = {
  headers: { 'content-type': 'application/json' },
  value: (reading, { time }) => Buffer.from(jsonOf(reading, time)),
}

/**
 * One record for each reading of a batch, for consumers that know nothing of batches: the key is the
 * device, the time the reading's own. Headers are those of CloudEvents' binary mode, and ours beside them.
 */
export function* readingRecords(
  entry: Entry,
  place: Place,
  format: ReadingFormat,
): Generator<NewRecord> {
  const { header, body, encoding } = entry
  const { agent, lane } = header
  const incarnation = Buffer.from(header.incarnation).toString('hex')
  const common = {
    ce_specversion: '1.0',
    ce_type: 'headgate.reading',
    ce_source: `/headgate/${encodeURIComponent(agent)}`,
    ...format.headers,
    agent,
    incarnation,
    lane,
  }
  for (const reading of batchReadings(inflate(body, encoding, maxInflatedBytes))) {
    const { sequence, series, timeMs, timeNanos, quality } = reading
    const time = formatTime(timeMs, timeNanos)
    yield {
      ...place,
      key: series.device,
      value: format.value(reading, { entry, incarnation, time }),
      common,
      headers: {
        ce_id: `${incarnation}/${lane}/${sequence}`,
        ce_time: time,
        sequence: String(sequence),
        quality: qualityText(quality),
      },
      // A sensor's clock may say anything; Kafka takes nothing before 1970.
      timeMs: Math.max(0, timeMs),
    }
  }
}

function jsonOf({ series, value, quality }: NumberedReading, time: string): string {
  const { device, metric, unit, labels } = series
  const names = `"device":${JSON.stringify(device)},"metric":${JSON.stringify(metric)}`
  const what = `"value":${jsonValue(value)},"quality":"${qualityText(quality)}"`
  const more = `${unit === undefined ? '' : `,"unit":${JSON.stringify(unit)}`}${
    Object.keys(labels).length > 0 ? `,"labels":${JSON.stringify(labels)}` : ''
  }`
  return `{${names},"time":"${time}",${what}${more}}`
}
