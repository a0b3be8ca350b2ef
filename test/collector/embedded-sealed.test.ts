import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { readIndex } from '../../collector/log/embedded/folder.ts'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import { entryOf } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { openLog } from '../support/embedded-log.ts'
import { MemoryDisk } from '../support/memory-disk.ts'

const first = 'log/0/000000000001.segment'

/** A log of several sealed segments. */
async function sealedLog(): Promise<MemoryDisk> {
  const disk = new MemoryDisk()
  const agent = new TestAgent()
  await using log = await openLog(disk, { segmentBytes: 2000 })
  for (let i = 0; i < 30; i++) await log.append(entryOf(agent.readings(5)))
  return disk
}

test('a sealed segment carries what it holds and its SHA-256', async () => {
  const disk = await sealedLog()
  const { summary } = (await readIndex(disk, 'log/0', 1))!
  const bytes = disk.bytesOf(first).subarray(0, summary.end)
  assert.deepEqual(summary.sha256, new Uint8Array(createHash('sha256').update(bytes).digest()))
  assert.ok(summary.frames > 0)
  assert.equal(summary.streams.readings.records, summary.frames * 5)
})

test('an index that is lost is made again, with the hash', async () => {
  const disk = await sealedLog()
  const before = await readIndex(disk, 'log/0', 1)
  await disk.remove('log/0/000000000001.index')
  await (await openLog(disk, { segmentBytes: 2000 })).close()
  assert.deepEqual(await readIndex(disk, 'log/0', 1), before)
})

test('verify tells a segment that is not as it was sealed', async () => {
  const disk = await sealedLog()
  assert.deepEqual((await verifyLog(disk)).problems, [])
  const bytes = disk.bytesOf(first)
  bytes[40] = bytes[40]! ^ 1 // In the header, whose checksum says so too.
  const { problems } = await verifyLog(disk)
  assert.match(problems.join('\n'), /segment 1: its SHA-256 is not that which it was sealed with/)
})
