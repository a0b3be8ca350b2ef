import { qualityText, type Series, type Stream } from '../../shared/reading.ts'
import { formatTime } from '../../shared/time-text.ts'
import { csvText, csvValue, jsonValue } from '../../shared/value-text.ts'
import type { LogRecord } from './record.ts'

export const formats = ['ndjson', 'csv'] as const
export type Format = (typeof formats)[number]

const csvColumns: Record<Stream, string> = {
  readings: 'offset,agent,incarnation,lane,sequence,device,metric,time,value,quality,arrived',
  alerts: 'offset,agent,incarnation,lane,sequence,content,arrived',
  quarantine:
    'offset,agent,incarnation,lane,sequence,topic,reason,size,sha256,payload,received,arrived',
  gaps: 'offset,agent,incarnation,lane,first,last,count,reason,from,to,arrived',
  ledger: 'offset,agent,incarnation,lane,sequence,type,time,content,arrived',
}

/** The first line of a stream's CSV; nothing in other formats. */
export function headerLine(stream: Stream, format: Format): string {
  return format === 'csv' ? `${csvColumns[stream]}\n` : ''
}

/** One line a record. */
export function formatRecords(records: readonly LogRecord[], format: Format): string {
  const line = format === 'csv' ? csvLine : jsonLine
  let text = ''
  for (const record of records) text += `${line(record)}\n`
  return text
}

/** RFC 4180, but for the line's end. Times in ISO 8601, UTC; payloads in base64. */
function csvLine(record: LogRecord): string {
  const { offset, agent, incarnation, lane, sequence = '' } = record
  const lead = `${offset},${csvText(agent)},${incarnation},${lane},`
  const arrived = formatTime(record.arrivedMs)
  switch (record.stream) {
    case 'readings': {
      const { series, timeMs, timeNanos, value, quality } = record.reading
      const name = csvNames.of(series)
      const time = formatTime(timeMs, timeNanos)
      return `${lead}${sequence},${name},${time},${csvValue(value)},${qualityText(quality)},${arrived}`
    }
    case 'alerts':
      return `${lead}${sequence},${csvText(JSON.stringify(record.content))},${arrived}`
    case 'quarantine': {
      const { topic, reason, size, sha256, payload, arrival } = record.message
      const hash = sha256 ? Buffer.from(sha256).toString('hex') : ''
      const content = Buffer.from(payload).toString('base64')
      const text = `${csvText(topic)},${csvText(reason)},${size},${hash},${content}`
      return `${lead}${sequence},${text},${formatTime(arrival.wallMs)},${arrived}`
    }
    case 'gaps': {
      const { count, reason, fromMs, toMs, kept } = record.gap
      const gone = count - (kept?.places.length ?? 0)
      const first = record.sequence ?? 0
      const times = `${optionalTime(fromMs) ?? ''},${optionalTime(toMs) ?? ''}`
      return `${lead}${first},${first + count - 1},${gone},${reason},${times},${arrived}`
    }
    case 'ledger': {
      const content = csvText(JSON.stringify(record.content))
      return `${lead}${sequence},${record.type},${formatTime(record.fromMs)},${content},${arrived}`
    }
  }
}

/** Members that a record does not have are left out. Integers beyond 2^53 are written whole. */
function jsonLine(record: LogRecord): string {
  const { offset, agent, incarnation, lane, sequence } = record
  const lead = { offset, agent, incarnation, lane, sequence }
  const arrived = formatTime(record.arrivedMs)
  switch (record.stream) {
    case 'readings': {
      const { series, timeMs, timeNanos, value, quality, arrival } = record.reading
      // Written by hand where it is the same for most records: this is the line that is printed most.
      const from = `"agent":${JSON.stringify(agent)},"incarnation":"${incarnation}","lane":"${lane}"`
      const what = `"value":${jsonValue(value)},"quality":"${qualityText(quality)}"`
      const when = `"received":"${formatTime(arrival.wallMs)}","arrived":"${arrived}"`
      return (
        `{"offset":${offset},${from},"sequence":${sequence},${jsonNames.of(series)},` +
        `"time":"${formatTime(timeMs, timeNanos)}",${what},${when}}`
      )
    }
    case 'alerts':
      return JSON.stringify({ ...lead, content: record.content, arrived })
    case 'quarantine': {
      const { topic, reason, size, sha256, payload, arrival } = record.message
      return JSON.stringify({
        ...lead,
        topic,
        reason,
        size,
        sha256: sha256 && Buffer.from(sha256).toString('hex'),
        payload: Buffer.from(payload).toString('base64'),
        received: formatTime(arrival.wallMs),
        arrived,
      })
    }
    case 'gaps': {
      const { count, reason, series, fromMs, toMs, atLeast, kept } = record.gap
      const first = sequence ?? 0
      return JSON.stringify({
        offset,
        agent,
        incarnation,
        lane,
        first,
        last: first + count - 1,
        count: count - (kept?.places.length ?? 0),
        atLeast: atLeast || undefined,
        reason,
        series,
        from: optionalTime(fromMs),
        to: optionalTime(toMs),
        arrived,
      })
    }
    case 'ledger':
      return JSON.stringify({
        ...lead,
        type: record.type,
        time: formatTime(record.fromMs),
        content: record.content,
        arrived,
      })
  }
}

/** A text that depends on the series alone, made once. */
class SeriesTexts {
  readonly #made = new WeakMap<Series, string>()
  readonly #make: (series: Series) => string

  constructor(make: (series: Series) => string) {
    this.#make = make
  }

  of(series: Series): string {
    let text = this.#made.get(series)
    if (text === undefined) {
      text = this.#make(series)
      this.#made.set(series, text)
    }
    return text
  }
}

const csvNames = new SeriesTexts(({ device, metric }) => `${csvText(device)},${csvText(metric)}`)

/** Members of an object, without its braces. */
const jsonNames = new SeriesTexts(({ device, metric, unit, labels, between, epsilon }) =>
  JSON.stringify({
    device,
    metric,
    unit,
    ...(Object.keys(labels).length > 0 && { labels }),
    ...(between !== 'raw' && { between, epsilon }),
  }).slice(1, -1),
)

function optionalTime(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : formatTime(ms)
}
