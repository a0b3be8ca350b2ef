import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Collector } from '../../collector/collector.ts'
import { encodePassage, type Passage, PassageReader } from '../../shared/batch.ts'
import { ClientFailure, GroupConsumer, LogClient, type StreamBatch } from '../../shared/client.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { collectorConfig, send, startCollector } from '../support/collector.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { readings } from '../support/readings.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const passages: Passage[] = [
  { type: 'position', next: [0, 2 ** 40, 7] },
  {
    type: 'batch',
    partition: 200,
    offset: 2 ** 40,
    count: 70_000,
    arrivedMs: -1,
    encoding: 'gzip',
    body: new Uint8Array(70_000).fill(7),
  },
  { type: 'damage', partition: 0, first: 23, last: 24 },
  {
    type: 'batch',
    partition: 0,
    offset: 0,
    count: 1,
    arrivedMs: 1_767_225_600_000,
    encoding: 'zstd',
    body: new Uint8Array(0),
  },
]

test('what is read of a log is taken apart the same in whatever chunks it comes', () => {
  const whole = Buffer.concat(passages.flatMap(encodePassage))
  for (const size of [1, 2, 3, 10, 4_096, whole.length]) {
    const reader = new PassageReader()
    const found: Passage[] = []
    for (let at = 0; at < whole.length; at += size)
      for (const each of reader.take(whole.subarray(at, at + size)))
        found.push(each.type === 'batch' ? { ...each, body: each.body.slice() } : each)
    assert.equal(reader.restBytes, 0)
    assert.deepEqual(
      found.map((each) =>
        each.type === 'batch' ? { ...each, body: Buffer.from(each.body) } : each,
      ),
      passages.map((each) =>
        each.type === 'batch' ? { ...each, body: Buffer.from(each.body) } : each,
      ),
      `in chunks of ${size}`,
    )
  }
})

test('bytes that are no log are refused, and none makes the reader wait for more than a body', () => {
  for (const hex of [
    'f6',
    '83000000',
    '87090000000000',
    '8703',
    '9f',
    'fb',
    '8702820102',
    '82029a7fffffff',
  ])
    assert.throws(() => [...new PassageReader().take(Buffer.from(hex, 'hex'))], /./, hex)
  // A body of four gigabytes.
  const huge = Buffer.from('87000000010000005affffffff', 'hex')
  assert.throws(() => [...new PassageReader().take(huge)], /WIRE|larger|more than|too/i)
})

test('a client gets each reading once over cut connections and a collector that starts again', async (t) => {
  const config = await collectorConfig(await temporaryDirectory(t))
  let collector = await Collector.open(config, silentLog)
  cleanUp(t, () => collector.close())
  const port = Number(new URL(collector.url).port)
  const proxy = await FaultProxy.open(t, port)
  const agent = new TestAgent()
  for (let i = 0; i < 20; i++) await send(collector.url, agent.readings(500))
  const blink = async () => {
    proxy.refuse()
    await new Promise((resolve) => setImmediate(resolve))
    proxy.pass()
  }
  const retries: string[] = []
  const client = new LogClient({
    url: `http://127.0.0.1:${proxy.port}`,
    onRetry: (why) => retries.push(why),
  })
  const stop = new AbortController()
  cleanUp(t, () => stop.abort())
  const seen: number[] = []
  for await (const { offset, sequence, value } of client.readings({
    from: { offset: 0 },
    follow: true,
    signal: stop.signal,
  })) {
    assert.deepEqual([offset, value], [seen.length, sequence])
    seen.push(offset)
    if (seen.length === 3_000 || seen.length === 7_000) await blink()
    if (seen.length === 10_000) {
      await collector.close()
      collector = await Collector.open({ ...config, http: { ...config.http, port } }, silentLog)
      await send(collector.url, agent.readings(500))
    }
    if (seen.length === 10_500) stop.abort()
  }
  assert.equal(seen.length, 10_500)
  assert.ok(retries.length >= 1)
})

test('a client gives exactly what is asked for', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const both = [...readings(10, 1, 'a'), ...readings(10, 1, 'b')]
  await send(url, agent.batch([{ kind: 'readings', readings: both }]))
  const client = new LogClient({ url })
  const values = async (query: Parameters<LogClient['readings']>[0]) =>
    (await Array.fromAsync(client.readings(query))).map(({ series, value }) => [
      series.device,
      value,
    ])
  const at = (second: number) => ({ timeMs: 1_767_225_600_000 + second * 1000 })
  assert.equal((await values({})).length, 20)
  assert.deepEqual(await values({ device: 'b', from: at(3), to: at(5) }), [
    ['b', 3],
    ['b', 4],
  ])
  assert.deepEqual(await values({ from: { offset: 18 } }), [
    ['b', 9],
    ['b', 10],
  ])
  assert.deepEqual(await values({ from: { offsets: [8] }, to: { offset: 11 } }), [
    ['a', 9],
    ['a', 10],
    ['b', 1],
  ])
  assert.equal(await client.partitions(), 1)
})

test('what the collector refuses, and one that is not there, fails at once', async (t) => {
  const { url } = await startCollector(t)
  const fails = (code: string) => (error: unknown) =>
    error instanceof ClientFailure && error.code === code
  const read = (client: LogClient, metric?: string) =>
    Array.fromAsync(client.batches({ stream: 'ledger', metric }))
  await assert.rejects(read(new LogClient({ url }), 'x'), fails('CLIENT_REFUSED'))
  await assert.rejects(
    read(new LogClient({ url: 'http://127.0.0.1:1' })),
    fails('CLIENT_UNREACHABLE'),
  )
  await assert.rejects(
    new LogClient({ url: `${url}/nowhere` }).partitions(),
    fails('CLIENT_REFUSED'),
  )
})

test('two consumers of a group read all of it between them, and one goes on where the other left', async (t) => {
  const { url } = await startCollector(t, { rest: 'log: { partitions: 4 }' })
  const agents = Array.from({ length: 12 }, (_, i) => new TestAgent({ name: `gw-${i}` }))
  for (const agent of agents) await send(url, agent.readings(10))
  const seen = new Map<string, number>()
  const stop = new AbortController()
  cleanUp(t, () => stop.abort())
  const take = async (consumer: GroupConsumer, from: AbortController, most = Infinity) => {
    let taken = 0
    for await (const batch of consumer.batches(from.signal)) {
      const { header, count } = batch as StreamBatch
      const before = seen.get(header.agent) ?? 0
      // At least once: what another has not committed comes again.
      assert.ok(header.first <= before + 1, `${header.agent}: ${header.first} behind ${before}`)
      seen.set(header.agent, Math.max(before, header.last))
      await consumer.commit(batch)
      taken += count
      const sum = [...seen.values()].reduce((total, last) => total + last, 0)
      if (sum === 240) stop.abort()
      if (taken >= most) return
    }
  }
  const consumer = (name: string) =>
    new GroupConsumer({
      client: new LogClient({ url }),
      group: 'etl',
      stream: 'readings',
      consumer: name,
      leaseMs: 1_000,
      pollMs: 20,
    })
  // The first one ends without a word in the middle: what it held is free once its lease has ended.
  const first = consumer('a')
  await take(first, stop, 40)
  const others = [take(consumer('b'), stop), take(consumer('c'), stop)]
  for (const agent of agents) await send(url, agent.readings(10))
  await Promise.all(others)
  assert.deepEqual(new Set(seen.values()), new Set([20]))
})
