import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AedesPublishPacket, Client } from 'aedes'
import { SessionQueues } from '../../firmware-sim/session-queue.ts'

function publish(brokerCounter: number, messageId?: number): AedesPublishPacket {
  const packet = {
    cmd: 'publish',
    topic: 't',
    payload: Buffer.of(1),
    qos: 1,
    brokerId: 'b',
  } as const
  return { ...packet, brokerCounter, messageId: messageId!, dup: false, retain: false }
}

const connection = () => ({ id: 'gw', clean: false, closed: false }) as Client

test('a packet id is not given to another message before it is acknowledged', async () => {
  const queues = new SessionQueues({ maxMessages: 100, maxBytes: 1e6 }, () => {})
  for (const counter of [1, 2]) await queues.outgoingEnqueue({ clientId: 'gw' }, publish(counter))
  await queues.outgoingUpdate(connection(), publish(1, 65_535))
  // A new connection counts its packet ids afresh, and comes by one that is still owed.
  const second = publish(2, 65_535)
  const now = connection()
  await queues.outgoingUpdate(now, second)
  assert.equal(second.messageId, 1)
  await queues.outgoingClearMessageId(now, { messageId: 1 })
  assert.equal(queues.size, 1)
  const again = publish(1, 7)
  await queues.outgoingUpdate(now, again)
  assert.deepEqual([again.messageId, again.dup], [65_535, true])
  await queues.outgoingClearMessageId(now, { messageId: 65_535 })
  assert.equal(queues.size, 0)
})

test('a session that ends is owed nothing any more', async () => {
  const queues = new SessionQueues({ maxMessages: 100, maxBytes: 1e6 }, () => {})
  await queues.outgoingEnqueue({ clientId: 'gw' }, publish(1))
  await queues.cleanSubscriptions(connection())
  assert.equal(queues.size, 0)
})
