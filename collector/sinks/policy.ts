/**
 * Uniform in 0 … min(max, base · 2^(failures − 1)), so that many sinks do not come back to a restarted
 * output as one; never before the output wants it.
 *
 * @param failures in a row, ≥ 1
 * @param uniform in [0, 1)
 * @returns ms
 */
export function retryDelayMs(
  failures: number,
  { base, max }: { base: number; max: number },
  uniform: number,
  atLeastMs = 0,
): number {
  return Math.max(atLeastMs, uniform * Math.min(max, base * 2 ** Math.min(failures - 1, 16)))
}

/** `elsewhere`: another collector of the log runs it. */
export type SinkPhase = 'starting' | 'running' | 'failing' | 'paused' | 'elsewhere' | 'stopped'

/**
 * Whose turn it is: what is new and what was asked for again take turns, so that neither waits for the
 * other to end.
 */
export function nextTurnOf(
  ready: { live: boolean; again: boolean },
  last: 'live' | 'again',
): 'live' | 'again' | undefined {
  if (ready.live && ready.again) return last === 'live' ? 'again' : 'live'
  return ready.live ? 'live' : ready.again ? 'again' : undefined
}
