import type { Clock, Random } from '../../shared/ports.ts'
import { Seeded } from '../support/seeded.ts'
import type { Timeline } from './timeline.ts'

/** `kill -9`: the system lives on, with what it holds unwritten, and closes what was open. */
export type Death = 'killed' | 'power cut'

/**
 * A running process. What a simulated port does for it ends with it: its timers no longer fire, and what
 * it waits for never comes, so that its code never runs again.
 */
export class Process {
  alive = true
  /** Timers that it has set and that are still to fire. */
  timers = 0
  readonly #timeline: Timeline
  readonly #mourners = new Set<(how: Death) => void>()

  constructor(timeline: Timeline) {
    this.#timeline = timeline
  }

  /** Calls back once, unless the process ends first; the returned function cancels it. */
  after(ms: number, callback: () => void): () => void {
    return this.#timeline.after(ms, () => {
      if (this.alive) callback()
    })
  }

  /** Resolves after `ms`; never, when the process ends first. */
  wait(ms: number): Promise<void> {
    return new Promise((resolve) => void this.after(ms, resolve))
  }

  end(how: Death): void {
    this.alive = false
    for (const mourner of this.#mourners) mourner(how)
    this.#mourners.clear()
  }

  /** Calls back when it ends; the returned function takes that back. */
  onEnd(mourner: (how: Death) => void): () => void {
    this.#mourners.add(mourner)
    return () => this.#mourners.delete(mourner)
  }
}

/** Hardware: clocks that may be wrong, and a boot that has a name. */
export class Machine {
  readonly name: string
  readonly timeline: Timeline
  readonly seeded: Seeded
  boot: Uint8Array
  #bootedMs = 0
  #wallOffsetMs: number
  #frozenMs: number | undefined

  constructor(name: string, timeline: Timeline, seeded: Seeded, wallMs: number) {
    this.name = name
    this.timeline = timeline
    this.seeded = seeded
    this.#wallOffsetMs = wallMs
    this.boot = randomBytes(seeded, 16)
  }

  /** After a loss of power: monotonic time begins anew. */
  reboot(): void {
    this.boot = randomBytes(this.seeded, 16)
    this.#bootedMs = this.timeline.nowMs
  }

  jumpWall(ms: number): void {
    this.#wallOffsetMs += ms
  }

  freezeWall(): void {
    this.#frozenMs ??= this.wallMs()
  }

  thawWall(): void {
    this.#frozenMs = undefined
  }

  wallMs(): number {
    return this.#frozenMs ?? Math.floor(this.timeline.nowMs + this.#wallOffsetMs)
  }

  clock(process: Process): Clock {
    return {
      wallMs: () => this.wallMs(),
      monotonicMs: () => this.timeline.nowMs - this.#bootedMs,
      timer: (ms, callback) => {
        process.timers += 1
        let pending = true
        const settle = () => {
          if (pending) process.timers -= 1
          pending = false
        }
        // No timer of Node's is shorter.
        const cancel = process.after(Math.max(1, ms), () => {
          settle()
          callback()
        })
        return () => {
          settle()
          cancel()
        }
      },
    }
  }
}

/**
 * The same seed gives the same bytes: two processes of one seed are one memory snapshot, resumed twice. How
 * often a process asks for delays changes nothing about its identities.
 */
export function seededRandom(seed: number): Random {
  const delays = new Seeded(seed)
  const identities = new Seeded(~seed)
  return {
    uniform: () => delays.uniform(),
    bytes: (length) => randomBytes(identities, length),
  }
}

export function randomBytes(seeded: Seeded, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = seeded.below(256)
  return bytes
}
