import { execFileSync } from 'node:child_process'

/** Of a start of Node with nothing to run, where the bounds in milliseconds are from: an agent's takes nine times as long, and took 215 ms there. */
const usualMs = 24

/**
 * How many times slower than usual this machine is now, at least 1, by the quickest of some starts of Node. For bounds
 * on time that a person relies on: what is slow because everything is, has not become slower.
 */
export function slowness(): number {
  let leastMs = Number.POSITIVE_INFINITY
  for (let run = 0; run < 9; run++) {
    const startMs = performance.now()
    execFileSync(process.execPath, ['-e', '0'])
    leastMs = Math.min(leastMs, performance.now() - startMs)
  }
  return Math.max(1, leastMs / usualMs)
}
