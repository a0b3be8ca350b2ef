import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import mqtt from 'mqtt'
import { generate, type Packet, parser } from 'mqtt-packet'
import { Broker, type BrokerOptions } from '../../firmware-sim/broker.ts'
import { until } from '../support/until.ts'
import { connected, Subscriber } from './subscriber.ts'

const away = { clientId: 'gw', clean: false }

async function brokerOf(t: TestContext, options: Partial<BrokerOptions> = {}): Promise<Broker> {
  const broker = await Broker.open({ host: '127.0.0.1', port: 0, ...options })
  t.after(() => broker.close())
  return broker
}

/** Publishes numbers at QoS 1; resolves to how many are acknowledged by now. */
async function sender(t: TestContext, url: string) {
  const client = mqtt.connect(url)
  t.after(() => client.end(true))
  await connected(client)
  let next = 0
  const counts = { acknowledged: 0 }
  return {
    counts,
    send(count: number): Promise<unknown> {
      return Promise.all(
        Array.from({ length: count }, async () => {
          await client.publishAsync('sensors/d/m', String(next++), { qos: 1 })
          counts.acknowledged++
        }),
      )
    },
  }
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i))

test('a session that was away gets all of it, in order', async (t) => {
  const broker = await brokerOf(t)
  const { send } = await sender(t, broker.url)
  const before = await Subscriber.open(t, broker.url, away)
  await before.vanish()
  await send(500)
  assert.equal(broker.queued, 500)
  const after = await Subscriber.open(t, broker.url, away)
  // Published while the queue is on its way.
  await send(500)
  await until(() => after.received.length >= 1000 && broker.queued === 0, 'all messages')
  assert.deepEqual(after.payloads, numbers(1000))
})

test('what was not acknowledged comes again under its own packet id, marked', async (t) => {
  const broker = await brokerOf(t)
  const { send } = await sender(t, broker.url)
  // Takes everything and acknowledges nothing.
  const deaf = await Subscriber.open(t, broker.url, away)
  deaf.client.handleMessage = () => {}
  await send(1)
  await until(() => deaf.received.length > 0, 'the first message')
  await deaf.vanish()
  await send(300)
  const after = await Subscriber.open(t, broker.url, away)
  await until(() => after.received.length >= 301 && broker.queued === 0, 'all messages')
  assert.deepEqual(after.payloads, numbers(301))
  const [again, ...rest] = after.received
  assert.deepEqual([again!.duplicate, again!.packetId], [true, deaf.received.at(-1)!.packetId])
  assert.ok(rest.every(({ duplicate }) => !duplicate))
  assert.equal(new Set(after.received.map(({ packetId }) => packetId)).size, 301)
})

test('a session that breaks off again and again misses nothing', async (t) => {
  const broker = await brokerOf(t, { limits: { maxMessages: 500, maxBytes: 1e9 } })
  const { send } = await sender(t, broker.url)
  let subscriber = await Subscriber.open(t, broker.url, away)
  const received = [subscriber.received]
  const sending = send(10_000)
  for (let i = 0; i < 10; i++) {
    await until(() => subscriber.received.length > 300, 'a flow of messages')
    await subscriber.vanish()
    subscriber = await Subscriber.open(t, broker.url, away)
    received.push(subscriber.received)
  }
  await sending
  await until(() => broker.queued === 0, 'an empty queue')
  const all = received.flat()
  const again = all.filter(({ duplicate }) => duplicate)
  // Whatever comes a second time says so, and without it the order is that of sending.
  assert.deepEqual([...new Set(all.map(({ payload }) => payload))], numbers(10_000))
  assert.ok(all.length - 10_000 <= again.length)
  // On one connection nothing comes twice.
  for (const connection of received)
    assert.equal(new Set(connection.map(({ payload }) => payload)).size, connection.length)
})

test('a full queue delays its publishers, and nothing is lost', async (t) => {
  const held: [string, number][] = []
  const broker = await brokerOf(t, {
    limits: { maxMessages: 100, maxBytes: 1e9 },
    onHold: (...hold) => held.push(hold),
  })
  const before = await Subscriber.open(t, broker.url, away)
  await before.vanish()
  const { send, counts } = await sender(t, broker.url)
  await send(100)
  const sending = send(2000)
  await until(() => held.length > 0, 'publishers are held')
  assert.equal(held[0]![0], 'gw')
  // A client without a part in it is served all the while.
  await Subscriber.open(t, broker.url, { clientId: 'other' })
  assert.equal(counts.acknowledged, 100)
  const after = await Subscriber.open(t, broker.url, away)
  await sending
  await until(() => after.received.length >= 2100 && broker.queued === 0, 'all messages')
  assert.deepEqual(after.payloads, numbers(2100))
})

test('bytes bound a queue too', async (t) => {
  let held = 0
  const broker = await brokerOf(t, {
    limits: { maxMessages: 1e6, maxBytes: 10_000 },
    onHold: () => held++,
  })
  await (await Subscriber.open(t, broker.url, away)).vanish()
  const client = mqtt.connect(broker.url)
  t.after(() => client.end(true))
  for (let i = 0; i < 5; i++) client.publish('sensors/d/m', Buffer.alloc(10_000), { qos: 1 })
  await until(() => held === 1, 'publishers are held')
  assert.ok(broker.queued <= 5)
})

test('a client that is owed something may always publish', async (t) => {
  const broker = await brokerOf(t, { limits: { maxMessages: 10, maxBytes: 1e9 } })
  // By hand, since a client library reads nothing behind a message that is not acknowledged.
  const socket = connect(Number(new URL(broker.url).port), '127.0.0.1')
  t.after(() => socket.destroy())
  const received: Packet[] = []
  const incoming = parser({ protocolVersion: 4 }).on('packet', (packet) => received.push(packet))
  socket.on('data', (bytes) => incoming.parse(bytes))
  const exchange = async (packet: Packet, answer: Packet['cmd'], count = 1) => {
    socket.write(generate(packet))
    await until(() => received.filter(({ cmd }) => cmd === answer).length >= count, answer)
  }
  await exchange({ cmd: 'connect', clientId: 'gw', clean: false, keepalive: 0 }, 'connack')
  const subscriptions = [{ topic: 'sensors/#', qos: 1 } as const]
  await exchange({ cmd: 'subscribe', messageId: 1, subscriptions }, 'suback')
  const { send } = await sender(t, broker.url)
  await send(10)
  const sending = send(10)
  // Were this to wait for room, the acknowledgements behind it could never make any.
  const status = { cmd: 'publish', topic: 'status', payload: 'busy', messageId: 2 } as const
  await exchange({ ...status, qos: 1, dup: false, retain: false }, 'puback')
  const owed = received.filter(({ cmd }) => cmd === 'publish')
  assert.equal(owed.length, 10)
  for (const { messageId } of owed) socket.write(generate({ cmd: 'puback', messageId: messageId! }))
  await sending
})

test('a session that stays away is forgotten and holds nobody up', async (t) => {
  const broker = await brokerOf(t, {
    limits: { maxMessages: 10, maxBytes: 1e9 },
    sessionExpiryMs: 300,
  })
  await (await Subscriber.open(t, broker.url, away)).vanish()
  const { send } = await sender(t, broker.url)
  await send(10)
  assert.equal(broker.queued, 10)
  await send(10)
  assert.equal(broker.queued, 0)
})

test('a port that is taken is one line that says what to do', async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  await assert.rejects(Broker.open({ host: '127.0.0.1', port }), /is taken: give another one/)
  await assert.rejects(Broker.open({ host: '192.0.2.1', port: 0 }), /no address of this machine/)
})
