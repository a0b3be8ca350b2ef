/** Every fault that a world can make, in the words of its report. */
export const faultNames = [
  // Disk of the collector.
  'disk write dropped',
  'disk torn write',
  'disk name dropped',
  'disk ENOSPC',
  'disk EIO on write',
  'disk EIO on sync',
  'disk short write',
  'disk bit flip',
  'disk slow',
  // Store of the agent: LevelDB's measured contract.
  'store ENOSPC',
  'store EIO on write',
  'store EIO on sync',
  'store slow',
  'store lost after an error',
  'store async writes lost',
  'store flipped log byte',
  'store flipped value',
  // Network.
  'delay',
  'drop',
  'duplicate',
  'reorder across connections',
  'half-open',
  'partition',
  'response lost after commit',
  'body truncated',
  '429',
  '503',
  'hang',
  'broker restart with session',
  'broker restart without session',
  'duplicate PUBLISH',
  'packet-id reuse',
  'more in flight than promised',
  // Machine.
  'agent crash',
  'agent power cut',
  'collector crash',
  'collector power cut',
  'both crash',
  'wall clock forward',
  'wall clock back',
  'wall clock frozen',
  'agent image restored',
  'clone',
  'fork',
  'collector image restored',
  'collector moved',
] as const
export type FaultName = (typeof faultNames)[number]

/** How often each fault has taken effect. */
export class Coverage {
  readonly times: Record<FaultName, number>

  constructor() {
    this.times = Object.fromEntries(faultNames.map((name) => [name, 0])) as Record<
      FaultName,
      number
    >
  }

  hit(name: FaultName): void {
    this.times[name] += 1
  }

  add(other: Coverage): void {
    for (const name of faultNames) this.times[name] += other.times[name]
  }

  get total(): number {
    return faultNames.reduce((sum, name) => sum + this.times[name], 0)
  }
}
