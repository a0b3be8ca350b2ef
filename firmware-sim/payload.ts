import { type Sample, timeText } from '../shared/trace.ts'

/** The MQTT payload, `{"t":…,"v":…}`; a time finer than a millisecond goes as ISO text, exact. */
export function payloadOf(sample: Sample): string {
  if (sample.garbage !== undefined) return sample.garbage
  const time = sample.timeNanos === 0 ? sample.timeMs : `"${timeText(sample)}"`
  return `{"t":${time},"v":${sample.value}}`
}
