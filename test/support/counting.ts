import assert from 'node:assert/strict'
import type { AgentStatus } from '../../agent/agent.ts'
import type { Cloud, Gateway, LoggedReading } from './plant.ts'
import type { Sensor } from './sensor.ts'

/** How a log differs from what a counting sensor knows to be there; empty when it does not. */
export interface Difference {
  lost: number[]
  twice: number[]
  /** Values that stand behind a larger one. */
  misplaced: number[]
  /** Never published. */
  foreign: number[]
}

/**
 * Compares a log with a sensor's record.
 *
 * @param acknowledged must be there, once
 * @param unknown may be there, once
 */
export function difference(
  log: readonly Pick<LoggedReading, 'value'>[],
  acknowledged: ReadonlySet<number>,
  unknown: ReadonlySet<number> = new Set(),
): Difference {
  const seen = new Set<number>()
  const found: Difference = { lost: [], twice: [], misplaced: [], foreign: [] }
  let highest = 0
  for (const { value: text } of log) {
    const value = Number.parseInt(text, 10)
    if (seen.has(value)) {
      found.twice.push(value)
      continue
    }
    seen.add(value)
    if (!acknowledged.has(value) && !unknown.has(value)) found.foreign.push(value)
    if (value < highest) found.misplaced.push(value)
    highest = Math.max(highest, value)
  }
  for (const value of acknowledged) if (!seen.has(value)) found.lost.push(value)
  return found
}

/** Nothing lost, nothing twice, in order. */
export function assertSame(
  log: readonly Pick<LoggedReading, 'value'>[],
  acknowledged: ReadonlySet<number>,
  unknown?: ReadonlySet<number>,
): void {
  const { lost, twice, misplaced, foreign } = difference(log, acknowledged, unknown)
  const found = { lost: ranges(lost), twice: ranges(twice), misplaced: ranges(misplaced), foreign }
  assert.deepEqual(found, { lost: '', twice: '', misplaced: '', foreign: [] })
}

/** Waits until all that the broker has acknowledged to the sensor is in the log: once, in order. */
export async function assertDelivered(
  { gateway, cloud, sensor }: { gateway: Gateway; cloud: Cloud; sensor: Sensor },
  withinMs = 60_000,
): Promise<AgentStatus> {
  let late: unknown
  const status = await gateway.drained(sensor.acknowledged.size, withinMs).catch((error) => {
    late = error
  })
  assertSame(await cloud.readings(), sensor.acknowledged) // Says more than that it took too long.
  if (!status) throw late
  return status
}

/** `1-3 7` */
function ranges(values: readonly number[]): string {
  const found: [number, number][] = []
  for (const value of [...values].sort((a, b) => a - b)) {
    const last = found.at(-1)
    if (last && last[1] === value - 1) last[1] = value
    else found.push([value, value])
  }
  return found.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(' ')
}
