import assert from 'node:assert/strict'
import { cp } from 'node:fs/promises'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { seal } from '../../agent/outbox/entry.ts'
import { type Migration, migrate, readMeta } from '../../agent/outbox/format.ts'
import { metaKey, wholeRange } from '../../agent/outbox/key.ts'
import { openLevel } from '../../agent/outbox/level.ts'
import { decodeItem } from '../../shared/batch.ts'
import { imbalance } from '../../shared/ledger.ts'
import type { Store } from '../../shared/ports.ts'
import { type Lane, lanes } from '../../shared/reading.ts'
import { groupOf, openOutbox, wholeLane } from '../support/outbox.ts'
import { values } from '../support/outbox-fixture.ts'
import { readings } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const fixture = fileURLToPath(new URL('../data/outbox-format-1', import.meta.url))

test('a store of format 1 opens for ever, and all that waits in it comes out', async (t) => {
  const directory = await temporaryDirectory(t)
  await cp(fixture, directory, { recursive: true })
  await using outbox = await openOutbox(directory)
  assert.deepEqual(outbox.damage, [])
  const { received, forwarded, quarantined, buffered } = outbox.ledger
  assert.deepEqual(
    { received, forwarded, quarantined, buffered },
    { received: 13, forwarded: 3, quarantined: 1, buffered: 9 },
  )
  assert.equal(imbalance(outbox.ledger), 0)
  const came: Record<Lane, unknown[]> = { urgent: [], bulk: [], quarantine: [] }
  for (const lane of lanes)
    for (
      let cut = await outbox.cut(lane, wholeLane);
      cut;
      cut = await outbox.cut(lane, wholeLane)
    ) {
      for (const { bytes } of cut.items) {
        const item = decodeItem(bytes)
        if (item.kind === 'readings') came[lane].push(...item.readings.map(({ value }) => value))
        else came[lane].push(item.kind === 'gap' ? item.reason : item.records[0]!.type)
      }
      await outbox.release(cut)
    }
  assert.deepEqual(came, {
    urgent: [6, 7],
    bulk: ['refused', 5, ...values],
    quarantine: ['quarantine'],
  })
  const state: [string, number[]][] = []
  for (const space of ['source', 'decode', 'filter'] as const)
    for await (const { key, value } of outbox.read(space)) state.push([key, [...value]])
  assert.deepEqual(state, [
    ['mark', [1, 2, 3]],
    ['alias', [4]],
    ['pump-1/temperature', [5, 6]],
  ])
})

test('a migration that a crash ends begins again, and counts only once it is whole', async (t) => {
  const directory = await temporaryDirectory(t)
  await (await openOutbox(directory)).close()
  const store = await openLevel(directory)
  t.after(() => store.close())
  const taken: string[] = []
  let crashes = 1
  const steps: Record<number, Migration> = {
    2: async () => {
      taken.push('2 to 3')
      if (crashes-- > 0) throw new Error('power cut')
    },
    3: async () => void taken.push('3 to 4'),
  }
  const run = async () => migrate(store, (await readMeta(store, 4))!, { format: 4, steps })
  await assert.rejects(run(), /power cut/)
  assert.equal((await readMeta(store))!.format, 2)
  await run()
  await run()
  assert.deepEqual(taken, ['2 to 3', '2 to 3', '3 to 4'])
  assert.deepEqual(await readMeta(store, 4), { format: 4, agent: 'gw-001' })
})

test('a store that a newer version wrote is refused, and not touched', async (t) => {
  const directory = await temporaryDirectory(t)
  const before = await openOutbox(directory)
  await before.commit(groupOf(readings(3)))
  await before.close()
  const store = await openLevel(directory)
  t.after(() => store.close())
  const value = seal(metaKey, { format: 3, agent: 'gw-001' })
  await store.write([{ key: metaKey, value }], { sync: true })
  const written = await content(store)
  await assert.rejects(
    openOutbox(directory, { store }),
    /format 3, this version reads up to 2: use the newer/,
  )
  assert.deepEqual(await content(store), written)
})

async function content(store: Store): Promise<[Uint8Array, Uint8Array][]> {
  const entries: [Uint8Array, Uint8Array][] = []
  for await (const { key, value } of store.read(wholeRange))
    entries.push([key.slice(), value.slice()])
  return entries
}
