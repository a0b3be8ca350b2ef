import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { pino } from 'pino'
import { Headroom } from '../../collector/log/embedded/headroom.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import type { DiskFile } from '../../shared/ports.ts'
import { entryOf, readAll, unreadableEntry } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { openLog } from '../support/embedded-log.ts'
import { MemoryDisk } from '../support/memory-disk.ts'

const segment = 'log/0/000000000001.segment'
/** No segment is sealed for its size. */
const large = { segmentBytes: 2 ** 20, headroomBytes: 2048 }

/** Zeros behind the last byte that is none. */
function zerosBehind(bytes: Uint8Array): number {
  return bytes.length - 1 - bytes.findLastIndex((byte) => byte !== 0)
}

async function contentOf(log: Parameters<typeof readAll>[0]): Promise<string[]> {
  const items = await readAll(log, { stream: 'readings' })
  return items.map(({ type, first, last }) => `${type} ${first}-${last}`)
}

/** A log, and what has been appended. */
async function appendable(disk: MemoryDisk) {
  const log = await openLog(disk, large)
  const agent = new TestAgent()
  const appended: string[] = []
  const append = async () => {
    const batch = agent.readings(3)
    appended.push(`batch ${agent.next - 3}-${agent.next - 1}`)
    assert.equal((await log.append(entryOf(batch))).code, 'accepted')
  }
  return { log, append, appended }
}

/** The same, with room at the end of its segment. */
async function withRoom(disk: MemoryDisk) {
  const made = await appendable(disk)
  while (zerosBehind(disk.bytesOf(segment)) < 1000) await made.append()
  return made
}

test('what a power cut leaves of room is cut, and no news', async () => {
  const disk = new MemoryDisk()
  const { appended } = await withRoom(disk)
  const image = disk.powerCut((_, { synced }) => synced)
  assert.ok(zerosBehind(image.bytesOf(segment)) >= 1000)
  assert.deepEqual((await verifyLog(image)).problems, [])

  const lines: string[] = []
  const logger = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  await using after = await openLog(image, { ...large, logger })
  assert.deepEqual(lines, [])
  assert.deepEqual(await contentOf(after), appended)
  assert.ok(zerosBehind(image.bytesOf(segment)) < 8)
})

test('of a group that a power cut tore in the midst of room, what was cut is told without the zeros', async () => {
  const disk = new MemoryDisk()
  const { appended, append } = await withRoom(disk)
  const before = disk.syncedOf(segment).findLastIndex((byte) => byte !== 0) + 1
  await append()
  const torn = disk.powerCut((path, { synced }) => {
    const bytes = synced.slice()
    if (path === segment) bytes.fill(0, before + 100)
    return bytes
  })
  const cut: number[] = []
  const logger = pino({}, { write: (line: string) => void cut.push(JSON.parse(line).bytes) })
  await using after = await openLog(torn, { ...large, logger })
  assert.deepEqual(await contentOf(after), appended.slice(0, -1))
  assert.equal(cut.length, 1)
  assert.ok(cut[0]! > 50 && cut[0]! <= 100, `${cut}`)
})

test('a segment that is closed has no room left in it, and is gone on with', async () => {
  const disk = new MemoryDisk()
  const { log, append, appended } = await withRoom(disk)
  await append()
  await log.close()
  assert.ok(zerosBehind(disk.syncedOf(segment)) < 8)
  await using again = await openLog(disk, large)
  assert.deepEqual(await contentOf(again), appended)
  // Where collectors are started often, not each start fills the disk with zeros.
  await again.append(entryOf(new TestAgent({ name: 'gw-2' }).readings(3)))
  assert.ok(zerosBehind(disk.bytesOf(segment)) < 8)
})

test('where room could not be made the next group goes into another segment, one that waited for it too', async () => {
  for (const atOnce of [1, 2]) {
    const disk = new MemoryDisk()
    const failedAt: number[] = []
    const open = disk.open.bind(disk)
    disk.open = async (path, mode) => {
      const file = await open(path, mode)
      if (path !== segment || mode !== 'create') return file
      const write = file.write.bind(file)
      file.write = async (chunks, offset) => {
        await write(chunks, offset)
        if (chunks[0]!.length !== large.headroomBytes) return
        failedAt.push(offset)
        await setImmediate() // By now a group that is there waits.
        throw new Error('EIO')
      }
      return file
    }
    const { log, append, appended } = await appendable(disk)
    while (appended.length < 20) await Promise.all(Array.from({ length: atOnce }, append))
    assert.equal(failedAt.length, 1)
    assert.equal((await disk.list('log/0')).filter((name) => name.endsWith('.segment')).length, 2)
    assert.equal(disk.syncedOf(segment).length, failedAt[0])
    assert.deepEqual(await contentOf(log), appended)
    assert.deepEqual((await verifyLog(disk)).problems, [])
    await log.close()
  }
})

test('a group that would reach into room that is being made waits for it', async () => {
  const { headroom, file, release, bytes } = await makingRoom()
  let isFree = false
  const free = headroom.free(130).then(() => {
    isFree = true
  })
  await headroom.free(100) // Before the zeros there is nothing to wait for.
  assert.equal(isFree, false)
  release()
  await free
  await file.write([new Uint8Array(30).fill(2)], 100)
  assert.deepEqual(bytes().subarray(98, 132), Uint8Array.from([1, 1, ...Array(30).fill(2), 0, 0]))
})

test('a file that is cut while room is being made has none', async () => {
  const { headroom, release, bytes } = await makingRoom()
  const cut = headroom.cut(100)
  release()
  await cut
  await headroom.free(1000)
  assert.equal(bytes().length, 100)
})

test('room that a full disk has no space for is given back, and not asked for again', async () => {
  const disk = new MemoryDisk()
  const file = await disk.open('a', 'create')
  await file.write([new Uint8Array(100).fill(1)], 0)
  const headroom = new Headroom(file, { end: 0, bytes: 100, limit: 1000 })
  let writes = 0
  disk.before = (call) => {
    if (call !== 'write') return
    writes += 1
    throw new Error('ENOSPC')
  }
  for (let i = 0; i < 3; i++) {
    headroom.written(100, 50)
    await headroom.free(150)
  }
  assert.equal(writes, 1)
  assert.equal(disk.bytesOf('a').length, 100)
})

test('room ends with the segment, and large groups get none', async () => {
  for (const [length, end, limit, grown] of [
    [50, 100, 200, 100],
    [50, 101, 200, 0],
    [50, 99, 200, 0],
    [32 * 1024 + 1, 100, 200, 0],
  ] as const) {
    const disk = new MemoryDisk()
    const file = await disk.open('a', 'create')
    await file.write([new Uint8Array(end)], 0)
    const headroom = new Headroom(file, { end: 0, bytes: 100, limit })
    headroom.written(end, length)
    await headroom.free(limit)
    assert.equal(disk.bytesOf('a').length, end + grown, `${length} up to ${end} of ${limit}`)
  }
})

test('who sends what is no batch makes no room be made', async () => {
  const disk = new MemoryDisk()
  const { log, append } = await withRoom(disk)
  let rooms = 0
  let size = disk.bytesOf(segment).length
  disk.before = () => {
    const grown = disk.bytesOf(segment).length - size
    size += grown
    if (grown >= large.headroomBytes) rooms += 1
  }
  const bad = new TestAgent({ name: 'gw-bad' }).readings(3)
  for (let i = 0; i < 20; i++) {
    await assert.rejects(log.append(unreadableEntry(bad)), { code: 'WIRE_INVALID' })
    if (i % 5 === 0) await append()
  }
  await log.close()
  assert.equal(rooms, 0)
})

/** Behind the 100 bytes of a file room is on its way, and gets no further before `release`. */
async function makingRoom() {
  const disk = new MemoryDisk()
  const inner = await disk.open('a', 'create')
  await inner.write([new Uint8Array(100).fill(1)], 0)
  const begun = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  const file: DiskFile = {
    size: () => inner.size(),
    read: (offset, length) => inner.read(offset, length),
    async write(chunks, offset) {
      begun.resolve()
      await held.promise
      await inner.write(chunks, offset)
    },
    writeSynced: (chunks, offset) => inner.writeSynced(chunks, offset),
    sync: () => inner.sync(),
    truncate: (size) => inner.truncate(size),
    close: () => inner.close(),
  }
  const headroom = new Headroom(file, { end: 0, bytes: 100, limit: 1000 })
  headroom.written(100, 100)
  await begun.promise
  return { headroom, file, release: () => held.resolve(), bytes: () => disk.bytesOf('a') }
}
