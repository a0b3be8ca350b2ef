import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { duckdb } from '../support/duckdb/duckdb.ts'
import { temporaryDirectory } from '../support/temporary.ts'

test('DuckDB reads what a collector gives as Parquet, over many row groups', async (t) => {
  const query = await duckdb(t)
  if (!query) return
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  for (let i = 0; i < 3; i++) await send(url, agent.readings(8_000))
  const answer = await fetch(`${url}/v1/streams/readings/records?format=parquet`)
  const file = join(await temporaryDirectory(t), 'readings.parquet')
  await writeFile(file, new Uint8Array(await answer.arrayBuffer()))
  const [found] = await query(
    `select count(*) as n, sum(value) as sum, max(log_offset) as last, min(time) as first from '${file}'`,
  )
  assert.deepEqual([found!.n, found!.sum, found!.last], [24_000, (24_000 * 24_001) / 2, 23_999])
  assert.match(String(found!.first), /^2026-01-01 00:00:01/)
})
