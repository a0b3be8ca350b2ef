import type { Store, StoreChange, StoreEntry, StoreRange } from '../../shared/ports.ts'

/** A store that keeps its promises and forgets everything with the process: for a thousand of them at once. */
export class MemoryStore implements Store {
  readonly #entries = new Map<string, StoreEntry>()

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#entries.get(text(key))?.value
  }

  async write(changes: readonly StoreChange[]): Promise<void> {
    for (const { key, value } of changes)
      if (value) this.#entries.set(text(key), { key, value })
      else this.#entries.delete(text(key))
  }

  async *read({ gte, lt, reverse, limit = -1 }: StoreRange): AsyncIterable<StoreEntry> {
    const [low, high] = [text(gte), text(lt)]
    const keys = [...this.#entries.keys()].filter((key) => key >= low && key < high).sort()
    if (reverse) keys.reverse()
    for (const key of limit < 0 ? keys : keys.slice(0, limit)) yield this.#entries.get(key)!
  }

  async close(): Promise<void> {}
}

/** Latin-1 text orders as its bytes do. */
function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}
