import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { crc32c, Reader, readRecordsBatch } from '@platformatic/kafka'
import type { NewRecord } from '../../collector/log/kafka/cluster.ts'
import { recordBatch } from '../../collector/log/kafka/record-batch.ts'

const common = { 'content-type': 'application/json', agent: 'gw ✓' }
const records: NewRecord[] = [
  { key: 'boiler', value: Buffer.from('{}'), timeMs: 1_767_225_600_000, common },
  // Before the first one, after all others, and longer than a byte's worth of length.
  { key: 'ü'.repeat(200), value: Buffer.alloc(70_000, 7), timeMs: 0, headers: { a: 'b' }, common },
  { key: '', value: new Uint8Array(0), timeMs: 253_402_300_799_999, headers: { sequence: '12' } },
].map((record) => ({ topic: 't', partition: 0, ...record }))

test('a batch of records reads back as the client reads what a broker gives, compressed or not', () => {
  for (const compress of [undefined, zstdCompressSync]) {
    const bytes = recordBatch(records, { id: 2n ** 40n, epoch: 3, sequence: 2 ** 31 - 2 }, compress)
    const batch = readRecordsBatch(Reader.from(Buffer.from(bytes)))
    assert.equal(batch.length, bytes.length - 12)
    assert.equal(batch.magic, 2)
    assert.equal(batch.crc, crc32c(Buffer.from(bytes.subarray(21))))
    assert.equal(batch.attributes, compress ? 0b10100 : 0b10000)
    assert.deepEqual(
      [batch.producerId, batch.producerEpoch, batch.firstSequence, batch.lastOffsetDelta],
      [2n ** 40n, 3, 2 ** 31 - 2, 2],
    )
    assert.equal(batch.maxTimestamp, 253_402_300_799_999n)
    const found = batch.records.map(({ key, value, headers, offsetDelta, timestampDelta }) => ({
      key: String(key),
      value: Buffer.from(value!),
      timeMs: Number(batch.firstTimestamp + timestampDelta),
      headers: Object.fromEntries(headers.map(([name, text]) => [String(name), String(text)])),
      offsetDelta,
    }))
    assert.deepEqual(
      found,
      records.map((record, offsetDelta) => ({
        key: record.key,
        value: Buffer.from(record.value),
        timeMs: record.timeMs,
        headers: { ...record.common, ...record.headers },
        offsetDelta,
      })),
    )
  }
})
