import { UserError } from '../../shared/failure.ts'
import type { Store, StoreChange } from '../../shared/ports.ts'
import { seal, sealBytes, unseal, unsealBytes } from './entry.ts'
import { isOurs, metaKey, stateRange, wholeRange } from './key.ts'

/** What a store says of itself. */
export interface Meta {
  format: number
  agent: string
}

/** The format that this version writes. */
export const storeFormat = 2

/**
 * Rewrites a store of one format as the next. A crash may end it between any two writes, and then it begins
 * again: it must recognise what it has already rewritten. Its writes are synced, since LevelDB does not keep
 * an earlier asynchronous one with a later synced one.
 */
export type Migration = (store: Store) => Promise<void>

/** By the format that they start from. */
const migrations: Readonly<Record<number, Migration>> = { 1: sealState }

/** From 2 on the stages' state has a checksum, too. */
async function sealState(store: Store): Promise<void> {
  for (const space of ['source', 'decode', 'filter'] as const) {
    const changes: StoreChange[] = []
    for await (const { key, value } of store.read(stateRange(space)))
      if (!unsealBytes(key, value)) changes.push({ key: key.slice(), value: sealBytes(key, value) })
    if (changes.length > 0) await store.write(changes, { sync: true })
  }
}

/**
 * @returns undefined for a new store, or one whose own record is damaged
 * @throws UserError when a newer version wrote it: nothing was touched
 */
export async function readMeta(store: Store, format = storeFormat): Promise<Meta | undefined> {
  const value = await store.get(metaKey)
  const meta = value && unseal<Meta>(metaKey, value)
  if (meta && meta.format > format)
    throw new UserError(
      `the outbox has format ${meta.format}, this version reads up to ${format}: use the newer version again`,
    )
  return meta
}

/**
 * @throws UserError when the store has a content, and none of ours: it is another program's
 */
export async function refuseForeign(store: Store): Promise<void> {
  for (const reverse of [false, true])
    for await (const { key } of store.read({ ...wholeRange, reverse, limit: 1 }))
      if (!isOurs(key))
        throw new UserError('the outbox folder has the database of another program in it')
}

/** Brings a store up to date, in place, one format after the other. */
export async function migrate(
  store: Store,
  meta: Meta,
  { format = storeFormat, steps = migrations } = {},
): Promise<void> {
  for (let from = meta.format; from < format; from++) {
    const step = steps[from]
    if (!step) throw new RangeError(`no migration from format ${from}`)
    await step(store)
    // Only now does the store say so: until here an older version may still take it back.
    const value = seal(metaKey, { ...meta, format: from + 1 })
    await store.write([{ key: metaKey, value }], { sync: true })
  }
}
