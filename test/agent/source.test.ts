import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FakeBroker } from '../support/fake-broker.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { SourceLife, text } from '../support/source.ts'

/** A source on its first connection, in a new session, subscribed. */
async function subscribed(options: Parameters<typeof SourceLife.begin>[0] = {}) {
  const dialer = new FakeBroker()
  const life = await SourceLife.begin({ dialer, ...options })
  const connection = await dialer.accept()
  await life.turn() // The new session's name.
  await connection.subscribed()
  await life.turn() // That it is subscribed.
  return { dialer, life, connection }
}

test('a group is acknowledged in order, in one write, once it is committed', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 }, { id: 2 }, { qos: 0, payload: 'zero' }, { id: 3 })
  const group = await life.take()
  assert.deepEqual(
    group.messages.map(({ payload }) => text(payload)),
    ['1', '2', 'zero', '3'],
  )
  assert.deepEqual(connection.acknowledged, [])
  life.source.acknowledge(group)
  assert.deepEqual(connection.acknowledged, [1, 2, 3])
  await life.source.close()
})

test('what arrives during a commit is the next group', async () => {
  const { life, connection } = await subscribed()
  connection.publish({ id: 1 })
  const first = await life.take()
  connection.publish({ id: 2 })
  connection.publish({ id: 3 })
  life.source.acknowledge(first)
  const second = await life.take()
  assert.deepEqual(
    second.messages.map(({ packetId }) => packetId),
    [2, 3],
  )
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
  assert.deepEqual(
    subscriptions.map(({ topic, qos }) => [topic, qos]),
    [['sensors/#', 1]],
  )
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
  life.source.acknowledge(group)
  assert.deepEqual(connection.acknowledged, [])
  assert.deepEqual(again.acknowledged, [])
  await life.source.close()
})
