import { moved, type Note, type Notes } from '../../collector/log/notes.ts'

/** What several collectors share, in memory. `before` and `after` a call may throw, or take their time. */
export class MemoryNotes implements Notes {
  readonly isShared = true
  before: (call: 'read' | 'write', name: string) => unknown = () => {}
  after: (call: 'read' | 'write', name: string) => unknown = () => {}
  writes = 0
  readonly #notes = new Map<string, Note>()
  #revisions = 0

  async read(name: string): Promise<Note> {
    await this.before('read', name)
    const note = this.#notes.get(name) ?? { text: undefined, revision: 0 }
    await this.after('read', name)
    return note
  }

  async write(
    name: string,
    text: string | undefined,
    expected: number,
  ): Promise<number | typeof moved> {
    await this.before('write', name)
    if ((this.#notes.get(name)?.revision ?? 0) !== expected) return moved
    this.#revisions += 1
    this.writes += 1
    const revision = this.#revisions
    this.#notes.set(name, { text, revision })
    await this.after('write', name)
    return revision
  }

  async list(prefix: string): Promise<string[]> {
    const there = [...this.#notes].filter(([name, { text }]) => text && name.startsWith(prefix))
    return there.map(([name]) => name)
  }
}
