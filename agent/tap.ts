import { type AdmittedReading, qualityText } from '../shared/reading.ts'
import type { Message } from './source/message.ts'

/** One JSON line for each reading, and for each message that came in with how large it was. */
export function readingLines(
  messages: readonly Message[],
  readings: readonly AdmittedReading[],
): string {
  const lines: string[] = []
  for (const { topic, payload, qos, retained } of messages)
    lines.push(
      JSON.stringify({ message: topic, bytes: payload.length, qos, ...(retained && { retained }) }),
    )
  for (const { series, timeMs, value, quality } of readings)
    lines.push(
      JSON.stringify({
        device: series.device,
        metric: series.metric,
        time: new Date(timeMs).toISOString(),
        value: typeof value === 'bigint' ? value.toString() : value,
        quality: qualityText(quality),
      }),
    )
  return lines.length > 0 ? `${lines.join('\n')}\n` : ''
}
