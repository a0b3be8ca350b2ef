import { after } from 'node:test'
import type { Test } from './clean-up.ts'

/** What all tests of a file share: its end is the file's. To be made outside of tests and hooks. */
export class FileScope {
  /** Why the tests cannot run; undefined when they can. */
  skipped: string | undefined
  readonly #undo: (() => unknown)[] = []

  constructor() {
    after(async () => {
      for (const undo of this.#undo) await undo()
    })
  }

  readonly after: Test['after'] = (undo) => {
    this.#undo.push(undo as () => unknown)
  }

  readonly skip = (why = 'skipped'): void => {
    this.skipped = why
  }
}
