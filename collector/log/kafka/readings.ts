import { batchReadings, inflate, type NumberedReading } from '../../../shared/batch.ts'
import { qualityText } from '../../../shared/reading.ts'
import { formatTime } from '../../../shared/time-text.ts'
import { jsonValue } from '../../../shared/value-text.ts'
import type { Entry } from '../engine.ts'
import type { NewRecord, Place } from './cluster.ts'

/** More than any collector takes. */
const maxInflatedBytes = 256 * 1024 * 1024

/**
 * One record for each reading of a batch, for consumers that know nothing of batches: the key is the
 * device, the time the reading's own, the value JSON. Headers are those of CloudEvents' binary mode, and
 * ours beside them.
 */
export function* readingRecords(
  { header, body, encoding }: Entry,
  place: Place,
): Generator<NewRecord> {
  const { agent, lane } = header
  const incarnation = Buffer.from(header.incarnation).toString('hex')
  const common = {
    ce_specversion: '1.0',
    ce_type: 'headgate.reading',
    ce_source: `/headgate/${encodeURIComponent(agent)}`,
    'content-type': 'application/json',
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
      value: Buffer.from(jsonOf(reading, time)),
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
