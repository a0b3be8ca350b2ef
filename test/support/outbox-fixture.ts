// Writes a store of the current format, for `test/data/outbox-format-<n>`: `node test/support/outbox-fixture.ts DIR`.
// Run once, by the last version that writes the format; from then on every version must open what it wrote.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { CommitGroup } from '../../agent/outbox/outbox.ts'
import type { Value } from '../../shared/reading.ts'
import { groupOf, openOutbox, wholeLane } from './outbox.ts'
import { reading, readings } from './readings.ts'

/** Values of the last group in lane `bulk`. */
export const values: Value[] = [21.5, 2n ** 63n, -(2n ** 63n), true, 'open', null]

const state: CommitGroup['state'] = [
  { space: 'source', key: 'mark', value: Uint8Array.of(1, 2, 3) },
  { space: 'decode', key: 'alias', value: Uint8Array.of(4) },
  { space: 'filter', key: 'pump-1/temperature', value: Uint8Array.of(5, 6) },
]

async function write(directory: string): Promise<void> {
  {
    await using outbox = await openOutbox(directory)
    await outbox.commit(groupOf(readings(3), { state }))
    await outbox.release((await outbox.cut('bulk', wholeLane))!, { wireBytes: 200 })
    await outbox.commit(groupOf(readings(2, 4)))
    await outbox.refuse((await outbox.cut('bulk', { ...wholeLane, maxCount: 1 }))!, 'too odd')
    await outbox.commit(groupOf(readings(2, 6, 'valve-7'), { lane: 'urgent' }))
  }
  // Under a second incarnation; the first is now in a table, this one in LevelDB's log.
  await using outbox = await openOutbox(directory)
  await outbox.commit(groupOf(values.map((value) => reading({ value }))))
}

if (process.argv[1] === import.meta.filename) {
  const directory = process.argv[2]!
  await write(directory)
  // Neither is part of the store, and both say where it was made.
  for (const file of ['LOG', 'LOG.old', 'LOCK']) rmSync(join(directory, file), { force: true })
}
