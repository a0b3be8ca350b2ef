/** One thing that a device sends: a value of one metric at one time. */
export interface Sample {
  device: string
  metric: string
  /** The device's own time: milliseconds since 1970, integer, with `timeNanos` (0 to 999,999) behind it. */
  timeMs: number
  timeNanos: number
  /** JSON text of the value; a number has the digits that the trace has. */
  value: string
  /** Place on the recording's time line, ms, never decreasing within one source: merging and pacing go by it. */
  atMs: number
  /** Sent instead of the JSON document: a fault. */
  garbage?: string
}

/** Samples in sending order, some at a time. */
export type Samples = AsyncIterable<Sample[]> | Iterable<Sample[]>

/** ISO time in UTC with as many digits as are needed: 3, 6 or 9 behind the second. */
export function timeText({ timeMs, timeNanos }: Pick<Sample, 'timeMs' | 'timeNanos'>): string {
  const text = new Date(timeMs).toISOString()
  if (timeNanos === 0) return text
  const digits = String(timeNanos).padStart(6, '0')
  return `${text.slice(0, -1)}${digits.endsWith('000') ? digits.slice(0, 3) : digits}Z`
}

/** Why a text cannot stand in a topic as one level; undefined when it can. */
export function topicProblem(what: string, name: string): string | undefined {
  if (name === '') return `${what} is empty`
  // biome-ignore lint/suspicious/noControlCharactersInRegex: MQTT 3.1.1, 1.5.3 forbids or discourages them
  if (/[/+#\u0000-\u001f\u007f]/.test(name))
    return `${what} ${JSON.stringify(name)} cannot stand in a topic (/, +, # or a control character)`
  if (name.length > 1024) return `${what} is longer than 1024 characters`
  if (!name.isWellFormed()) return `${what} is not valid Unicode`
  return undefined
}
