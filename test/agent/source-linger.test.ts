import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Linger } from '../../agent/source/linger.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { subscribedLife } from '../support/source.ts'

test('a message waits for company from when it came, however long the commit before it took', () => {
  const linger = new Linger(10)
  assert.equal(linger.waitMs(1, 100, 103, 103), 7)
  assert.equal(linger.waitMs(1, 100, 112, 112), -2)
})

test('a thousand messages are company enough', () => {
  const linger = new Linger(10)
  assert.ok(linger.waitMs(999, 100, 100, 100) > 0)
  assert.ok(linger.waitMs(1_000, 100, 100, 100) <= 0)
})

test('with all that a broker lets be un-acknowledged at hand, nothing is waited for', () => {
  const linger = new Linger(10)
  linger.committed(20)
  assert.ok(linger.waitMs(20, 100, 100, 100) > 0, 'once may be chance')
  linger.committed(20)
  assert.ok(linger.waitMs(20, 100, 100, 100) <= 0)
  linger.committed(21)
  assert.ok(linger.waitMs(20, 100, 100, 100) > 0, 'it was none')
})

test('what a window has left waits for the rest of it, from the acknowledgement on', () => {
  const linger = new Linger(10)
  linger.committed(200)
  linger.committed(200)
  assert.equal(linger.waitMs(100, 90, 101, 103), 8)
})

test('another connection may be another broker', () => {
  const linger = new Linger(10)
  linger.committed(20)
  linger.committed(20)
  linger.reset()
  assert.ok(linger.waitMs(20, 100, 100, 100) > 0)
  linger.committed(20)
  assert.ok(linger.waitMs(20, 100, 100, 100) > 0)
})

test('on a slow disk, messages of one window come to be committed together', async () => {
  const clock = new ManualClock()
  const { life, connection } = await subscribedLife({ clock, config: { linger: '10ms' } })
  // The broker sends four ahead, and on when it has read an acknowledgement.
  const lead = 4
  let sent = 0
  const send = (upTo: number) => {
    while (sent < upTo) connection.publish({ id: ++sent })
  }
  send(1)
  const sizes: number[] = []
  for (let turn = 0; turn < 6; turn++) {
    const taking = life.take()
    await clock.advance(1)
    if (turn > 0) send(connection.acknowledged.length + lead)
    await clock.advance(10)
    const group = await taking
    send(lead) // The first group goes alone; the rest of the window comes during its commit,
    await clock.advance(30) // which takes long.
    life.commit(group)
    life.source.acknowledge(group)
    sizes.push(group.messages.length)
  }
  assert.deepEqual(sizes.slice(-3), [lead, lead, lead])
  await life.source.close()
})
