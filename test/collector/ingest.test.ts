import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Ingest } from '../../collector/ingest/ingest.ts'
import { type LogEngine, LogFailure } from '../../collector/log/engine.ts'
import { chainToBytes } from '../../shared/chain.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { post, send, startCollector } from '../support/collector.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { silentLog } from '../support/silent-log.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

test('every answer says what is held', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const first = agent.readings(5)
  const held = { held: 5, chain: hex(chainToBytes(first.header.after)) }
  const accepted = await send(url, first)
  assert.deepEqual([accepted.status, accepted.body], [200, { code: 'accepted', ...held }])
  const repeat = await send(url, first, 'zstd')
  assert.deepEqual([repeat.status, repeat.body], [200, { code: 'duplicate', ...held }])

  agent.readings(5)
  const own = { incarnation: hex(incarnation(1)), lane: 'bulk' }
  const hole = await send(url, agent.readings(5))
  assert.deepEqual([hole.status, hole.body], [409, { code: 'hole', ...held, ...own }])

  const other = new TestAgent()
  other.readings(5)
  const fork = await send(url, other.readings(2, { before: { high: 1, low: 1 } }))
  assert.deepEqual([fork.status, fork.body], [409, { code: 'fork', ...held }])

  const predecessor = {
    incarnation: incarnation(1),
    last: { urgent: 0, bulk: 15, quarantine: 0 },
  }
  const next = new TestAgent({ incarnation: incarnation(2), predecessor })
  const missing = await send(url, next.readings(1), 'identity')
  assert.deepEqual([missing.status, missing.body], [409, { code: 'hole', ...held, ...own }])
})

test('what is no batch is refused in one line, and stops nothing', async (t) => {
  const { url } = await startCollector(t)
  const agent = new TestAgent()
  const good = agent.readings(5)
  const inflated = good.body('identity')
  const undeclared = new TestAgent().readings(5, { last: 9 })
  const cases: [string, Uint8Array, Record<string, string>, number, string][] = [
    ['nothing', new Uint8Array(0), { 'content-encoding': 'identity' }, 400, 'WIRE_MALFORMED'],
    ['noise', Buffer.from('no batch at all'), {}, 400, 'WIRE_COMPRESSION'],
    ['noise in gzip', gzipSync('no batch at all'), {}, 400, 'WIRE_'],
    ['cut short', inflated.subarray(0, 90), { 'content-encoding': 'identity' }, 400, 'WIRE_'],
    ['an undeclared hole', undeclared.body(), {}, 400, 'WIRE_INVALID'],
    ['no agent', new TestAgent({ name: '' }).readings(1).body(), {}, 400, 'WIRE_INVALID'],
    [
      'a long name',
      new TestAgent({ name: 'x'.repeat(300) }).readings(1).body(),
      {},
      400,
      'WIRE_INVALID',
    ],
    ['too large', new Uint8Array(2 ** 20 + 1), {}, 413, 'WIRE_TOO_LARGE'],
    ['a bomb', gzipSync(new Uint8Array(9 * 2 ** 20)), {}, 413, 'WIRE_TOO_LARGE'],
    ['an unknown encoding', good.body(), { 'content-encoding': 'br' }, 415, 'encoding'],
    ['another type', good.body(), { 'content-type': 'application/json' }, 415, 'type'],
  ]
  for (const [what, body, headers, status, code] of cases) {
    const answer = await post(url, body, headers)
    assert.equal(answer.status, status, `${what}: ${JSON.stringify(answer.body)}`)
    assert.ok(String(answer.body.code).startsWith(code), `${what}: ${answer.body.code}`)
    assert.match(String(answer.body.message), /^[^\n]{1,500}$/, what)
    if (status === 415) assert.equal(answer.headers.get('accept-encoding'), 'zstd, gzip, identity')
  }
  assert.equal((await send(url, good)).status, 200)
})

test('a body without a length is counted while it comes', async (t) => {
  const { url } = await startCollector(t)
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  cleanUp(t, () => socket.destroy())
  socket.on('error', () => {})
  const head = 'POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n'
  socket.write(`${head}transfer-encoding: chunked\r\n\r\n`)
  const answered = new Promise<string>((resolve) =>
    socket.once('data', (data) => resolve(`${data}`)),
  )
  // It would go on for ever.
  const more = () => {
    if (!socket.destroyed && socket.bytesWritten < 2 ** 28)
      socket.write(`10000\r\n${'x'.repeat(0x10000)}\r\n`, more)
  }
  more()
  assert.match(await answered, /^HTTP\/1\.1 413 /)
})

test('what is in flight is bounded: more is told to come back', async (t) => {
  const { url } = await startCollector(t, { rest: 'ingest: { maxInFlight: 1MiB }' })
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  cleanUp(t, () => socket.destroy())
  // A sender that announces a whole MiB and takes its time takes up all the room.
  const head = 'POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n'
  socket.write(`${head}content-length: 1048576\r\nexpect: 100-continue\r\n\r\n`)
  await new Promise((resolve) => socket.once('data', resolve))
  const batch = new TestAgent().readings(5)
  const answer = await send(url, batch)
  assert.equal(answer.status, 429)
  assert.equal(answer.headers.get('retry-after'), '1')

  socket.destroy()
  for (;;) {
    const { status } = await send(url, batch)
    if (status === 200) break
    assert.equal(status, 429)
  }
})

test('a sender that is too slow is cut off', async (t) => {
  const { url } = await startCollector(t, { http: 'timeout: 200ms' })
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  socket.write('POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n')
  socket.write('content-length: 1000\r\n\r\nabc')
  let answer = ''
  socket.on('data', (bytes) => {
    answer += bytes
  })
  await new Promise((resolve) => socket.once('close', resolve))
  assert.match(answer, /^HTTP\/1\.1 408 /)
})

test('while the log cannot write, agents are told when to come back', async () => {
  const log = {
    append: () => Promise.reject(new LogFailure('LOG_DISK', 'no space left on device')),
  } as unknown as LogEngine
  const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 2 ** 23 }
  const ingest = new Ingest({ log, clock: new ManualClock(), logger: silentLog, ...limits })
  const headers = { 'content-type': 'application/cbor', 'content-encoding': 'gzip' }
  const answer = await ingest.take(headers, new TestAgent().readings(5).body())
  assert.equal(answer.status, 503)
  assert.ok(Number(answer.headers['retry-after']) > 0)
  assert.equal(ingest.counts.answers.unavailable, 1)
})

test('alarms are counted where Prometheus finds them', async (t) => {
  const collector = await startCollector(t)
  const { url } = collector
  await send(url, new TestAgent().readings(2))
  const clones = [incarnation(2), incarnation(3)].map((id) => new TestAgent({ incarnation: id }))
  for (let i = 0; i < 3; i++) for (const clone of clones) await send(url, clone.readings(2))
  const metrics = await (await fetch(`${url}/metrics`)).text()
  assert.match(metrics, /headgate_collector_alarms_total\{alarm="unchained"\} 2/)
  assert.match(metrics, /headgate_collector_alarms_total\{alarm="clone"\} 4/)
  assert.match(metrics, /headgate_collector_batches_total\{answer="accepted"\} 7/)
  assert.match(metrics, /headgate_collector_records_total\{stream="readings"\} 14/)
})
