import assert from 'node:assert/strict'
import { test } from 'node:test'
import crc32c from 'crc-32/crc32c.js'
import { FolderView } from '../../collector/log/embedded/folder-view.ts'
import { anyMark } from '../../collector/log/embedded/frame.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import type { LogEngine } from '../../collector/log/engine.ts'
import type { Stream } from '../../shared/reading.ts'
import { entryOf, readAll, unreadableEntry } from '../contract/log-engine.ts'
import { incarnation, TestAgent, type TestBatch } from '../support/batches.ts'
import { openLog } from '../support/embedded-log.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { reading } from '../support/readings.ts'

/** Each sync of a segment is a group's, and its file ends with a frame. */
const noRoom = { headroomBytes: 2 ** 20 }
const segment = (number: number) => `log/0/${String(number).padStart(12, '0')}.segment`

/** First and last sequence of each batch that is served, and what is said to be damaged. */
async function contentOf(log: LogEngine, stream: Stream = 'readings'): Promise<string[]> {
  const items = await readAll(log, { stream })
  return items.map((item) =>
    item.type === 'batch' ? `${item.first}-${item.last}` : `lost ${item.first}-${item.last}`,
  )
}

async function appendAll(log: LogEngine, batches: readonly TestBatch[]): Promise<void> {
  for (const batch of batches) assert.equal((await log.append(entryOf(batch))).code, 'accepted')
}

/** Positions at which frames begin, found by their mark. */
function framesIn(bytes: Uint8Array): number[] {
  const text = Buffer.from(bytes)
  const mark = text.subarray(32, 40)
  const positions: number[] = []
  for (let at = text.indexOf(mark, 88); at >= 0; at = text.indexOf(mark, at + 1)) positions.push(at)
  return positions
}

test('a power cut at any byte of a group leaves what was acknowledged, and whole batches', async () => {
  const disk = new MemoryDisk()
  const log = await openLog(disk, noRoom)
  const agent = new TestAgent()
  const acknowledged = [agent.readings(3), agent.readings(3)]
  await appendAll(log, acknowledged)
  const group = [agent.readings(3), agent.readings(3), agent.readings(3)]

  // The first goes alone, the others wait for it and go together; the power is cut at their sync.
  const images: MemoryDisk[] = []
  let syncs = 0
  disk.before = (call, path) => {
    if (call !== 'sync' || path !== segment(1) || ++syncs < 2) return
    const { length } = disk.bytesOf(path)
    for (let size = disk.syncedOf(path).length; size <= length; size++)
      images.push(
        disk.powerCut((of, { bytes, synced }) => (of === path ? bytes.subarray(0, size) : synced)),
      )
    throw new Error('the power is gone')
  }
  const answers = await Promise.allSettled(group.map((batch) => log.append(entryOf(batch))))
  assert.deepEqual(
    answers.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected'],
  )
  assert.ok(images.length > 400)

  const kept = new Set<number>()
  for (const image of images) {
    await using after = await openLog(image)
    const content = await contentOf(after)
    assert.ok(content.length >= 3, 'an acknowledged batch is gone')
    kept.add(content.length)
    assert.deepEqual(content, ['1-3', '4-6', '7-9', '10-12', '13-15'].slice(0, content.length))
    // The agent sends again what nobody answered.
    for (const batch of group) await after.append(entryOf(batch))
    assert.deepEqual(await contentOf(after), ['1-3', '4-6', '7-9', '10-12', '13-15'])
    assert.deepEqual((await verifyLog(image)).problems, [])
  }
  assert.deepEqual([...kept], [3, 4, 5])
})

test('a batch that a crash left before it was looked through is served only if it is one', async () => {
  const disk = new MemoryDisk()
  const log = await openLog(disk)
  const agent = new TestAgent()
  await appendAll(log, [agent.readings(3)])
  const next = agent.readings(3)
  for (const entry of [unreadableEntry(next), entryOf(next)]) {
    const { check } = entry
    let image: MemoryDisk | undefined
    const crash = () => {
      image ??= disk.powerCut((_, { bytes }) => bytes)
      check!()
    }
    await log.append({ ...entry, check: crash }).catch(() => {})

    const content = entry.encoding === 'gzip' ? ['1-3', '4-6'] : ['1-3']
    const view = (await FolderView.open(image!, new ManualClock()))!
    assert.equal((await view.statistics()).readings.batches, content.length)
    await using after = await openLog(image!)
    assert.deepEqual(await contentOf(after), content)
    await after.append(entryOf(next))
    assert.deepEqual(await contentOf(after), ['1-3', '4-6'])
    assert.deepEqual((await verifyLog(image!)).problems, [])
  }
})

test('who follows the folder is not given what was taken back', async () => {
  const disk = new MemoryDisk()
  const log = await openLog(disk)
  const agent = new TestAgent()
  await appendAll(log, [agent.readings(3)])
  const bytesNow = () => disk.powerCut((_, { bytes }) => bytes)
  const followed = bytesNow()
  const file = await followed.open(segment(1), 'write')
  const become = async (other: MemoryDisk) => {
    await file.truncate(0)
    await file.write([other.bytesOf(segment(1))], 0)
  }
  const clock = new ManualClock()
  const view = (await FolderView.open(followed, clock))!
  const seen: string[] = []
  const reading = (async () => {
    for await (const item of view.read({ stream: 'readings', follow: true }))
      if (item.type === 'batch' && seen.push(`${item.first}-${item.last}`) === 2) break
  })()

  let unchecked: MemoryDisk | undefined
  const bad = unreadableEntry(new TestAgent({ name: 'gw-002' }).readings(2))
  const crash = () => {
    unchecked = bytesNow()
    bad.check!()
  }
  await assert.rejects(log.append({ ...bad, check: crash }))
  await become(unchecked!)
  await clock.advance(1000)
  await appendAll(log, [agent.readings(3)])
  await become(bytesNow())
  while (seen.length < 2) await clock.advance(1000)
  await reading
  assert.deepEqual(seen, ['1-3', '4-6'])
})

test('who follows the folder sees what came in place of what was taken back, be it as long', async () => {
  const disk = new MemoryDisk()
  const log = await openLog(disk, noRoom)
  const agent = new TestAgent()
  await appendAll(log, [agent.readings(3)])
  const bytesNow = () => disk.bytesOf(segment(1)).slice()
  const before = bytesNow()
  const next = agent.readings(3)
  const bad = unreadableEntry(next)
  let unchecked: Uint8Array | undefined
  const crash = () => {
    unchecked = bytesNow()
    bad.check!()
  }
  await assert.rejects(log.append({ ...bad, check: crash }))
  await log.append({ ...bad, body: next.body('identity'), check: () => {} })
  assert.equal(bytesNow().length, unchecked!.length)

  const followed = disk.powerCut((_, { bytes }) => bytes)
  const file = await followed.open(segment(1), 'write')
  await file.truncate(before.length)
  const clock = new ManualClock()
  const view = (await FolderView.open(followed, clock))!
  const seen: number[] = []
  const reading = (async () => {
    for await (const item of view.read({ stream: 'readings', follow: true }))
      if (seen.push(item.first) === 2) break
  })()
  await clock.advance(1000)
  for (const bytes of [unchecked!, bytesNow()]) {
    await file.write([bytes.subarray(before.length)], before.length)
    for (let look = 0; look < 5; look++) await clock.advance(1000)
  }
  await reading
  assert.deepEqual(seen, [1, 4])
})

test('of a torn group nothing behind the first loss is served', async () => {
  const disk = new MemoryDisk()
  const log = await openLog(disk, noRoom)
  const agent = new TestAgent()
  await appendAll(log, [agent.readings(3)])
  const group = [agent.readings(3), agent.readings(3), agent.readings(3)]
  let image: MemoryDisk | undefined
  let syncs = 0
  disk.before = (call, path) => {
    if (call !== 'sync' || path !== segment(1) || ++syncs < 2) return
    image = disk.powerCut((of, { bytes, synced }) => {
      if (of !== path) return synced
      const torn = bytes.slice()
      // The disk had written the second half of the group, and not the first.
      const frames = framesIn(torn)
      torn.fill(0, frames[2], frames[3])
      return torn
    })
    throw new Error('the power is gone')
  }
  await Promise.allSettled(group.map((batch) => log.append(entryOf(batch))))

  await using after = await openLog(image!)
  assert.deepEqual(await contentOf(after), ['1-3', '4-6'])
  const held = await after.held('gw-001', incarnation(1), 'bulk')
  assert.equal(held.held, 6)

  // Nor does what is written over the loss bring the rest back.
  await appendAll(after, [group[1]!])
  await using later = await openLog(image!.powerCut((_, { bytes }) => bytes))
  assert.deepEqual(await contentOf(later), ['1-3', '4-6', '7-9'])
})

test('damage in the middle is never served, and reported by readers and verify', async () => {
  for (const [what, within] of Object.entries({ head: 30, body: 200 })) {
    const disk = new MemoryDisk()
    const agent = new TestAgent()
    {
      await using log = await openLog(disk)
      await appendAll(log, [agent.readings(3), agent.readings(4), agent.readings(5)])
    }
    const bytes = disk.bytesOf(segment(1))
    bytes[framesIn(bytes)[1]! + within]! ^= 0x10

    await using log = await openLog(disk)
    assert.deepEqual(await contentOf(log), ['1-3', 'lost 3-6', '8-12'], what)
    const [tail] = await readAll(log, { stream: 'readings', fromOffset: 5 })
    assert.deepEqual(tail, { type: 'damage', stream: 'readings', partition: 0, first: 5, last: 6 })
    // It was acknowledged: a repeat is still one, and offsets go on.
    assert.equal((await log.append(entryOf(agent.readings(1)))).code, 'accepted')
    assert.equal((await log.statistics()).readings.next, 13)
    const { problems } = await verifyLog(disk)
    assert.equal(problems.length, 3, problems.join('\n'))
    assert.match(problems[0]!, /bytes \d+ to \d+ are damaged/)
    assert.match(problems[1]!, /offsets 3 to 6 are lost/)
    assert.match(problems[2]!, /sequences 4 to 7 are neither there nor declared/)
  }
})

test('a damaged header of a segment costs none of its frames', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  {
    await using log = await openLog(disk)
    await appendAll(log, [agent.readings(3), agent.readings(3)])
  }
  disk.bytesOf(segment(1))[50]! ^= 1
  await using log = await openLog(disk)
  await appendAll(log, [agent.readings(3)])
  assert.deepEqual(await contentOf(log), ['1-3', '4-6', '7-9'])
})

test('a log of a newer version is left alone', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  {
    await using log = await openLog(disk)
    await appendAll(log, [agent.readings(3)])
  }
  const bytes = disk.bytesOf(segment(1))
  const view = new DataView(bytes.buffer)
  view.setUint32(8, 3)
  view.setInt32(12, crc32c.buf(bytes.subarray(16, 88), crc32c.buf(bytes.subarray(0, 12), 0)))
  const before = bytes.slice()
  await assert.rejects(openLog(disk), { code: 'LOG_NEWER' })
  assert.deepEqual(disk.bytesOf(segment(1)), before)
})

test('a payload that looks like a frame is not taken for one behind damage', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  const honest = agent.readings(3)
  {
    await using log = await openLog(disk)
    await appendAll(log, [honest])
  }
  // What an attacker can know: a frame of another segment, with checksums that fit.
  const frame = Buffer.from(disk.bytesOf(segment(1))).subarray(88)
  assert.deepEqual(new Uint8Array(frame.subarray(0, 4)), anyMark)
  const target = new MemoryDisk()
  const attacker = new TestAgent({ lane: 'quarantine' })
  {
    await using log = await openLog(target)
    const payload = new Uint8Array(frame)
    const arrival = { wallMs: 0, monotonicMs: 0 }
    const message = {
      topic: 't',
      payload,
      size: frame.length,
      sha256: undefined,
      reason: 'r',
      arrival,
    }
    const batch = attacker.batch([
      { kind: 'records', records: [{ type: 'quarantine', ...message }] },
    ])
    const entry = { ...entryOf(batch), encoding: 'identity' as const, body: batch.body('identity') }
    await log.append(entry)
    await log.append(entryOf(attacker.batch([{ kind: 'readings', readings: [reading()] }])))
  }
  const bytes = target.bytesOf(segment(1))
  assert.ok(Buffer.from(bytes).includes(frame.subarray(0, 8)))
  bytes[88 + 30]! ^= 1

  await using log = await openLog(target)
  assert.deepEqual(await contentOf(log), ['2-2'])
})

test('a lost or damaged index is rebuilt, and answers the same', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  const batches = Array.from({ length: 12 }, () => agent.readings(3))
  {
    await using log = await openLog(disk, { segmentBytes: 1500 })
    await appendAll(log, batches)
  }
  const names = (await disk.list('log/0')).filter((name) => name.endsWith('.index'))
  assert.ok(names.length >= 2)
  const pristine = await statisticsOn(disk)
  await disk.remove(`log/0/${names[0]}`)
  disk.bytesOf(`log/0/${names[1]}`)[60]! ^= 1
  assert.deepEqual(await statisticsOn(disk), pristine)
  await using log = await openLog(disk)
  const items = await readAll(log, { stream: 'readings', fromOffset: 4, toOffset: 8 })
  assert.deepEqual(
    items.map((item) => item.first),
    [4, 7],
  )
  assert.deepEqual(
    (await disk.list('log/0')).filter((name) => name.endsWith('.index')),
    names,
  )
})

async function statisticsOn(disk: MemoryDisk) {
  await using log = await openLog(disk)
  return log.statistics()
}

test('retention removes whole segments and forgets nothing of what is held', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  const quiet = new TestAgent({ name: 'gw-quiet' })
  const first = quiet.readings(3)
  {
    await using log = await openLog(disk, {
      segmentBytes: 1500,
      retention: { bytes: 6000, ageMs: undefined },
    })
    await appendAll(log, [first])
    for (let i = 0; i < 60; i++) await appendAll(log, [agent.readings(3)])
  }
  const sizes = (await disk.list('log/0')).filter((name) => name.endsWith('.segment'))
  const bytes = sizes.reduce((sum, name) => sum + disk.bytesOf(`log/0/${name}`).length, 0)
  assert.ok(bytes <= 6000, `${bytes} bytes are kept`)

  await using log = await openLog(disk)
  const statistics = (await log.statistics()).readings
  assert.ok(statistics.first > 3)
  assert.equal(statistics.next, 183)
  assert.equal((await log.append(entryOf(first))).code, 'duplicate')
  assert.equal((await log.append(entryOf(quiet.readings(1)))).code, 'accepted')
  assert.deepEqual((await verifyLog(disk)).problems, [])
})

test('retention waits for a snapshot that remembers what it would remove', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  const quiet = new TestAgent({ name: 'gw-quiet' })
  const first = quiet.readings(3)
  disk.before = (call, path) => {
    if (call === 'open' && path.includes('.held')) throw new Error('EIO')
  }
  {
    await using log = await openLog(disk, {
      segmentBytes: 1500,
      retention: { bytes: 6000, ageMs: undefined },
    })
    await appendAll(log, [first])
    for (let i = 0; i < 60; i++) await appendAll(log, [agent.readings(3)])
  }
  await using log = await openLog(disk)
  assert.equal((await log.append(entryOf(first))).code, 'duplicate')
})

test('what is held survives a damaged snapshot after retention', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  const quiet = new TestAgent({ name: 'gw-quiet' })
  const first = quiet.readings(3)
  {
    await using log = await openLog(disk, {
      segmentBytes: 1500,
      retention: { bytes: 6000, ageMs: undefined },
    })
    await appendAll(log, [first])
    for (let i = 0; i < 60; i++) await appendAll(log, [agent.readings(3)])
  }
  const snapshots = (await disk.list('log/0')).filter((name) => name.endsWith('.held'))
  assert.equal(snapshots.length, 2)
  disk.bytesOf(`log/0/${snapshots[1]}`)[70]! ^= 1
  await using log = await openLog(disk)
  assert.equal((await log.append(entryOf(first))).code, 'duplicate')
  assert.equal((await log.held('gw-001', incarnation(1), 'bulk')).held, 180)
})

test('offsets are not used twice when the last segments are lost', async () => {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  {
    await using log = await openLog(disk, { segmentBytes: 1500 })
    for (let i = 0; i < 10; i++) await appendAll(log, [agent.readings(3)])
  }
  for (const name of await disk.list('log/0'))
    if (name.endsWith('.segment')) await disk.remove(`log/0/${name}`)
  await using log = await openLog(disk)
  const { next, records } = (await log.statistics()).readings
  assert.equal(records, 0)
  assert.ok(next >= 24, `${next} is used again`)
  assert.ok((await log.held('gw-001', incarnation(1), 'bulk')).held >= 24)
  await log.append(entryOf(new TestAgent({ name: 'gw-002' }).readings(3)))
  const [item] = await readAll(log, { stream: 'readings' })
  assert.equal(item?.type === 'batch' && item.feeds.readings.first, next)
})

test('retention by age seals and removes what is old, also in a log that hardly grows', async () => {
  const clock = new ManualClock()
  const disk = new MemoryDisk()
  const hour = 3_600_000
  await using log = await openLog(disk, { clock, retention: { bytes: undefined, ageMs: 8 * hour } })
  const agent = new TestAgent()
  for (let i = 0; i < 12; i++) {
    assert.equal((await log.append(entryOf(agent.readings(3), clock.wallMs()))).code, 'accepted')
    await clock.advance(hour)
  }
  await clock.advance(60_000)
  const { first, next } = (await log.statistics()).readings
  assert.equal(next, 36)
  // Eight hours and a minute before, the reading of the fourth hour had arrived.
  assert.ok(first > 0 && first <= 15, `the first offset is ${first}`)
})
