import type { Store } from '../../shared/ports.ts'
import { OutboxFailure, type OutboxFailureCode } from './failure.ts'

/** A store whose every failure is the outbox's own: whoever holds it then knows to open it anew. */
export function codedStore(store: Store): Store {
  return {
    get: (key) => store.get(key).catch(failing('OUTBOX_READ_FAILED')),
    write: (changes, options) =>
      store.write(changes, options).catch(failing('OUTBOX_WRITE_FAILED')),
    async *read(range) {
      const entries = store.read(range)[Symbol.asyncIterator]()
      try {
        for (;;) {
          const { done, value } = await entries.next().catch(failing('OUTBOX_READ_FAILED'))
          if (done) return
          yield value
        }
      } finally {
        await entries.return?.()
      }
    },
    async compact(range) {
      await store.compact?.(range).catch(failing('OUTBOX_WRITE_FAILED'))
    },
    close: () => store.close(),
  }
}

function failing(code: OutboxFailureCode): (cause: unknown) => never {
  return (cause) => {
    throw new OutboxFailure(code, cause instanceof Error ? cause.message : String(cause), { cause })
  }
}
