import { createInterface } from 'node:readline'

/** Counts what arrives at the cloud's end, each time once; told anything on stdin it says how many. */
export class Sink {
  readonly #seen = new Set<number>()

  constructor() {
    createInterface(process.stdin).on('line', () => {
      process.stdout.write(`${JSON.stringify({ distinct: this.#seen.size })}\n`)
    })
  }

  add(timeMs: number): void {
    this.#seen.add(timeMs)
  }
}
