import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { Item, LaneRecord } from '../../shared/batch.ts'
import { chainStart } from '../../shared/chain.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { freePort } from '../support/free-port.ts'
import { keepsQueue, Mosquitto } from '../support/mosquitto.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { device } from '../support/publisher.ts'
import { Sensor } from '../support/sensor.ts'
import { slowness } from '../support/slowness.ts'
import { temporaryDirectory } from '../support/temporary.ts'

/** Longest time that anything foreign may keep the event loop busy, ms of CPU: 50 on a machine of usual speed. */
const limitMs = 50 * slowness()
/** A compiler or collector of garbage may get in between: the best of some tries is what the input costs. */
const tries = 10

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')
const mebibyte = 2 ** 20

// Probe cbor-hostile: what makes cbor-x work for seconds, or take memory by the gigabyte.
const hostileCbor: Record<string, { body: Buffer; encoding?: string }> = {
  nothing: { body: Buffer.alloc(0) },
  'the end of a map': { body: hex('bf') },
  'a key named __proto__': { body: hex('a1 69 5f5f70726f746f5f5f a1 67 697341646d696e f5') },
  'a million arrays in each other': { body: Buffer.alloc(mebibyte, 0x81) },
  'a million tags on each other': { body: Buffer.alloc(mebibyte, 0xc1) },
  'an array of 2^32 - 1': { body: hex('9a ffffffff') },
  'an array of 2^53': { body: hex('9b 0020000000000000') },
  'a map of 10^8': { body: hex('ba 05f5e100') },
  'bytes of 2^32 - 1': { body: hex('5a ffffffff') },
  'a text of 2^31': { body: hex('7a 80000000') },
  'an array without an end': { body: hex('9f') },
  'two documents': { body: hex('00 00') },
  'a key twice': { body: hex('a2 6161 01 6161 02') },
  'text that is not UTF-8': { body: hex('62 c328') },
  'a reserved head': { body: hex('1c') },
  'a record definition': { body: hex('d9dfff 83 81 6161 199000 01') },
  'a regular expression': { body: hex('d81b 82 66 526567457870 82 65 28612b2b29 60') },
  'a shared reference to itself': { body: hex('d81c 81 d81d 00') },
  'a packed bomb': { body: hex('d833 83 81 78 05 6161616161 80 e0') },
  'a bignum of a megabyte': {
    body: Buffer.concat([hex('c2 5a 000ffff0'), Buffer.alloc(mebibyte - 16, 0xff)]),
  },
  'a million small numbers': {
    body: Buffer.concat([hex('9a 000ffff0'), Buffer.alloc(mebibyte - 16)]),
  },
  'eight million empty arrays, compressed': {
    body: gzipSync(Buffer.concat([hex('9a 007ffff0'), Buffer.alloc(8 * mebibyte - 16, 0x80)])),
    encoding: 'gzip',
  },
  'a gzip bomb': { body: gzipSync(Buffer.alloc(512 * mebibyte)), encoding: 'gzip' },
  'a zstd bomb': { body: zstdCompressSync(Buffer.alloc(512 * mebibyte)), encoding: 'zstd' },
  'what is no gzip': { body: Buffer.alloc(1_000, 1), encoding: 'gzip' },
}

const arrival = { wallMs: 1_767_225_600_000, monotonicMs: 1000 }
const table = new SeriesTable()
const reading = (i: number, labels = {}): AdmittedReading => ({
  series: table.intern(`device-${i}`, 'm', { labels }),
  timeMs: arrival.wallMs + ((i * 7919) % 100_003),
  timeNanos: (i * 7919) % 1_000_000,
  value: i % 2 ? i : `text ${i}`,
  quality: i % 2,
  arrival: { wallMs: arrival.wallMs + ((i * 7) % 1000), monotonicMs: i + 0.5 },
})
const readings = (count: number, labels?: object): Item[] => [
  { kind: 'readings', readings: Array.from({ length: count }, (_, i) => reading(i, labels)) },
]
const records = (count: number, record: LaneRecord): Item[] => [
  { kind: 'records', records: Array.from({ length: count }, () => record) },
]
const gap = (rows: number): Item => ({
  kind: 'gap',
  count: 1,
  reason: 'evicted',
  after: chainStart,
  series: Array.from({ length: rows }, () => ({ device: '', metric: '', count: 0 })),
  fromMs: undefined,
  toMs: undefined,
  atLeast: false,
})
const keys = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`a key of some length ${i}`, '']))

/** Whole batches that no agent would send: what makes most work for their bytes. */
const laboriousBatches: Record<string, Item[]> = {
  '50,000 series of one reading': readings(50_000),
  '8,000 items of one reading': Array.from({ length: 8_000 }, (_, i) => ({
    kind: 'readings',
    readings: [reading(i)],
  })),
  '600 devices with 64 labels': readings(600, keys(64)),
  '10,000 gaps': Array.from({ length: 10_000 }, () => gap(0)),
  '60 gaps of 1,000 series': Array.from({ length: 60 }, () => gap(1000)),
  '10,000 alerts': records(10_000, { type: 'alert', content: { a: 1, b: [1, 2, 3] } }),
  '8 alerts of 5,000 keys': records(8, { type: 'alert', content: keys(5_000) }),
  '10 alerts of 24,000 arrays': records(10, {
    type: 'alert',
    content: { a: Array.from({ length: 24_000 }, () => []) },
  }),
  '10,000 quarantined messages': records(10_000, {
    type: 'quarantine',
    topic: 'a/b',
    payload: new Uint8Array(500),
    size: 500,
    sha256: undefined,
    reason: 'none',
    arrival,
  }),
}

test('no body makes the collector work for long; each is refused, and batches go on', async (t) => {
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  const collector = await cloud.start()
  const post = (body: Uint8Array, encoding: string) =>
    fetch(`${cloud.url}/v1/batches`, {
      method: 'POST',
      headers: { 'content-type': 'application/cbor', 'content-encoding': encoding },
      body: Buffer.from(body),
    })
  const agent = new TestAgent()
  // Warm: what a batch costs once is not what it costs.
  for (let i = 0; i < 50; i++) await post(agent.readings(100).body('gzip'), 'gzip')
  const worst = { name: '', ms: 0 }
  for (const [name, { body, encoding = 'identity' }] of Object.entries(hostileCbor)) {
    const ms = await leastCpuMs(collector.pid, async () => {
      const answer = await post(body, encoding)
      assert.ok([400, 413].includes(answer.status), `${name}: ${answer.status}`)
      const { code, message } = (await answer.json()) as { code: string; message: string }
      assert.match(code, /^WIRE_/, name)
      assert.ok(message.length < 500, name)
    })
    if (ms > worst.ms) Object.assign(worst, { name, ms })
    assert.ok(ms < limitMs, `${name}: ${ms} ms`)
  }
  let taken = 0
  for (const [name, items] of Object.entries(laboriousBatches)) {
    const laborious = new TestAgent({ name: 'laborious', incarnation: incarnation(++taken + 1) })
    const body = laborious.batch(items).body('gzip')
    // The first of its kind is taken, the others are repeats, and looked at as closely.
    const ms = await leastCpuMs(collector.pid, async () => {
      assert.equal((await post(body, 'gzip')).status, 200, name)
    })
    if (ms > worst.ms) Object.assign(worst, { name, ms })
    assert.ok(ms < limitMs, `${name}: ${ms} ms`)
  }
  t.diagnostic(`the worst is ${worst.name}: ${worst.ms.toFixed(1)} of ${limitMs.toFixed(0)} ms`)
  const answer = await post(agent.readings(1).body('gzip'), 'gzip')
  assert.equal(answer.status, 200)
})

const long = 255 * 1024
const hostileJson: Record<string, string | Buffer> = {
  nothing: '',
  'arrays in each other': '['.repeat(long),
  'objects in each other': '{"v":'.repeat(long / 5),
  'a number of 255 KiB': `{"v":${'9'.repeat(long)}}`,
  'a fraction of 255 KiB': `{"v":0.${'1'.repeat(long)}}`,
  'an exponent beyond all': '{"v":1e999999999}',
  'a text of 255 KiB': `{"v":"${'x'.repeat(long)}"}`,
  escapes: `{"v":"${'\\u0000'.repeat(long / 6)}"}`,
  'a key many times': `{${'"v":1,'.repeat(long / 6)}"v":2}`,
  'many keys': `{${Array.from({ length: 25_000 }, (_, i) => `"${i}":1`).join(',')}}`,
  'a key named __proto__': '{"__proto__":{"v":1},"constructor":{"prototype":{"v":1}}}',
  'a time beyond all': '{"t":1e300,"v":1}',
  blanks: ' '.repeat(long),
  'bytes that are not UTF-8': Buffer.alloc(long, 0xc3),
  'ten megabytes': Buffer.alloc(10 * mebibyte, 0x5b),
}

test('no payload makes the agent work for long; each is taken or quarantined, and readings go on', async (t) => {
  const broker = await Mosquitto.start(t, { lines: keepsQueue })
  if (!broker) return
  const directory = await temporaryDirectory(t)
  const cloud = await Cloud.make(t, { directory: `${directory}/cloud` })
  await cloud.start()
  const gateway = await Gateway.make(t, {
    directory: `${directory}/gateway`,
    broker: broker.url,
    collector: cloud.url,
    more: {
      decode: [
        { topic: 'sensors/{device}/{metric}', format: 'json' },
        { topic: 'all/{device}', format: 'json', values: 'all' },
      ],
    },
  })
  const agent = await gateway.start()
  await gateway.subscribed()
  const sensor = new Sensor(broker.url)
  cleanUp(t, () => sensor.stop())
  await sensor.publish(5_000) // Warm.
  await gateway.drained(5_000)
  const { client } = await device(t, broker.url)
  const worst = { name: '', ms: 0 }
  for (const [name, payload] of Object.entries(hostileJson))
    for (const topic of ['sensors/x/y', 'all/x']) {
      const ms = await leastCpuMs(agent.pid, async () => {
        const { ledger } = (await gateway.status())!
        await client.publishAsync(topic, payload, { qos: 1 })
        await gateway.until((now) => now.ledger.received > ledger.received, name)
      })
      if (ms > worst.ms) Object.assign(worst, { name, ms })
      assert.ok(ms < limitMs, `${name}: ${ms} ms`)
    }
  t.diagnostic(`the worst is ${worst.name}: ${worst.ms.toFixed(1)} ms`)
  await sensor.publish(1_000)
  await gateway.drained(6_000)
  const counted = (await cloud.readings()).filter(({ metric }) => metric === 'count')
  assert.equal(counted.length, sensor.acknowledged.size)
})

const connack = hex('20 02 00 00')
const hostileMqtt: Record<string, Buffer> = {
  'what is no MQTT': Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
  'nothing but zeros': Buffer.alloc(1_000),
  'a CONNACK that is none': hex('20 7f'),
  'a length without an end': Buffer.concat([connack, hex('30 ffffffffff')]),
  'a PUBLISH longer than anything': Buffer.concat([connack, hex('32 ffffff7f 0001 61')]),
  'a topic longer than its packet': Buffer.concat([connack, hex('32 05 ffff 61 0001')]),
  'a PUBLISH without an id': Buffer.concat([connack, hex('32 03 0001 61')]),
  'packet id 0': Buffer.concat([connack, hex('32 06 0001 61 0000 31')]),
  'QoS 3': Buffer.concat([connack, hex('36 06 0001 61 0001 31')]),
  'an answer to nothing': Buffer.concat([connack, hex('90 03 0001 01')]),
  'two CONNACKs': Buffer.concat([connack, connack]),
  'a SUBSCRIBE': Buffer.concat([connack, hex('82 06 0001 0001 61 01')]),
  'a topic of 65,535 levels': Buffer.concat([
    connack,
    hex('30 818004 ffff'),
    Buffer.alloc(65_535, 0x2f),
  ]),
  'a thousand messages that nobody asked for': Buffer.concat([
    connack,
    ...Array.from({ length: 1_000 }, (_, i) => {
      const topic = `none/${i}`
      const head = Buffer.from([0x30, topic.length + 2, 0, topic.length])
      return Buffer.concat([head, Buffer.from(topic)])
    }),
  ]),
  'a packet in single bytes': Buffer.concat([connack, hex('30 03 0001 61'.repeat(2_000))]),
}

test('no bytes that a broker may send end the agent, or make it work for long', async (t) => {
  const port = await freePort()
  const directory = await temporaryDirectory(t)
  const gateway = await Gateway.make(t, {
    directory,
    broker: `mqtt://127.0.0.1:${port}`,
    collector: 'http://127.0.0.1:9',
    source: { retry: { base: '10ms', max: '10ms' } },
  })
  const hostile = Array.from({ length: tries }, () => Object.entries(hostileMqtt)).flat()
  const costs = new Map<string, number>()
  const { promise: through, resolve } = Promise.withResolvers<void>()
  const sockets = new Set<Socket>()
  let next = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    const attack = hostile[next++]
    if (!attack) return resolve()
    socket.once('data', async () => {
      const { pid } = gateway.process
      const before = await cpuMs(pid)
      socket.write(attack[1])
      await pause(100) // One that waits for more is not hurt either.
      const ms = (await cpuMs(pid)) - before
      costs.set(attack[0], Math.min(ms, costs.get(attack[0]) ?? ms))
      socket.destroy()
    })
  })
  await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening))
  cleanUp(t, () => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const agent = await gateway.start()
  await Promise.race([through, agent.ended()])
  assert.ok(agent.isRunning, agent.stderr)
  const [worst] = [...costs].sort(([, a], [, b]) => b - a)
  t.diagnostic(`the worst is ${worst![0]}: ${worst![1].toFixed(1)} ms`)
  for (const [name, ms] of costs) assert.ok(ms < limitMs, `${name}: ${ms} ms`)
  const { source } = (await gateway.status())!
  assert.equal(source.unackedMessages, 0)
  assert.equal((await agent.stop()).code, 0)
})

/** CPU that a process's main thread spends while `work` goes on, the least of some tries. */
async function leastCpuMs(pid: number, work: () => Promise<void>): Promise<number> {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < tries && least > limitMs / 2; i++) {
    const before = await cpuMs(pid)
    await work()
    least = Math.min(least, (await cpuMs(pid)) - before)
  }
  return least
}

async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/schedstat`, 'utf8')
  return Number(text.split(' ')[0]) / 1e6
}
