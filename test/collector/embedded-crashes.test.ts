import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { FolderView } from '../../collector/log/embedded/folder-view.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import { entryOf, readAll, unreadableEntry } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { openLog } from '../support/embedded-log.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { type DiskCall, MemoryDisk } from '../support/memory-disk.ts'
import { Seeded } from '../support/seeded.ts'

const histories = effort('HEADGATE_LOG_HISTORIES', { quick: 20, inCi: 40, inFull: 2_000 })
const changing: readonly DiskCall[] = ['write', 'sync', 'truncate', 'rename', 'remove']

/** What a crash has left, and what may and must be read of it. */
interface Image {
  disk: MemoryDisk
  must: readonly string[]
  may: ReadonlySet<string>
}

test(`${histories} logs that crash at every step keep what was answered for, and no batch that is none`, async (t) => {
  const first = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${first}`)
  let images = 0
  for (let seed = first; seed < first + histories; seed++)
    for (const image of await live(new Seeded(seed))) {
      images += 1
      await judge(image, `seed ${seed}`)
    }
  t.diagnostic(`${images} images`)
})

/** A log that takes batches, some of which are none, on a disk that fails now and then. */
async function live(random: Seeded): Promise<Image[]> {
  const images: Image[] = []
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  const log = await openLog(disk, { segmentBytes: random.pick([900, 2_000, 2 ** 20]), clock })
  const answered: string[] = []
  const sent = new Set<string>()
  const cut = crashes(disk, random)
  const crash = () => images.push({ disk: cut(), must: [...answered], may: new Set(sent) })
  let failing = 0
  disk.before = (call) => {
    if (!changing.includes(call)) return
    crash()
    if (failing === 0 || random.below(2) === 0) return
    failing -= 1
    throw new Error(`EIO on ${call}`)
  }
  const agents = [1, 2, 3].map((n) => new TestAgent({ name: `gw-${n}` }))
  const refused: Promise<void>[] = []
  for (let step = 0; step < 8; step++) {
    if (random.below(7) === 0) failing = 1 + random.below(3)
    if (random.below(2) === 0) {
      const none = new TestAgent({ name: `none-${random.below(3)}` }).readings(1 + random.below(12))
      const entry = unreadableEntry(none)
      const check = () => {
        crash()
        entry.check!()
      }
      refused.push(assert.rejects(log.append({ ...entry, check })))
    } else {
      const batch = random.pick(agents).readings(1 + random.below(9))
      const { agent, first, last } = batch.header
      sent.add(`${agent} ${first}-${last}`)
      while (!(await log.append(entryOf(batch)).catch(() => undefined))) {
        failing = 0
        await clock.advance(1_000)
      }
      answered.push(`${agent} ${first}-${last}`)
      crash()
    }
    if (random.below(2) === 0) await Promise.all(refused.splice(0))
  }
  failing = 0
  while (log.state !== 'open') await clock.advance(1_000)
  await Promise.all(refused.splice(0))
  crash()
  disk.before = () => {}
  await log.close()
  return images
}

/** Gives the disk after a crash: of each file, page by page, something that it has been since it was synced. */
function crashes(disk: MemoryDisk, random: Seeded): () => MemoryDisk {
  const synced = new Map<string, Uint8Array>()
  const versions = new Map<string, Uint8Array[]>()
  return () =>
    disk.powerCut((path, file) => {
      if (synced.get(path) !== file.synced) versions.set(path, [file.synced])
      synced.set(path, file.synced)
      const known = versions.get(path)!
      if (known.at(-1) !== file.bytes) known.push(file.bytes)
      if (random.below(5) === 0) return file.bytes
      const page = random.pick([16, 64, 256, 4_096])
      const left = new Uint8Array(random.pick(known).length)
      for (let at = 0; at < left.length; at += page)
        left.set(random.pick(known).subarray(at, Math.min(at + page, left.length)), at)
      return left
    })
}

async function judge({ disk, must, may }: Image, where: string): Promise<void> {
  const view = await FolderView.open(disk, new ManualClock())
  const seen = view ? await contentOf(view) : []
  await using log = await openLog(disk)
  const content = await contentOf(log)
  assert.deepEqual(
    must.filter((batch) => !content.includes(batch)),
    [],
    `${where}: answered for and gone`,
  )
  assert.deepEqual(
    content.filter((batch) => !may.has(batch)),
    [],
    `${where}: from nowhere`,
  )
  assert.equal(content.length, new Set(content).size, `${where}: twice`)
  assert.deepEqual(seen, content, `${where}: who reads the folder sees something else`)
  assert.deepEqual((await verifyLog(disk)).problems, [], where)
  const later = new TestAgent({ name: 'later' }).readings(2)
  assert.equal((await log.append(entryOf(later))).code, 'accepted', where)
}

async function contentOf(log: EmbeddedLog | FolderView): Promise<string[]> {
  const items = await readAll(log, { stream: 'readings' })
  return items.map((item) =>
    item.type === 'batch'
      ? `${item.agent} ${item.first}-${item.last}`
      : `damage ${item.first}-${item.last}`,
  )
}
