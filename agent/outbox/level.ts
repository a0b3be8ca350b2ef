import { ClassicLevel } from 'classic-level'
import { UserError } from '../../shared/failure.ts'
import type { Store } from '../../shared/ports.ts'
import { OutboxFailure } from './failure.ts'

/** LevelDB as a `Store`. Its measured faults are in DESIGN.md; the outbox is written around them. */
export async function openLevel(directory: string): Promise<Store> {
  const level = new ClassicLevel<Uint8Array, Uint8Array>(directory, {
    keyEncoding: 'view',
    valueEncoding: 'view',
    // What is in flight is bounded by the outbox; a small cache suits a gateway.
    cacheSize: 2 * 1024 * 1024,
    // After a full disk, opening turns two logs, each up to a buffer and a write long, into tables before it
    // deletes them. That has to fit into the reserve, on a disk of 16 MiB too.
    writeBufferSize: 1024 * 1024,
    // Blocks are compact already; and files without compression can be read when LevelDB will not.
    compression: false,
  })
  try {
    await level.open()
  } catch (error) {
    const { cause } = error as { cause?: { code?: string; message?: string } }
    if (cause?.code === 'LEVEL_LOCKED')
      throw new UserError(
        `${directory}: another running agent holds it: stop that one, or give this one its own data folder`,
        { cause: error },
      )
    const why = cause?.message ?? String(error)
    if (/permission denied/i.test(why))
      throw new UserError(
        `${directory}: no permission: make it writable for this user, or choose another data folder`,
        { cause: error },
      )
    throw new OutboxFailure('OUTBOX_OPEN_FAILED', `${directory}: ${why}`, { cause: error })
  }
  return {
    get: (key) => level.get(key),
    async write(changes, { sync }) {
      // Chained: the array form costs several times more for each change.
      const batch = level.batch()
      for (const { key, value } of changes) value ? batch.put(key, value) : batch.del(key)
      await batch.write({ sync })
    },
    async *read({ gte, lt, reverse = false, limit = -1 }) {
      for await (const [key, value] of level.iterator({ gte, lt, reverse, limit }))
        yield { key, value }
    },
    compact: ({ gte, lt }) => level.compactRange(gte, lt),
    close: () => level.close(),
  }
}
