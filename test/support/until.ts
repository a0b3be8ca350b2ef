import assert from 'node:assert/strict'

/**
 * Turns the event loop until `condition` holds: for what real files and threads finish in their own time.
 * Fails after `withinMs` of real time.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  withinMs = 10_000,
): Promise<void> {
  const endMs = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > endMs) assert.fail(`${what}: not within ${withinMs} ms`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}
