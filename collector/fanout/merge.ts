/**
 * What several sources give, as it comes; each is asked for its next item only once the one before is
 * taken. Ends when all have ended.
 */
export async function* merge<T>(sources: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]())
  const ask = async (at: number) => ({ at, result: await iterators[at]!.next() })
  const asked = new Map(iterators.map((_, at) => [at, ask(at)]))
  try {
    while (asked.size > 0) {
      const { at, result } = await Promise.race(asked.values())
      // Behind the others: a source that always has something must not keep them waiting.
      asked.delete(at)
      if (result.done) continue
      yield result.value
      asked.set(at, ask(at))
    }
  } finally {
    // One that waits for more cannot be told so: its signal ends it.
    for (const at of iterators.keys()) iterators[at]!.return?.(undefined)?.catch(() => {})
    for (const waiting of asked.values()) waiting.catch(() => {})
  }
}
