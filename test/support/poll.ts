import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'

/** Between two looks at another process: often enough to lose no time, seldom enough to leave it some. */
const everyMs = 20

/** Looks at another process until `look` gives something. Fails after `withinMs`. */
export async function poll<T>(
  look: () => Promise<T | undefined | false>,
  what: string,
  withinMs = 30_000,
): Promise<T> {
  const endMs = performance.now() + withinMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > endMs) assert.fail(`${what}: not within ${withinMs} ms`)
    await pause(everyMs)
  }
}
