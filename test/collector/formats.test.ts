import assert from 'node:assert/strict'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { decodeMultiple } from 'cbor-x'
import { parquetReadObjects } from 'hyparquet'
import { type Batch, decodeBatch, type Item, inflate } from '../../shared/batch.ts'
import type { Value } from '../../shared/reading.ts'
import { TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { reading, readings } from '../support/readings.ts'

async function bytes(url: string): Promise<Uint8Array> {
  const answer = await fetch(url)
  assert.equal(answer.status, 200, url)
  return new Uint8Array(await answer.arrayBuffer())
}

const compressors = { ZSTD: (bytes: Uint8Array) => new Uint8Array(zstdDecompressSync(bytes)) }
const parquetOf = async (url: string) => {
  const file = (await bytes(url)).buffer as ArrayBuffer
  return (await parquetReadObjects({ file, compressors })) as Record<string, unknown>[]
}

test('as CBOR a stream is its batches as they came, for any CBOR library', async (t) => {
  const { url } = await startCollector(t, { rest: 'log: { partitions: 2 }' })
  const agents = ['gw-1', 'gw-2', 'gw-3'].map((name) => new TestAgent({ name }))
  const sent = agents.map((agent) => agent.readings(3))
  for (const batch of sent) await send(url, batch, 'zstd')
  const path = `${url}/v1/streams/readings/records?format=cbor`
  const [position, ...items] = decodeMultiple(await bytes(path)) as unknown[][]
  assert.deepEqual(position, [2, [0, 0]])
  const next = [0, 0]
  const batches: Batch[] = []
  for (const item of items) {
    const [kind, partition, offset, count, arrived, encoding, body] = item as number[]
    assert.deepEqual([kind, offset, count, encoding], [0, next[partition!], 3, 0])
    assert.ok(Math.abs(Number(arrived) - Date.now()) < 600_000)
    next[partition!] = offset! + count!
    batches.push(decodeBatch(inflate(body as unknown as Uint8Array, 'zstd', 2 ** 20)))
  }
  const names = batches.map(({ header }) => header.agent).sort()
  assert.deepEqual(names, ['gw-1', 'gw-2', 'gw-3'])
})

test('as CBOR only batches with something that is asked for come, whole', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const mixed = [reading({ device: 'a', metric: 'x' }), reading({ device: 'b', metric: 'y' })]
  const gone: Item = {
    kind: 'gap',
    count: 2,
    reason: 'evicted',
    after: { high: 1, low: 1 },
    series: [{ device: 'c', metric: 'z', count: 2 }],
    fromMs: 0,
    toMs: 1,
    atLeast: false,
  }
  await send(url, agent.batch([{ kind: 'readings', readings: mixed }]))
  await send(url, agent.batch([{ kind: 'readings', readings: readings(4, 1, 'c') }, gone]))
  const offsets = async (query: string, stream = 'readings') =>
    (
      decodeMultiple(
        await bytes(`${url}/v1/streams/${stream}/records?format=cbor&${query}`),
      ) as number[][]
    )
      .filter(([kind]) => kind === 0)
      .map(([, , offset, count]) => [offset, count])
  assert.deepEqual(await offsets(''), [
    [0, 2],
    [2, 4],
  ])
  assert.deepEqual(await offsets('device=a'), [[0, 2]])
  assert.deepEqual(await offsets('device=a&metric=y'), [], 'no record has both')
  assert.deepEqual(await offsets('from=3'), [[2, 4]])
  assert.deepEqual(await offsets('device=c', 'gaps'), [[0, 1]])
})

test('a tail as CBOR says where it is, at once, and goes on from there', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  await send(url, agent.readings(5))
  const stop = new AbortController()
  const path = `${url}/v1/streams/readings/tail?format=cbor`
  const answer = await fetch(path, { signal: stop.signal })
  assert.equal(answer.headers.get('content-type'), 'application/cbor-seq')
  const body = answer.body!.getReader()
  const first = await body.read()
  assert.deepEqual(decodeMultiple(first.value!), [[2, [5]]])
  await send(url, agent.readings(2))
  const second = decodeMultiple((await body.read()).value!) as number[][]
  assert.deepEqual(second[0]?.slice(0, 4), [0, 0, 5, 2])
  stop.abort()
  assert.equal((await fetch(`${url}/v1/streams/readings/tail?format=parquet`)).status, 400)
})

test('as Parquet every value keeps its type, and what is not there is null', async (t) => {
  const { url } = await startCollector(t)
  const values: Value[] = [21.5, 7, true, 'on', null, 2n ** 62n + 1n, -0.1]
  const items = values.map((value, i) =>
    reading({ device: `d${i}`, value, timeMs: 1_767_225_600_000 + i, quality: i }),
  )
  await send(url, new TestAgent().batch([{ kind: 'readings', readings: items }]))
  const rows = await parquetOf(`${url}/v1/streams/readings/records?format=parquet`)
  assert.deepEqual(
    rows.map((row) => [row.value, row.value_int, row.value_bool, row.value_text]),
    [
      [21.5, null, null, null],
      [7, null, null, null],
      [null, null, true, null],
      [null, null, null, 'on'],
      [null, null, null, null],
      [Number(2n ** 62n + 1n), 2n ** 62n + 1n, null, null],
      [-0.1, null, null, null],
    ],
  )
  const [row] = rows
  assert.deepEqual(row!.time, new Date(1_767_225_600_000))
  assert.deepEqual(
    [row!.device, row!.metric, row!.agent, row!.lane, row!.sequence, row!.log_offset],
    ['d0', 'temperature', 'gw-001', 'bulk', 1n, 0n],
  )
  assert.deepEqual(
    rows.map(({ quality }) => quality),
    [0, 1, 2, 3, 4, 5, 6],
  )
  const one = await parquetOf(`${url}/v1/streams/readings/records?format=parquet&device=d3`)
  assert.deepEqual(
    one.map(({ device }) => device),
    ['d3'],
  )
  assert.deepEqual(await parquetOf(`${url}/v1/streams/alerts/records?format=parquet`), [])
})

test('a Parquet file of many row groups has every record, in order', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  for (let i = 0; i < 5; i++) await send(url, agent.readings(9_999))
  const rows = await parquetOf(`${url}/v1/streams/readings/records?format=parquet`)
  assert.equal(rows.length, 5 * 9_999)
  assert.ok(rows.every((row, i) => row.log_offset === BigInt(i) && row.value === i + 1))
})
