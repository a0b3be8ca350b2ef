import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import type { SourceEvent } from '../../agent/source/source.ts'
import { FakeBroker, publishPacket } from '../support/fake-broker.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { SourceLife, subscribedLife as subscribed, text } from '../support/source.ts'
import { until } from '../support/until.ts'

test('a group is acknowledged in order, once it is committed', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 }, { id: 2 }, { qos: 0, payload: 'zero' }, { id: 3 })
  const group = await life.take()
  const payloads = group.messages.map(({ payload }) => text(payload))
  assert.deepEqual(payloads, ['1', '2', 'zero', '3'])
  assert.deepEqual(connection.acknowledged, [])
  life.source.acknowledge(group)
  assert.deepEqual(connection.acknowledged, [1, 2, 3])
  await life.source.close()
})

test('what arrives during a commit is the next group, up to a bound', async () => {
  const { life, connection } = await subscribed({ config: { maxGroupMessages: 3 } })
  connection.publish({ id: 1 })
  const first = await life.take()
  connection.publish({ id: 2 }, { id: 3 })
  connection.publish({ id: 4 }, { id: 5 })
  life.source.acknowledge(first)
  assert.deepEqual((await life.turn()).fresh, ['2', '3', '4'])
  assert.deepEqual((await life.turn()).fresh, ['5'])
  assert.deepEqual(connection.acknowledged, [1, 2, 3, 4, 5])
  await life.source.close()
})

test('with linger a group waits for company, but not once it is full', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({
    clock,
    config: { linger: '5ms', maxGroupMessages: 3 },
  })
  const lingering = life.turn()
  connection.publish({ id: 1 })
  await clock.advance(4)
  connection.publish({ id: 2 })
  await clock.advance(1)
  assert.deepEqual((await lingering).fresh, ['1', '2'])
  const full = life.turn()
  connection.publish({ id: 3 }, { id: 4 }, { id: 5 })
  assert.deepEqual((await full).fresh, ['3', '4', '5'])
  await life.source.close()
})

test('a message that comes ahead of the CONNACK is kept, as some brokers send it', async () => {
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer })
  const connection = await dialer.connection()
  connection.publish({ id: 1 })
  connection.connack()
  assert.deepEqual((await life.turns(1)).fresh, ['1'])
  assert.deepEqual(connection.acknowledged, [1])
  await life.source.close()
})

test('a late acknowledgement goes nowhere', async () => {
  const clock = new ManualClock()
  const { dialer, life, connection } = await subscribed({ clock })
  connection.publish({ id: 1 })
  const group = await life.take()
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  again.publish({ id: 1, payload: 'another' })
  life.source.acknowledge(group)
  assert.deepEqual(connection.acknowledged, [])
  assert.deepEqual(again.acknowledged, [])
  assert.deepEqual((await life.turn()).fresh, ['another'])
  assert.deepEqual(again.acknowledged, [1])
  await life.source.close()
})

test('a group of another source, or one acknowledged before, is an error of the caller', async () => {
  const one = await subscribed()
  const other = await subscribed()
  one.connection.publish({ id: 1 })
  other.connection.publish({ id: 7 })
  const group = await one.life.take()
  const theirs = await other.life.take()
  assert.throws(() => other.life.source.acknowledge(group), TypeError)
  assert.deepEqual(other.connection.acknowledged, [])
  one.life.source.acknowledge(group)
  assert.throws(() => one.life.source.acknowledge(group), TypeError)
  assert.deepEqual(one.connection.acknowledged, [1])
  other.life.source.acknowledge(theirs)
  await one.life.source.close()
  await other.life.source.close()
})

test('what was received before a lost connection is handed out all the same', async () => {
  const clock = new ManualClock()
  const { dialer, life, connection } = await subscribed({ clock })
  connection.publish({ id: 1 }, { qos: 0, payload: 'zero' })
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  again.publish({ id: 1, dup: true })
  assert.deepEqual(await life.turn(), { fresh: ['1', 'zero'], repeats: [] })
  assert.deepEqual(await life.turn(), { fresh: [], repeats: ['1'] })
  assert.deepEqual(again.acknowledged, [1])
  await life.source.close()
})

test('a message sent again while it is in hand is taken and acknowledged once', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 }, { id: 2 })
  const group = await life.take()
  connection.publish({ id: 1, dup: true }, { id: 3 })
  life.source.acknowledge(group)
  assert.deepEqual((await life.turn()).fresh, ['3'])
  assert.deepEqual(connection.acknowledged, [1, 2, 3])
  assert.equal(life.source.status().retransmitted, 1)
  await life.source.close()
})

test('a copy that comes behind the acknowledgement is not acknowledged again', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 }, { id: 2 })
  assert.deepEqual((await life.turn()).fresh, ['1', '2'])
  connection.publish({ id: 1, dup: true }, { id: 3 })
  assert.deepEqual(await life.turn(), { fresh: ['3'], repeats: ['1'] })
  // By now the broker has given the id to another message.
  connection.publish({ id: 1, payload: 'new' })
  assert.deepEqual((await life.turn()).fresh, ['new'])
  assert.deepEqual(connection.acknowledged, [1, 2, 3, 1])
  await life.source.close()
})

test('a packet id used again for something else is another message', async () => {
  const { life, connection } = await subscribed()
  connection.publish(
    { id: 1, payload: 'a' },
    { id: 1, payload: 'b' },
    { id: 1, payload: 'c', dup: true },
    { id: 1, payload: 'c' },
  )
  assert.deepEqual((await life.turn()).fresh, ['a', 'b', 'c', 'c'])
  assert.deepEqual(connection.acknowledged, [1, 1, 1, 1])
  await life.source.close()
})

for (const [limit, config] of Object.entries<{
  maxUnackedMessages?: number
  maxUnackedBytes?: string
}>({
  messages: { maxUnackedMessages: 100 },
  bytes: { maxUnackedBytes: '64KiB' },
}))
  test(`the socket is not read while too many ${limit} are un-acknowledged`, async () => {
    const { life, connection } = await subscribed({ config })
    const payload = 'x'.repeat(1_000)
    // A broker that sends far more than it may.
    for (let id = 1; id <= 1_000; id++) connection.publish({ id, payload })
    assert.equal(connection.paused, true)
    const { unackedMessages, unackedBytes, paused } = life.source.status()
    assert.equal(paused, true)
    assert.ok(config.maxUnackedMessages ? unackedMessages === 100 : unackedBytes <= 66 * 1024)
    assert.equal((await life.turns(1_000)).fresh.length, 1_000)
    assert.equal(connection.paused, false)
    assert.equal(life.source.status().unackedMessages, 0)
    assert.equal(life.source.status().unackedBytes, 0)
    await life.source.close()
  })

test('a new connection is not read further than its CONNACK while too much is un-acknowledged', async () => {
  const clock = new ManualClock()
  const { dialer, life, connection } = await subscribed({
    clock,
    config: { maxUnackedMessages: 2 },
  })
  connection.publish({ id: 1 }, { id: 2 })
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  assert.equal(again.paused, true)
  again.publish({ id: 1, dup: true }, { id: 2, dup: true })
  assert.deepEqual(await life.turns(4), { fresh: ['1', '2'], repeats: ['1', '2'] })
  await life.source.close()
})

test('a payload over the limit comes as its beginning, size and SHA-256', async () => {
  const { createHash } = await import('node:crypto')
  const { life, connection } = await subscribed({ config: { maxMessageBytes: '100KiB' } })
  const large = Buffer.alloc(300_000, 'abcdefg')
  const whole = Buffer.alloc(100 * 1024, 'x')
  const bytes = connection.encode(publishPacket({ id: 1, payload: large }))
  for (let at = 0; at < bytes.length; at += 1_000) connection.send(bytes.subarray(at, at + 1_000))
  connection.publish({ id: 2, payload: whole }, { id: 3 })
  const group = await life.take()
  const [oversize, exact, next] = group.messages
  assert.deepEqual(oversize!.oversize, {
    size: large.length,
    sha256: new Uint8Array(createHash('sha256').update(large).digest()),
  })
  assert.ok(large.subarray(0, 64 * 1024).equals(oversize!.payload))
  assert.ok(whole.equals(exact!.payload))
  assert.equal(exact!.oversize, undefined)
  assert.equal(text(next!.payload), '3')
  life.source.acknowledge(group)
  assert.deepEqual(connection.acknowledged, [1, 2, 3])
  await life.source.close()
})

test('a topic that MQTT does not allow is handed on with its fault', async () => {
  const { life, connection } = await subscribed()
  const bytes = connection.encode(publishPacket({ id: 1, topic: 'sensors/a/?' }))
  bytes[bytes.indexOf('?')] = 0xff
  connection.send(bytes)
  const bad = connection.encode(publishPacket({ id: 2, topic: 'sensors/a/?' }))
  bad[bad.indexOf('?')] = 0x23
  connection.send(bad)
  connection.publish({ id: 3 })
  const { messages } = await life.take()
  assert.deepEqual(
    messages.map(({ fault }) => fault),
    ['the topic is not UTF-8', 'the topic has a wildcard in it', undefined],
  )
  life.crash()
})

test('the broker is asked whether it has read the acknowledgements, and the answer is told', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 })
  const first = await life.take()
  life.source.acknowledge(first)
  assert.equal(connection.pong(), 1)
  connection.publish({ id: 2 })
  const second = await life.take()
  assert.equal(second.proven, first.ordinal)
  life.crash()
})

test('keepalive: a silent broker is asked, and left when it does not answer', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({ clock, config: { keepalive: '60s' } })
  for (let i = 0; i < 5; i++) {
    await clock.advance(60_000)
    assert.equal(connection.pong(), 1)
  }
  assert.equal(life.source.status().phase, 'connected')
  await clock.advance(60_000)
  assert.equal(connection.of('pingreq').length, 6)
  await clock.advance(29_000)
  assert.equal(life.source.status().phase, 'connected')
  await clock.advance(2_000)
  assert.equal(connection.ended, true)
  assert.equal(life.source.status().lastError!.code, 'SOURCE_TIMEOUT')
  await life.source.close()
})

test('keepalive: a connection that we do not read is not taken for dead, and goes on asking', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({ clock, config: { maxUnackedMessages: 1 } })
  connection.publish({ id: 1 }, { id: 2 })
  const group = await life.take()
  assert.equal(connection.paused, true)
  await clock.advance(600_000)
  assert.equal(life.source.status().phase, 'connected')
  assert.ok(connection.of('pingreq').length >= 9)
  life.source.acknowledge(group)
  assert.equal(connection.paused, false)
  await clock.advance(60_000)
  assert.equal(life.source.status().phase, 'connected')
  await clock.advance(60_000)
  assert.equal(life.source.status().lastError!.code, 'SOURCE_TIMEOUT')
  await life.source.close()
})

test('the first try is at once; then delays are uniform in 0 … min(max, base · 2^k)', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  dialer.refusing = Object.assign(new Error(), { code: 'ECONNREFUSED' })
  const delays: number[] = []
  let last: number | undefined
  const dial = dialer.dial.bind(dialer)
  dialer.dial = (handlers) => {
    if (last !== undefined) delays.push(clock.monotonicMs() - last)
    last = clock.monotonicMs()
    return dial(handlers)
  }
  const life = await SourceLife.begin({
    dialer,
    clock,
    config: { retry: { base: '1s', max: '60s' } },
  })
  await until(() => last === 0, 'a first try at once')
  await clock.advance(3_600_000)
  for (const [k, delay] of delays.entries())
    assert.ok(delay <= Math.min(60_000, 1_000 * 2 ** k), `try ${k + 1} after ${delay} ms`)
  const late = delays.slice(6)
  const mean = late.reduce((sum, delay) => sum + delay, 0) / late.length
  assert.ok(mean > 20_000 && mean < 40_000, `uniform up to 60 s: mean ${mean}`)
  assert.ok(Math.min(...late) < 10_000 && Math.max(...late) > 50_000)
  await life.source.close()
})

test('after a minute of stability the delays start over, from where a herd spreads out', async () => {
  const clock = new ManualClock()
  const { dialer, life } = await subscribed({
    clock,
    random: { uniform: () => 0.999, bytes: (n) => new Uint8Array(n) },
  })
  const tryAgain = async (count: number, aliveMs: number) => {
    const connection = dialer.dialled[count - 1]!
    const aliveUntil = clock.monotonicMs() + aliveMs
    while (clock.monotonicMs() < aliveUntil) {
      await clock.advance(1_000)
      connection.pong()
    }
    connection.lose()
    let waited = 0
    while (dialer.dialled.length === count) {
      await clock.advance(100)
      waited += 100
    }
    await dialer.accept({ count: count + 1, sessionPresent: true })
    return waited
  }
  assert.equal(await tryAgain(1, 0), 1_000)
  assert.equal(await tryAgain(2, 0), 2_000)
  assert.equal(await tryAgain(3, 0), 4_000)
  assert.equal(await tryAgain(4, 61_000), 16_000)
  await life.source.close()
})

test('a broker that takes the connection and says nothing is left', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer, clock, config: { connectTimeout: '20s' } })
  const connection = await dialer.connection()
  await clock.advance(20_000)
  assert.equal(connection.ended, true)
  assert.equal(life.source.status().lastError!.code, 'SOURCE_TIMEOUT')
  await life.source.close()
})

test('an answer that waits behind what we do not read is waited for', async () => {
  const clock = new ManualClock()
  const first = await subscribed({ config: { topics: ['a/#'] } })
  await first.life.source.close()
  const life = await SourceLife.begin({
    dialer: first.dialer,
    clock,
    state: first.life.state,
    config: { topics: ['a/#', 'b/#'], maxUnackedMessages: 2 },
  })
  const connection = await first.dialer.accept({ count: 2, sessionPresent: true })
  connection.publish({ id: 1 }, { id: 2 })
  await connection.subscribed()
  assert.equal(connection.paused, true)
  await clock.advance(300_000)
  assert.equal(connection.ended, false)
  await life.turns(2)
  await clock.advance(20_000)
  assert.deepEqual(life.source.status().subscribed, ['a/#', 'b/#'])
  life.crash()
})

test('a subscription that is not answered ends the connection', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer, clock })
  const connection = await dialer.accept()
  await life.turn()
  await connection.next('subscribe')
  await clock.advance(20_000)
  assert.equal(connection.ended, true)
  await life.source.close()
})

for (const [version, code, advice] of [
  [4, 4, 'check source.username and source.password'],
  [4, 5, 'not authorised: check source.username'],
  [4, 2, 'choose another source.clientId'],
  [4, 1, 'try the other source.version'],
  [5, 0x86, 'check source.username and source.password'],
  [5, 0x84, 'set source.version to 3.1.1'],
  [5, 1, 'try the other source.version'],
] as const)
  test(`CONNACK ${code} of MQTT ${version} says what to do, and it is tried again`, async () => {
    const clock = new ManualClock()
    const dialer = new FakeBroker({ version })
    const config = { version: version === 5 ? 5 : '3.1.1' }
    const life = await SourceLife.begin({ dialer, clock, config })
    const connection = await dialer.connection()
    connection.connack({ code })
    await until(() => life.source.status().lastError !== undefined, 'the refusal')
    const { lastError } = life.source.status()
    assert.equal(lastError!.code, 'SOURCE_REFUSED')
    assert.ok(lastError!.message.includes(advice), lastError!.message)
    await clock.advance(1_000)
    await dialer.accept({ count: 2 })
    assert.equal(life.source.status().phase, 'connected')
    await life.source.close()
  })

test('the same trouble is logged once a minute, other trouble at once', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  const lines: string[] = []
  const { pino } = await import('pino')
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line).msg) })
  dialer.refusing = Object.assign(new Error(), { code: 'ECONNREFUSED' })
  const life = await SourceLife.begin({
    dialer,
    clock,
    log,
    config: { retry: { base: '1s', max: '1s' } },
  })
  await clock.advance(59_000)
  assert.equal(lines.length, 1)
  assert.match(lines[0]!, /nothing listens on broker\.test:1883: is the broker running\?/)
  await clock.advance(10_000)
  assert.equal(lines.length, 2)
  dialer.refusing = Object.assign(new Error(), { code: 'ENOTFOUND' })
  await clock.advance(2_000)
  assert.equal(lines.length, 3)
  assert.match(lines[2]!, /no address for broker\.test/)
  await life.source.close()
})

test('a new session is subscribed only once its name is committed', async () => {
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer })
  const connection = await dialer.accept()
  const group = await life.take()
  assert.equal(group.messages.length, 0)
  assert.deepEqual(connection.of('subscribe'), [])
  life.commit(group)
  life.source.acknowledge(group)
  const { subscriptions } = await connection.next('subscribe')
  const asked = subscriptions.map(({ topic, qos }) => [topic, qos])
  assert.deepEqual(asked, [['sensors/#', 1]])
  await life.source.close()
})

test('where the connection is lost before that, nothing is asked for on it', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer, clock })
  const connection = await dialer.accept()
  const group = await life.take()
  life.commit(group)
  connection.lose()
  await clock.advance(0)
  life.source.acknowledge(group)
  assert.deepEqual(connection.of('subscribe'), [])
  await life.source.close()
  assert.equal(clock.pending, 0, 'no timer is left')
})

test('a session that is there is not subscribed again', async () => {
  const clock = new ManualClock()
  const { life, dialer, connection } = await subscribed({ clock })
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  again.publish({ id: 1 })
  await life.turns(1)
  assert.deepEqual(again.of('subscribe'), [])
  await life.source.close()

  const next = await SourceLife.begin({ dialer, clock, state: life.state })
  const restarted = await dialer.accept({ count: 3, sessionPresent: true })
  restarted.publish({ id: 2 })
  await next.turns(1)
  assert.deepEqual(restarted.of('subscribe'), [])
  await next.source.close()
})

test('a changed list of topics subscribes what is new and unsubscribes what has left', async () => {
  const config = { topics: ['a/#', 'b/#'] }
  const { life, dialer } = await subscribed({ config })
  await life.source.close()
  const next = await SourceLife.begin({
    dialer,
    state: life.state,
    config: { topics: ['b/#', 'c/#'] },
  })
  const connection = await dialer.accept({ count: 2, sessionPresent: true })
  const asked = await connection.subscribed()
  assert.deepEqual(
    asked.subscriptions.map(({ topic }) => topic),
    ['c/#'],
  )
  const left = await connection.next('unsubscribe')
  assert.deepEqual(left.unsubscriptions, ['a/#'])
  connection.packets({ cmd: 'unsuback', messageId: left.messageId!, granted: [] })
  await next.turn()
  assert.deepEqual(next.source.status().subscribed.toSorted(), ['b/#', 'c/#'])
  await next.source.close()
})

test('a session of another broker or client id says nothing about this one', async () => {
  const { life, dialer } = await subscribed()
  await life.source.close()
  const next = await SourceLife.begin({
    dialer,
    state: life.state,
    config: { clientId: 'another' },
  })
  const connection = await dialer.accept({ count: 2, sessionPresent: true })
  assert.deepEqual(
    (await connection.next('subscribe')).subscriptions.map(({ topic }) => topic),
    ['sensors/#'],
  )
  await next.source.close()
})

test('a session that the broker has lost is reported, and subscribed anew', async () => {
  const clock = new ManualClock()
  const events: SourceEvent[] = []
  const { life, dialer, connection } = await subscribed({
    clock,
    onEvent: (event) => events.push(event),
  })
  connection.publish({ id: 1, payload: 'a' })
  const [before] = [await life.take()]
  life.commit(before)
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: false })
  life.source.acknowledge(before)
  await life.turn()
  await again.subscribed()
  // The same packet id and content: of another session, so another message.
  again.publish({ id: 1, payload: 'a', dup: true })
  assert.deepEqual(await life.turns(1), { fresh: ['a'], repeats: [] })
  assert.deepEqual(
    events.map(({ type }) => type),
    ['connected', 'disconnected', 'session-lost', 'connected'],
  )
  assert.equal(life.source.status().sessionsLost, 1)
  await life.source.close()
})

test('a refused subscription is reported and asked for again, and the others work', async () => {
  const clock = new ManualClock()
  const events: SourceEvent[] = []
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({
    dialer,
    clock,
    config: { topics: ['a/#', 'b/#'] },
    onEvent: (event) => events.push(event),
  })
  const connection = await dialer.accept()
  await life.turn()
  const asked = await connection.next('subscribe')
  connection.packets({ cmd: 'suback', messageId: asked.messageId!, granted: [0x80, 1] })
  await life.turn()
  assert.deepEqual(life.source.status().subscribed, ['b/#'])
  const refusal = events.find(({ type }) => type === 'subscription-refused')
  assert.match(JSON.stringify(refusal), /a\/#.*check what the broker lets this user read/)
  await clock.advance(1_000)
  const again = await connection.subscribed()
  assert.deepEqual(
    again.subscriptions.map(({ topic }) => topic),
    ['a/#'],
  )
  await life.turn()
  assert.deepEqual(life.source.status().subscribed.toSorted(), ['a/#', 'b/#'])
  await life.source.close()
})

test('a filter that stays silent in a session that was there is asked for again', async () => {
  const clock = new ManualClock()
  const { life, dialer } = await subscribed({ clock, config: { topics: ['a/+', 'b/+'] } })
  await life.source.close()
  const next = await SourceLife.begin({
    dialer,
    clock,
    state: life.state,
    config: { topics: ['a/+', 'b/+'] },
  })
  const connection = await dialer.accept({ count: 2, sessionPresent: true })
  connection.publish({ id: 1, topic: 'a/1' })
  await next.turns(1)
  await clock.advance(59_000)
  assert.deepEqual(connection.of('subscribe'), [])
  await clock.advance(1_000)
  const asked = await connection.next('subscribe')
  assert.deepEqual(
    asked.subscriptions.map(({ topic }) => topic),
    ['b/+'],
  )
  await next.source.close()
})

test('MQTT 5: bounds are announced, and Retain Handling spares what is subscribed', async () => {
  const clock = new ManualClock()
  const { life, dialer, connection } = await subscribed({
    clock,
    dialer: new FakeBroker({ version: 5 }),
    config: { version: 5, receiveMaximum: 123, sessionExpiry: '2d' },
  })
  const [connect] = connection.of('connect')
  assert.equal(connect!.clean, false)
  assert.equal(connect!.properties!.receiveMaximum, 123)
  assert.equal(connect!.properties!.sessionExpiryInterval, 2 * 86_400)
  assert.equal(connect!.clientId, 'headgate-gw-001')
  assert.equal(connection.of('subscribe')[0]!.subscriptions[0]!.rh, 1)
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  assert.equal((await again.next('subscribe')).subscriptions[0]!.rh, 1)
  await life.source.close()
})

test("MQTT 5: the broker's keepalive and its reason for leaving count", async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker({ version: 5 })
  const life = await SourceLife.begin({ dialer, clock, config: { version: 5 } })
  const connection = await dialer.connection()
  connection.connack({ properties: { serverKeepAlive: 10 } })
  await clock.advance(10_000)
  assert.equal(connection.of('pingreq').length, 1)
  connection.packets({ cmd: 'disconnect', reasonCode: 0x8e })
  await until(() => life.source.status().lastError !== undefined, 'the end')
  assert.match(
    life.source.status().lastError!.message,
    /same client id: choose another source\.clientId/,
  )
  await life.source.close()
})

test('publications wait for the connection, are bounded, and QoS 1 is sent again with DUP', async () => {
  const clock = new ManualClock()
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer, clock })
  assert.equal(life.source.publish('cmd/1', Buffer.from('early')), true)
  assert.throws(() => life.source.publish('cmd/#', Buffer.from('x')), RangeError)
  const connection = await dialer.accept()
  assert.equal(text((await connection.next('publish')).payload as Buffer), 'early')
  life.source.publish('cmd/1', Buffer.from('sure'), { qos: 1 })
  const sure = await connection.next('publish')
  connection.lose()
  await clock.advance(1_000)
  const again = await dialer.accept({ count: 2, sessionPresent: true })
  const repeated = await again.next('publish')
  assert.deepEqual([repeated.dup, repeated.messageId], [true, sure.messageId])
  again.packets({ cmd: 'puback', messageId: sure.messageId! })
  again.lose()
  await clock.advance(2_000)
  const third = await dialer.accept({ count: 3, sessionPresent: true })
  assert.deepEqual(third.of('publish'), [])
  let accepted = 0
  for (let i = 0; i < 5_000; i++)
    if (life.source.publish('cmd/1', Buffer.alloc(10), { qos: 1 })) accepted += 1
  assert.equal(third.of('publish').length, 20)
  assert.equal(accepted, 1_020)
  await life.source.close()
})

test('closing lets the group in hand be acknowledged, takes leave and ends the iteration', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 })
  const group = await life.take()
  connection.publish({ id: 2 })
  const closed = life.source.close()
  connection.publish({ id: 3 })
  life.source.acknowledge(group)
  await closed
  assert.deepEqual(connection.acknowledged, [1])
  assert.equal(connection.received.at(-1)!.cmd, 'disconnect')
  await assert.rejects(life.take(), /closed/)
  await life.source.close()
})

test('closing does not wait for a commit that never ends', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({ clock })
  connection.publish({ id: 1 })
  await life.take()
  const closed = life.source.close()
  await clock.advance(2_000)
  await closed
  assert.deepEqual(connection.acknowledged, [])
  assert.equal(clock.pending, 0, 'no timer is left')
})

test('a loop that fails leaves the broker at once', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({ clock })
  connection.publish({ id: 1 })
  const loop = async () => {
    for await (const _group of life.source) throw new Error('disk full')
  }
  await assert.rejects(loop(), /disk full/)
  assert.deepEqual(connection.acknowledged, [])
  assert.equal(connection.ended, true)
  assert.equal(life.source.status().phase, 'closed')
  assert.equal(clock.pending, 0, 'no timer is left')
})

test('closing while dialling or waiting ends it', async () => {
  const clock = new ManualClock()
  const hanging = await SourceLife.begin({ clock, dialer: { dial: () => new Promise(() => {}) } })
  await hanging.source.close()
  const refused = new FakeBroker()
  refused.refusing = new Error('no')
  const waiting = await SourceLife.begin({ clock, dialer: refused })
  await until(() => waiting.source.status().phase === 'waiting', 'a failed try')
  await waiting.source.close()
  assert.equal(clock.pending, 0, 'no timer is left')
})

test('status tells the last message of each topic', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribed({ clock })
  connection.publish({ id: 1, topic: 'sensors/a/t' }, { id: 2, topic: 'sensors/b/t' })
  await clock.advance(5_000)
  connection.publish({ id: 3, topic: 'sensors/a/t' })
  await life.turns(3)
  const start = clock.wallMs() - 5_000
  assert.deepEqual(life.source.status().topics, [
    { topic: 'sensors/a/t', lastMs: start + 5_000 },
    { topic: 'sensors/b/t', lastMs: start },
  ])
  await life.source.close()
})

test('packets that are written leave nothing behind for each packet id', async () => {
  const { life } = await subscribed()
  const numbers = createRequire(import.meta.url)('mqtt-packet/numbers') as { cache: object }
  assert.equal(Object.keys(numbers.cache).length, 0)
  await life.source.close()
})
