import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { Broker } from '../../firmware-sim/broker.ts'
import { Publisher, type PublisherOptions } from '../../firmware-sim/publisher.ts'
import { UserError } from '../../shared/failure.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { until } from '../support/until.ts'
import { Cut } from './cut.ts'
import { Subscriber } from './subscriber.ts'

const { signal } = new AbortController()

async function brokerOf(t: TestContext): Promise<Broker> {
  const broker = await Broker.open({ host: '127.0.0.1', port: 0 })
  t.after(() => broker.close())
  return broker
}

async function publisherOf(
  t: TestContext,
  url: string,
  options: Partial<PublisherOptions> = {},
): Promise<Publisher> {
  const publisher = await Publisher.open(
    { url, qos: 1, giveUpMs: 10_000, clock: systemClock, random: systemRandom, ...options },
    signal,
  )
  t.after(() => publisher.close())
  return publisher
}

async function publish(publisher: Publisher, from: number, count: number): Promise<void> {
  for (let i = from; i < from + count; i++) {
    for (let room = publisher.room(signal); room; room = publisher.room(signal)) await room
    publisher.publish('sensors/d/m', String(i))
  }
}

const numbers = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => String(from + i))

for (const qos of [0, 1] as const)
  test(`a publisher of QoS ${qos} that has closed has been heard in full, in order`, async (t) => {
    const broker = await brokerOf(t)
    const subscriber = await Subscriber.open(t, broker.url)
    const publisher = await publisherOf(t, broker.url, { qos })
    await publish(publisher, 0, 5000)
    await publisher.drained(signal)
    await publisher.close()
    assert.equal(publisher.acknowledged, qos === 1 ? 5000 : 0)
    await until(() => subscriber.received.length >= 5000, 'all messages')
    assert.deepEqual(subscriber.payloads, numbers(0, 5000))
  })

test('what was not acknowledged is sent again, in order and marked, on the next connection', async (t) => {
  const broker = await brokerOf(t)
  const subscriber = await Subscriber.open(t, broker.url)
  const cut = await Cut.open(t, broker.url)
  const trouble: string[] = []
  const publisher = await publisherOf(t, cut.url, { onTrouble: (message) => trouble.push(message) })
  await publish(publisher, 0, 10)
  await publisher.drained(signal)
  // The broker hears these, and its acknowledgements are lost.
  cut.answers = false
  await publish(publisher, 10, 10)
  await until(() => subscriber.received.length === 20, 'the messages')
  assert.equal(publisher.acknowledged, 10)
  cut.answers = true
  cut.now()
  await publisher.drained(signal)
  await publish(publisher, 20, 10)
  await publisher.drained(signal)
  await until(() => subscriber.received.length === 40, 'the messages again')
  assert.deepEqual(subscriber.payloads, [...numbers(0, 20), ...numbers(10, 10), ...numbers(20, 10)])
  const again = cut.published.filter(({ dup }) => dup)
  assert.deepEqual(
    again.map(({ payload }) => payload.toString()),
    numbers(10, 10),
  )
  assert.deepEqual(
    again.map(({ messageId }) => messageId),
    cut.published.slice(10, 20).map(({ messageId }) => messageId),
  )
  assert.deepEqual([publisher.sent, publisher.acknowledged, publisher.resent], [30, 30, 10])
  assert.equal(trouble.length, 1)
  cut.now()
  await until(() => trouble.length === 2, 'the second loss is told too')
})

test('no more than a window of messages is ever in flight', async (t) => {
  const broker = await brokerOf(t)
  const cut = await Cut.open(t, broker.url)
  const publisher = await publisherOf(t, cut.url)
  cut.answers = false
  const publishing = publish(publisher, 0, 1500)
  await until(() => publisher.inFlight === 1000, 'a full window')
  assert.ok(publisher.room(signal))
  cut.answers = true
  cut.now()
  await publishing
  await publisher.drained(signal)
  assert.equal(publisher.acknowledged, 1500)
})

test('a publisher closes promptly while its broker is away', async (t) => {
  const broker = await brokerOf(t)
  const publisher = await publisherOf(t, broker.url)
  await broker.close()
  await publisher.close()
})

const refused: [string, Partial<PublisherOptions>, RegExp][] = [
  [
    'no broker',
    { url: 'mqtt://127.0.0.1:9', giveUpMs: 300 },
    /nothing listens there.*headgate broker/,
  ],
  ['an unknown scheme', { url: 'http://127.0.0.1' }, /--broker takes an address such as/],
  ['no address', { url: 'broker' }, /--broker takes an address such as/],
  ['no CA file', { url: 'mqtts://127.0.0.1', caFile: '/nowhere/ca.pem' }, /check --ca/],
]
for (const [what, options, message] of refused)
  test(`${what} is one line that says what to do`, async (t) => {
    await assert.rejects(publisherOf(t, 'mqtt://127.0.0.1:9', options), (error) => {
      assert.ok(error instanceof UserError)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /\n/)
      return true
    })
  })
