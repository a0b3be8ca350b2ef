import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import { entryOf, readAll, unreadableEntry } from '../contract/log-engine.ts'
import { TestAgent, type TestBatch } from '../support/batches.ts'
import { openLog } from '../support/embedded-log.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { type DiskCall, MemoryDisk } from '../support/memory-disk.ts'

const size = { segmentBytes: 1500, retention: { bytes: 20_000, ageMs: undefined } }

function batchesToSend(): TestBatch[] {
  const agents = [new TestAgent({ name: 'gw-1' }), new TestAgent({ name: 'gw-2' })]
  return Array.from({ length: 20 }, (_, i) => agents[i % 2]!.readings(2))
}

/** Sequences of each agent's batches, in the order of the log; damage shows as such. */
async function contentOf(log: EmbeddedLog): Promise<Record<string, string[]>> {
  const content: Record<string, string[]> = { 'gw-1': [], 'gw-2': [], damage: [] }
  for (const item of await readAll(log, { stream: 'readings' })) {
    const { first, last } = item
    content[item.type === 'batch' ? item.agent : 'damage']!.push(`${first}-${last}`)
  }
  return content
}

const complete = {
  'gw-1': Array.from({ length: 10 }, (_, i) => `${2 * i + 1}-${2 * i + 2}`),
  'gw-2': Array.from({ length: 10 }, (_, i) => `${2 * i + 1}-${2 * i + 2}`),
  damage: [],
}

/** Sends until each is answered with success, as an agent does. */
async function sendAll(log: EmbeddedLog, clock: ManualClock, batches: TestBatch[]): Promise<void> {
  for (const batch of batches)
    for (let attempt = 0; ; attempt++) {
      assert.ok(attempt < 100, 'it does not heal')
      try {
        const { code } = await log.append(entryOf(batch))
        assert.ok(code === 'accepted' || code === 'duplicate', code)
        break
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'LOG_DISK')
        await clock.advance(1000)
      }
    }
}

test('whichever disk call fails, once or for a while, nothing is lost or kept twice', async () => {
  for (const failures of [1, 3]) {
    for (let n = 1; ; n++) {
      const disk = new MemoryDisk()
      const clock = new ManualClock()
      const log = await openLog(disk, { clock, ...size })
      let calls = 0
      disk.before = () => {
        calls += 1
        if (calls >= n && calls < n + failures) throw new Error('EIO')
      }
      await sendAll(log, clock, batchesToSend())
      await log.close()
      const ran = calls
      disk.before = () => {}

      // What the disk had not confirmed may be forgotten, and may be there all the same.
      for (const survives of ['synced', 'bytes'] as const) {
        const after = disk.powerCut((_, stored) => stored[survives])
        await using again = await openLog(after, size)
        assert.deepEqual(await contentOf(again), complete, `call ${n} fails ${failures} times`)
        assert.deepEqual((await verifyLog(after)).problems, [])
      }
      if (n > ran) break
    }
  }
})

test('a power cut at any disk call loses nothing that was acknowledged', async () => {
  for (const survives of ['synced', 'bytes'] as const) {
    for (let n = 1; ; n++) {
      const disk = new MemoryDisk()
      const clock = new ManualClock()
      const log = await openLog(disk, { clock, ...size })
      const batches = batchesToSend()
      let image: MemoryDisk | undefined
      let calls = 0
      const before = (call: DiskCall, path: string) => {
        if (call === 'read' || call === 'list' || ++calls < n) return
        image ??= disk.powerCut((_, stored) => stored[survives])
        throw new Error(`the power is gone at ${call} ${path}`)
      }
      disk.before = before
      let acknowledged = 0
      for (const batch of batches) {
        const answer = await log.append(entryOf(batch)).catch(() => undefined)
        if (!answer) break
        acknowledged += 1
      }
      await log.close()
      if (!image) {
        assert.equal(acknowledged, batches.length)
        break
      }
      await using after = await openLog(image, { clock, ...size })
      const content = await contentOf(after)
      const kept = content['gw-1']!.length + content['gw-2']!.length
      assert.ok(kept >= acknowledged, `${acknowledged} acknowledged, ${kept} there, call ${n}`)
      await sendAll(after, clock, batches)
      assert.deepEqual(await contentOf(after), complete, `call ${n}, what stays: ${survives}`)
    }
  }
})

test('a disk that stays full turns batches away, and costs no files', async () => {
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  await using log = await openLog(disk, { clock, ...size })
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(2)))
  const next = agent.readings(2)
  let full = true
  // Small files still fit, batches do not.
  disk.before = (call, path) => {
    if (full && call === 'write' && path.endsWith('.segment') && disk.bytesOf(path).length > 0)
      throw new Error('ENOSPC')
  }
  for (let i = 0; i < 20; i++) {
    await assert.rejects(log.append(entryOf(next)), { code: 'LOG_DISK' })
    await clock.advance(1000)
  }
  const segments = (await disk.list('log/0')).filter((name) => name.endsWith('.segment'))
  assert.equal(segments.length, 2)
  assert.equal((await log.statistics()).readings.records, 2)

  full = false
  await clock.advance(1000)
  assert.equal((await log.append(entryOf(next))).code, 'accepted')
  assert.equal(log.state, 'open')
})

test('while the disk is in trouble batches are refused at once and readers go on', async () => {
  const disk = new MemoryDisk()
  const clock = new ManualClock()
  await using log = await openLog(disk, { clock })
  const agent = new TestAgent()
  await log.append(entryOf(agent.readings(2)))
  const next = agent.readings(2)
  disk.before = (call) => {
    if (call === 'write' || call === 'sync' || call === 'truncate') throw new Error('EIO')
  }
  await assert.rejects(log.append(entryOf(next)), { code: 'LOG_DISK' })
  await assert.rejects(log.append(entryOf(next)), { code: 'LOG_DISK' })
  assert.equal(log.state, 'healing')
  assert.equal((await readAll(log, { stream: 'readings' })).length, 1)

  disk.before = () => {}
  await clock.advance(1000)
  assert.equal(log.state, 'open')
  assert.equal((await log.append(entryOf(next))).code, 'accepted')
})

test('a check that breaks off is the end of its own batch alone', async () => {
  const log = await openLog(new MemoryDisk())
  const agent = new TestAgent({ name: 'gw-1' })
  await log.append(entryOf(agent.readings(3)))
  const check = () => {
    throw new RangeError('out of memory')
  }
  const [broken, good] = await Promise.allSettled([
    log.append({ ...entryOf(new TestAgent({ name: 'gw-2' }).readings(1)), check }),
    log.append(entryOf(agent.readings(3))),
  ])
  assert.equal(broken.status === 'rejected' && broken.reason.message, 'out of memory')
  assert.equal(good.status === 'fulfilled' && good.value.code, 'accepted')
  assert.equal(log.state, 'open')
  assert.deepEqual((await contentOf(log))['gw-2'], [])
})

test('what a failed write or sync had left to check is turned away as the disk’s failure', async () => {
  for (const failing of ['write', 'sync', 'truncate'] as const) {
    const disk = new MemoryDisk()
    const clock = new ManualClock()
    const log = await openLog(disk, { clock })
    const agent = new TestAgent({ name: 'gw-1' })
    await log.append(entryOf(agent.readings(2)))
    disk.before = (call) => {
      if (call !== failing) return
      disk.before = () => {}
      throw new Error(`${failing}: EIO`)
    }
    const next = agent.readings(2)
    await assert.rejects(log.append(unreadableEntry(next)), { code: 'LOG_DISK' })
    while (log.state !== 'open') await clock.advance(1000)
    await assert.rejects(log.append(unreadableEntry(next)), { code: 'WIRE_INVALID' })
    await log.append(entryOf(next))
    assert.deepEqual((await contentOf(log))['gw-1'], ['1-2', '3-4'])
    assert.deepEqual((await verifyLog(disk)).problems, [])
    await log.close()
  }
})
