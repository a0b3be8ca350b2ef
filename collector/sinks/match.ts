import type { LogRecord } from '../fanout/record.ts'

/** Which records a sink wants; all where it names nothing. `*` stands for any characters. */
export interface Match {
  device?: readonly string[] | undefined
  metric?: readonly string[] | undefined
}

/** @returns whether a record is wanted; names are looked at once a name */
export function matcher({ device, metric }: Match): (record: LogRecord) => boolean {
  const isDevice = nameMatcher(device)
  const isMetric = nameMatcher(metric)
  return (record) => {
    if (record.stream === 'readings') {
      const { series } = record.reading
      return isDevice(series.device) && isMetric(series.metric)
    }
    if (record.stream !== 'alerts') return true
    return isDevice(record.content.device) && isMetric(record.content.metric)
  }
}

/** Names come from outside: so many answers are remembered, and then forgotten together. */
const maxRemembered = 50_000

function nameMatcher(globs: readonly string[] | undefined): (name: unknown) => boolean {
  if (!globs) return () => true
  const parts = globs.map((glob) => glob.split('*'))
  const known = new Map<string, boolean>()
  return (name) => {
    if (typeof name !== 'string') return false
    let found = known.get(name)
    if (found === undefined) {
      found = parts.some((literals) => fits(name, literals))
      if (known.size >= maxRemembered) known.clear()
      known.set(name, found)
    }
    return found
  }
}

/** Leftmost places will do for what stands between two `*`, so no glob makes it try again and again. */
function fits(name: string, literals: readonly string[]): boolean {
  const first = literals[0]!
  if (literals.length === 1) return name === first
  const last = literals.at(-1)!
  if (!name.startsWith(first)) return false
  let at = first.length
  for (const literal of literals.slice(1, -1)) {
    const found = name.indexOf(literal, at)
    if (found < 0) return false
    at = found + literal.length
  }
  return name.length - last.length >= at && name.endsWith(last)
}
