import type { Seeded } from '../support/seeded.ts'

interface Event {
  atMs: number
  /** Decides among events of the same moment: random, so that no order is relied on. */
  tie: number
  callback: (() => void) | undefined
}

const stepsPerTurn = 32

/**
 * The one event loop of a simulated world. Virtual time stands still while anything is ready to run, and
 * jumps to the next event once nothing is. Real I/O would break both, so there is none in a world.
 */
export class Timeline {
  nowMs = 0
  /** Events that have happened. */
  fired = 0
  readonly #seeded: Seeded
  readonly #heap: Event[] = []

  constructor(seeded: Seeded) {
    this.#seeded = seeded
  }

  /** Calls back once, `ms` from now; the returned function cancels it. */
  after(ms: number, callback: () => void): () => void {
    const event: Event = {
      atMs: this.nowMs + Math.max(0, ms),
      tie: this.#seeded.uniform(),
      callback,
    }
    this.#push(event)
    return () => {
      event.callback = undefined
    }
  }

  /**
   * Runs until `done` says so, which is asked whenever nothing is ready; false when that takes longer than
   * `limitMs` of virtual time or `maxEvents`, or when nothing is left that could happen.
   */
  run(done: () => boolean, limitMs: number, maxEvents = 20_000): Promise<boolean> {
    const endMs = this.nowMs + limitMs
    const lastEvent = this.fired + maxEvents
    return new Promise((resolve, reject) => {
      let over = false
      const finish = (settle: () => void) => {
        over = true
        settle()
      }
      const step = () => {
        if (over) return
        try {
          if (done()) return finish(() => resolve(true))
          const event = this.#pop()
          if (!event || event.atMs > endMs || this.fired >= lastEvent)
            return finish(() => resolve(false))
          this.nowMs = event.atMs
          this.fired += 1
          event.callback!()
        } catch (error) {
          finish(() => reject(error))
        }
      }
      // Between two immediates every promise that is ready runs, and all that follow from it. Many of them
      // in one turn of Node's own loop, since such a turn costs as much as an event.
      const turn = () => {
        for (let i = 0; i < stepsPerTurn; i++) setImmediate(step)
        setImmediate(() => over || turn())
      }
      turn()
    })
  }

  #push(event: Event): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(event)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (isBefore(heap[parent]!, event)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = event
  }

  /** The next event that was not cancelled. */
  #pop(): Event | undefined {
    const heap = this.#heap
    for (;;) {
      const first = heap[0]
      const last = heap.pop()
      if (!first || !last) return undefined
      if (first !== last) {
        let at = 0
        for (;;) {
          let child = 2 * at + 1
          if (child >= heap.length) break
          if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1
          if (isBefore(last, heap[child]!)) break
          heap[at] = heap[child]!
          at = child
        }
        heap[at] = last
      }
      if (first.callback) return first
    }
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.tie < b.tie)
}
