/** A history that once broke a promise. */
export interface FoundSeed {
  seed: number
  only?: readonly number[]
  /** What it found. */
  finding: string
}

/**
 * They mean what they say for as long as plans are made as they are: whoever changes `plan.ts` looks for others
 * with the planted bugs that stand for the same findings.
 */
export const foundSeeds: readonly FoundSeed[] = [
  {
    seed: 316,
    only: [2, 4],
    finding: 'readings held by a reduction whose state was damaged stayed buffered for ever',
  },
  {
    seed: 101207,
    only: [1, 3],
    finding: 'a collector that had lost something was not told of a lane that fell silent',
  },
]
