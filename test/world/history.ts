import type { Coverage } from './coverage.ts'
import type { Violation } from './oracle.ts'
import { planOf } from './plan.ts'
import { World } from './world.ts'

export interface History {
  seed: number
  /** Numbers of the faults that were kept; undefined for all. */
  only: readonly number[] | undefined
  violations: readonly Violation[]
  events: number
  faults: number
  coverage: Coverage
  /** The same for the same seed and faults, always. */
  hash: string
  /** What happened, where it was asked for. */
  lines: readonly string[] | undefined
}

/** One world from beginning to end, or to the first violation. */
export async function runHistory(
  seed: number,
  options: { only?: readonly number[] | undefined; keepTrace?: boolean } = {},
): Promise<History> {
  const { only, keepTrace = false } = options
  const rounds = planOf(seed, only && new Set(only))
  const world = new World(seed, { keepTrace })
  const rejected = (reason: unknown) => {
    world.oracle.fail('P7', `a promise was rejected, and nobody listened: ${stackOf(reason)}`)
  }
  process.on('unhandledRejection', rejected)
  try {
    await world.run(rounds)
  } catch (error) {
    world.oracle.fail('P7', `thrown: ${stackOf(error)}`)
  } finally {
    process.off('unhandledRejection', rejected)
  }
  return {
    seed,
    only,
    violations: world.oracle.violations,
    events: world.timeline.fired,
    faults: rounds.reduce((sum, { faults }) => sum + faults.length, 0),
    coverage: world.coverage,
    hash: world.trace.hash,
    lines: world.trace.lines,
  }
}

/**
 * Leaves out faults as long as the same promise is still broken.
 *
 * @returns numbers of the faults that it takes
 */
export async function shrink(history: History): Promise<History> {
  const promise = history.violations[0]?.promise
  let smallest = history
  let kept =
    history.only ?? planOf(history.seed).flatMap(({ faults }) => faults.map((f) => f.number))
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = size > 1 ? Math.ceil(size / 2) : 0)
    for (let from = 0; from < kept.length; ) {
      const only = [...kept.slice(0, from), ...kept.slice(from + size)]
      const smaller = await runHistory(history.seed, { only })
      if (smaller.violations[0]?.promise === promise) {
        smallest = smaller
        kept = only
      } else from += size
    }
  return smallest
}

function stackOf(error: unknown): string {
  return error instanceof Error ? String(error.stack) : String(error)
}
