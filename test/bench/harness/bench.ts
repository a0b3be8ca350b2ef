import { availableParallelism } from 'node:os'
import type { Test } from '../../support/clean-up.ts'
import { type Figure, figure } from './figure.ts'

export interface BenchContext {
  /** Only what `--check` compares, in as little time as gives a ratio that can be trusted. */
  short: boolean
  /** Rounds of interleaved sides. */
  rounds: number
  /** Progress, for a person. */
  say(line: string): void
}

/**
 * Runs a bench as a program of its own: figures as JSON on stdout, progress on stderr.
 * Arguments: `--short`, `--rounds N`.
 */
export async function bench(run: (context: BenchContext) => Promise<Figure[]>): Promise<void> {
  const args = process.argv.slice(2)
  const short = args.includes('--short')
  const at = args.indexOf('--rounds')
  const rounds = at >= 0 ? Number(args[at + 1]) : 5
  const say = (line: string) => void process.stderr.write(`${line}\n`)
  if (availableParallelism() < 2) say('only one core: sides that need two processes will look slow')
  const figures = await run({ short, rounds, say })
  process.stdout.write(`${JSON.stringify(figures)}\n`)
}

/** Does something with a scope of its own: what it started and made is gone afterwards. */
export async function scoped<Result>(work: (t: Test) => Promise<Result>): Promise<Result> {
  const undo: (() => unknown)[] = []
  try {
    return await work({ after: (task) => void undo.push(task as () => unknown) })
  } finally {
    for (const task of undo.reverse()) await task()
  }
}

/**
 * Measures sides in turn, round by round, so that whatever else the machine does meets all of them;
 * every other round backwards. A side that is undefined is left out, and has no results.
 */
export async function interleave<Name extends string, Result>(
  rounds: number,
  sides: Record<Name, ((round: number) => Promise<Result>) | undefined>,
): Promise<Record<Name, Result[]>> {
  const names = Object.keys(sides) as Name[]
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
    Name,
    Result[]
  >
  for (let round = 0; round < rounds; round++)
    for (const name of round % 2 === 0 ? names : names.toReversed())
      if (sides[name]) results[name].push(await sides[name](round))
  return results
}

/** One side over the other, round by round. */
export function ratios(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.map((value, round) => value / theirs[round]!)
}

/**
 * CPU time of one side over that of another, each in its quickest round: whatever else the machine does, by
 * its caches too, only adds to it, and adds to one side more than to the other.
 */
export function cpuRatio(name: string, ours: readonly number[], theirs: readonly number[]): Figure {
  return { ...figure(name, [Math.min(...ours) / Math.min(...theirs)], 'ratio'), runs: ours.length }
}
