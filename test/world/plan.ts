import { Seeded } from '../support/seeded.ts'
import { devices, type FaultKindName, faultKinds } from './faults.ts'

/** One fault of a history. */
export interface Fault {
  /** Counts through the whole history: what a shrunk one names. */
  number: number
  kind: FaultKindName
  /** Since the beginning of its round. */
  atMs: number
  forMs: number
  seed: number
}

/** Messages of a device, published in one go. */
export interface Burst {
  atMs: number
  device: number
  messages: number
}

/** Faults and traffic first, then healing, then everything must come to rest. */
export interface Round {
  durationMs: number
  faults: Fault[]
  bursts: Burst[]
}

const kinds = Object.keys(faultKinds) as FaultKindName[]

/** A message is on its way for so long: into the outbox, to the collector, or held back there. */
const leadsMs = [15, 40, 300, 2_500]

/** What a seed does. @param only numbers of the faults that are kept; all where it is left out */
export function planOf(seed: number, only?: ReadonlySet<number>): Round[] {
  const seeded = new Seeded(seed)
  // Two that must meet do so sooner among few than among all.
  const palette = seeded.chance(0.6)
    ? Array.from({ length: 2 + seeded.below(4) }, () => seeded.pick(kinds))
    : kinds
  let number = 0
  return Array.from({ length: 2 + seeded.below(2) }, () => {
    const durationMs = 5_000 + seeded.below(40_000)
    const faults = Array.from({ length: 1 + seeded.below(4) }, () => ({
      number: number++,
      kind: seeded.pick(palette),
      atMs: durationMs * seeded.uniform(),
      forMs: 100 * 200 ** seeded.uniform(),
      seed: seeded.below(2 ** 32),
    }))
    const burst = (atMs: number) => ({
      atMs,
      device: seeded.below(devices),
      messages: 1 + seeded.below(4),
    })
    const bursts = [
      // Where nothing happens, no fault shows.
      ...faults.map(({ atMs }) => burst(atMs - seeded.pick(leadsMs) * seeded.uniform())),
      ...faults.map(({ atMs, forMs }) => burst(atMs + Math.min(forMs, 200) * seeded.uniform())),
    ]
    const kept = faults.filter(({ number }) => only?.has(number) ?? true)
    return { durationMs, faults: kept, bursts }
  })
}
