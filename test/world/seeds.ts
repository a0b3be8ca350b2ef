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
  {
    seed: 3538,
    only: [0, 1, 5],
    finding: 'a group that waited for room was written behind it, where making it had failed',
  },
  {
    seed: 101769,
    only: [3, 4, 10],
    finding: 'a copy behind the acknowledgement was acknowledged again, for another message',
  },
  {
    seed: 52672,
    only: [0, 2, 3],
    finding: 'where two incarnations were damaged, what the older one had declared was forgotten',
  },
]
