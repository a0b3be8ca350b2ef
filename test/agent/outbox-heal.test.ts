import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openHealed } from '../../agent/outbox/heal.ts'
import { openLevel } from '../../agent/outbox/level.ts'
import type { Outbox } from '../../agent/outbox/outbox.ts'
import { decodeItem } from '../../shared/batch.ts'
import { UserError } from '../../shared/failure.ts'
import { imbalance } from '../../shared/ledger.ts'
import { cleanUp } from '../support/clean-up.ts'
import { CuttableDisk } from '../support/file-systems.ts'
import { groupOf, openOutbox, wholeLane } from '../support/outbox.ts'
import { readings } from '../support/readings.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const groups = 20
const perGroup = 5

/** A store with 100 readings, closed as a crash would leave it: everything still in the log. */
async function store(t: TestContext): Promise<string> {
  const directory = join(await temporaryDirectory(t), 'outbox')
  await using outbox = await openOutbox(directory)
  for (let i = 0; i < groups; i++)
    await outbox.commit(groupOf(readings(perGroup, 1 + i * perGroup)))
  const copy = join(directory, '..', 'crashed', 'outbox')
  await mkdir(join(copy, '..'))
  await cp(directory, copy, { recursive: true })
  return copy
}

async function healed(
  t: TestContext,
  directory: string,
): Promise<{ outbox: Outbox; report: string[] }> {
  const { store, report } = await openHealed(directory, join(directory, '..', 'damaged'), 'now')
  const outbox = await openOutbox(directory, { store })
  t.after(() => outbox.close())
  return { outbox, report }
}

/** Every value kept, and the number of sequences that gaps declare; checks that nothing else is missing. */
async function account(outbox: Outbox): Promise<{ kept: number[]; lost: number }> {
  const kept: number[] = []
  let lost = 0
  let next = 1
  for (
    let cut = await outbox.cut('bulk', wholeLane);
    cut;
    cut = await outbox.cut('bulk', wholeLane)
  ) {
    assert.equal(cut.first, next, 'no hole without a gap')
    next = cut.last + 1
    for (const { bytes } of cut.items) {
      const item = decodeItem(bytes)
      if (item.kind === 'readings') kept.push(...item.readings.map(({ value }) => value as number))
      else if (item.kind === 'gap') lost += item.count
    }
    await outbox.release(cut)
  }
  assert.deepEqual(
    kept,
    [...new Set(kept)].sort((a, b) => a - b),
    'once and in order',
  )
  assert.equal(imbalance(outbox.ledger), 0)
  return { kept, lost }
}

async function logOf(directory: string): Promise<string> {
  const name = (await readdir(directory)).find((file) => file.endsWith('.log'))
  return join(directory, name!)
}

test('an undamaged store opens as it is', async (t) => {
  const { outbox, report } = await healed(t, await store(t))
  assert.deepEqual(report, [])
  assert.deepEqual(outbox.damage, [])
  assert.equal((await account(outbox)).kept.length, groups * perGroup)
})

test('a bit flipped anywhere in the log costs at most the group it is in, and that is declared', async (t) => {
  const directory = await store(t)
  const log = await logOf(directory)
  const bytes = await readFile(log)
  const step = Math.floor(bytes.length / 40)
  for (let at = step; at < bytes.length; at += step) {
    const copy = join(directory, '..', `flip-${at}`, 'outbox')
    await mkdir(join(copy, '..'))
    await cp(directory, copy, { recursive: true })
    const flipped = Buffer.from(bytes)
    flipped[at]! ^= 0x10
    await writeFile(await logOf(copy), flipped)
    const { outbox, report } = await healed(t, copy)
    const { kept, lost } = await account(outbox)
    assert.ok(report.length > 0, `byte ${at}: noticed`)
    assert.ok(kept.length >= (groups - 1) * perGroup, `byte ${at}: ${kept.length} kept`)
    const missing = groups * perGroup - kept.length
    if (missing > 0) assert.ok(lost > 0, `byte ${at}: ${missing} missing and nothing declared`)
  }
})

test('a record that merely stops, as a power cut leaves it, is no damage', async (t) => {
  const directory = await store(t)
  const log = await logOf(directory)
  await truncate(log, (await readFile(log)).length - 10)
  const { outbox, report } = await healed(t, directory)
  assert.deepEqual(report, [])
  const { kept, lost } = await account(outbox)
  assert.deepEqual([kept.length, lost], [(groups - 1) * perGroup, 0])
})

test('without CURRENT nothing is lost, though LevelDB would start empty', async (t) => {
  const directory = await store(t)
  await rm(join(directory, 'CURRENT'))
  const { outbox, report } = await healed(t, directory)
  assert.match(report.join(), /CURRENT is missing/)
  assert.equal((await account(outbox)).kept.length, groups * perGroup)
})

test('a store that LevelDB does not open is carried over from its tables', async (t) => {
  const directory = await store(t)
  // Opening and closing moves the log into a table.
  await (await openLevel(directory)).close()
  const names = await readdir(directory)
  assert.ok(names.some((name) => name.endsWith('.ldb')))
  for (const name of names.filter((file) => file.startsWith('MANIFEST')))
    await writeFile(join(directory, name), 'nonsense')
  const { outbox, report } = await healed(t, directory)
  assert.ok(report.length > 0)
  assert.equal((await account(outbox)).kept.length, groups * perGroup)
})

test('foreign, empty and missing files are set aside, and the agent starts', async (t) => {
  const directory = await store(t)
  await writeFile(join(directory, '000099.ldb'), '')
  await writeFile(join(directory, 'CURRENT'), '')
  await writeFile(join(directory, 'notes.txt'), 'hello')
  const { outbox } = await healed(t, directory)
  assert.equal((await account(outbox)).kept.length, groups * perGroup)
})

test("another process's store is refused, not salvaged", async (t) => {
  const directory = join(await temporaryDirectory(t), 'outbox')
  await using _held = await openOutbox(directory)
  const again = openHealed(directory, join(directory, '..', 'damaged'), 'now')
  await assert.rejects(again, UserError)
  assert.ok(!(await readdir(join(directory, '..'))).includes('damaged'))
})

test('a lock of somebody else, on a file of another disk with the same number, hides no damage', async (t) => {
  const [disk, other] = [await CuttableDisk.make(t, 16), await CuttableDisk.make(t, 16)]
  if (!disk || !other) return
  const directory = join(disk.directory, 'outbox')
  await cp(await store(t), directory, { recursive: true })
  const { ino } = await stat(join(directory, 'LOCK'))
  await holdLock(t, await fileNumbered(other.directory, ino))
  await rm(join(directory, 'CURRENT'))
  const { report } = await healed(t, directory)
  assert.match(report.join(), /CURRENT is missing/)
})

test('a store that is damaged twice in the same moment is set aside twice', async (t) => {
  const directory = await store(t)
  for (let i = 0; i < 2; i++) {
    await rm(join(directory, 'CURRENT'))
    const { store } = await openHealed(directory, join(directory, '..', 'damaged'), 'now')
    await store.close()
  }
  assert.deepEqual(await readdir(join(directory, '..', 'damaged')), ['now-outbox', 'now-outbox-2'])
  const { outbox } = await healed(t, directory)
  assert.equal((await account(outbox)).kept.length, groups * perGroup)
})

test('a repair that was cut short begins again, or is finished', async (t) => {
  // In the middle of making the new store: the damaged one is still there.
  const begun = await store(t)
  await rm(join(begun, 'CURRENT'))
  await mkdir(`${begun}.healed`)
  await writeFile(join(`${begun}.healed`, '000003.log'), 'half of it')
  const again = await healed(t, begun)
  assert.deepEqual((await account(again.outbox)).kept.length, groups * perGroup)

  // Between setting the damaged one aside and putting the new one in its place.
  const made = await store(t)
  await cp(made, `${made}.healed`, { recursive: true })
  await rm(made, { recursive: true })
  await mkdir(made) // As the agent does before it opens.
  const finished = await healed(t, made)
  assert.deepEqual(finished.report, [])
  assert.deepEqual((await account(finished.outbox)).kept.length, groups * perGroup)
})

/** Makes files until one has this inode. */
async function fileNumbered(directory: string, ino: number): Promise<string> {
  for (let i = 0; ; i++) {
    const path = join(directory, `${i}`)
    await writeFile(path, '')
    if ((await stat(path)).ino === ino) return path
  }
}

/** A process of its own that locks a file as LevelDB does. */
async function holdLock(t: TestContext, path: string): Promise<void> {
  const program = `
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
`
  const holder = spawn('python3', ['-c', program, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  cleanUp(t, async () => {
    holder.stdin.end()
    if (holder.exitCode === null) await once(holder, 'exit')
  })
  await once(holder.stdout, 'data')
}
