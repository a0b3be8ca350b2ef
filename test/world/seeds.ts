/** A history that once broke a promise. */
export interface FoundSeed {
  seed: number
  only?: readonly number[]
  /** What it found. */
  finding: string
}

/** They mean what they say for as long as plans are made as they are. */
export const foundSeeds: readonly FoundSeed[] = [
  {
    seed: 20343,
    only: [0, 1, 2],
    finding: 'a collector put back by several starts of the agent was told of the last one alone',
  },
  {
    seed: 22107,
    only: [1, 2, 3, 6],
    finding: 'an empty collector was not told of a lane that fell silent',
  },
  {
    seed: 24524,
    only: [3, 4, 6],
    finding: 'an empty collector was not told of a lane that fell silent, after two restarts',
  },
  {
    seed: 36146,
    only: [2, 3],
    finding: 'what a collector had lost in other lanes was forgotten over a failed write',
  },
  {
    seed: 33133,
    only: [0, 1, 3],
    finding: 'a renumbering that a failed write cut short left readings under the forked name',
  },
  {
    seed: 1217,
    only: [0, 3],
    finding: 'readings held by a reduction whose state was damaged stayed buffered for ever',
  },
]
