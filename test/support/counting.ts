import assert from 'node:assert/strict'
import type { LoggedReading } from './plant.ts'

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
  log: readonly LoggedReading[],
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
  log: readonly LoggedReading[],
  acknowledged: ReadonlySet<number>,
  unknown?: ReadonlySet<number>,
): void {
  assert.deepEqual(difference(log, acknowledged, unknown), {
    lost: [],
    twice: [],
    misplaced: [],
    foreign: [],
  })
}
