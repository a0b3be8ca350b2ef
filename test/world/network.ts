import type { Seeded } from '../support/seeded.ts'
import type { Coverage, FaultName } from './coverage.ts'
import type { Timeline } from './timeline.ts'

/** How a link treats what crosses it, as long as it is so. */
export interface Weather {
  /** Nothing gets through; what is under way waits for better times. */
  partitioned: boolean
  /** Every crossing takes up to this much longer, ms. */
  delayMs: number
  /** Probability per request of each trouble that a request can have. */
  trouble: Partial<Record<FaultName, number>>
}

/** One way between two machines. */
export class Network {
  weather: Weather = fair()
  readonly timeline: Timeline
  readonly seeded: Seeded
  readonly coverage: Coverage
  #waiting: (() => void)[] = []

  constructor(timeline: Timeline, seeded: Seeded, coverage: Coverage) {
    this.timeline = timeline
    this.seeded = seeded
    this.coverage = coverage
  }

  heal(): void {
    this.weather = fair()
    this.endPartition()
  }

  /** What was under way goes on. */
  endPartition(): void {
    this.weather.partitioned = false
    for (const cross of this.#waiting.splice(0)) cross()
  }

  /** Calls back once something sent now is there. */
  cross(arrive: () => void): void {
    const { delayMs } = this.weather
    const extraMs = delayMs * this.seeded.uniform()
    if (extraMs > 0) this.coverage.hit('delay')
    this.timeline.after(0.2 + 2 * this.seeded.uniform() + extraMs, () => {
      if (this.weather.partitioned) {
        this.coverage.hit('partition')
        this.#waiting.push(() => this.cross(arrive))
      } else arrive()
    })
  }

  /** Whether a trouble strikes now. */
  strikes(name: FaultName): boolean {
    return this.seeded.chance(this.weather.trouble[name] ?? 0)
  }
}

function fair(): Weather {
  return { partitioned: false, delayMs: 0, trouble: {} }
}
