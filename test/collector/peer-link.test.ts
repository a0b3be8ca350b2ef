import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { AppendAnswer } from '../../collector/log/engine.ts'
import { elsewhere, type PeerHandlers } from '../../collector/log/kafka/peers.ts'
import { openPeers, type PeerOptions } from '../../collector/peer-link.ts'
import { WireFailure } from '../../shared/batch.ts'
import { chainStart } from '../../shared/chain.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { entryOf } from '../contract/log-engine.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { ManualClock } from '../support/manual-clock.ts'

async function peersOf(
  t: TestContext,
  handlers: Partial<PeerHandlers> = {},
  more: Partial<PeerOptions> = {},
) {
  const peers = await openPeers(
    {
      host: '127.0.0.1',
      port: 0,
      maxBodyBytes: 10_000,
      clock: systemClock,
      random: systemRandom,
      ...more,
    },
    {
      append: async () => elsewhere,
      held: async () => elsewhere,
      notes: async () => elsewhere,
      ...handlers,
    },
  )
  t.after(() => peers.close())
  return peers
}

test('what the owner of a bucket answers comes back as it said it', async (t) => {
  const held = { held: 7, chain: { high: 1, low: 2 } }
  const answers: AppendAnswer[] = [
    { code: 'accepted', alarms: ['clone'], ...held },
    { code: 'hole', incarnation: incarnation(3), lane: 'urgent', held: 0, chain: chainStart },
  ]
  const bodies: Uint8Array[] = []
  const owner = await peersOf(t, {
    append: async (body) => {
      bodies.push(new Uint8Array(body))
      return answers[bodies.length - 1] ?? elsewhere
    },
    held: async (agent, id, lane) =>
      agent === 'gw-1' && id[0] === incarnation(1)[0] && lane === 'bulk' ? held : elsewhere,
  })
  const other = await peersOf(t)
  const entry = entryOf(new TestAgent().readings(3))
  for (const answer of answers) assert.deepEqual(await other.append(owner.about, entry), answer)
  assert.equal(await other.append(owner.about, entry), elsewhere)
  assert.deepEqual(bodies[0], new Uint8Array(entry.body))
  assert.deepEqual(await other.held(owner.about, 'gw-1', incarnation(1), 'bulk'), held)
  assert.equal(await other.held(owner.about, 'gw-2', incarnation(1), 'bulk'), elsewhere)
})

test('a note is asked for where it is, and comes back as it is', async (t) => {
  const asked: unknown[] = []
  const owner = await peersOf(t, {
    notes: async (request) => {
      asked.push(request)
      return { text: 'µ', revision: 3 }
    },
  })
  const other = await peersOf(t)
  const request = { call: 'write', name: 'sinks/a', text: '{}', expected: 2, id: 'x' } as const
  assert.deepEqual(await other.notes(owner.about, request), { text: 'µ', revision: 3 })
  assert.equal(await owner.notes(other.about, request), elsewhere)
  assert.deepEqual(asked, [request])
})

test('a batch that the owner refuses is refused here with its code', async (t) => {
  const owner = await peersOf(t, {
    append: async () => {
      throw new WireFailure('WIRE_INVALID', 'no batch')
    },
  })
  const other = await peersOf(t)
  const entry = entryOf(new TestAgent().readings(3))
  await assert.rejects(other.append(owner.about, entry), { code: 'WIRE_INVALID' })
  const large = { ...entry, body: new Uint8Array(20_000) }
  await assert.rejects(other.append(owner.about, large), { code: 'WIRE_TOO_LARGE' })
})

test('who does not know the token, or meets another certificate, gets nothing', async (t) => {
  let asked = 0
  const owner = await peersOf(t, {
    append: async () => {
      asked += 1
      return elsewhere
    },
  })
  const other = await peersOf(t)
  const entry = entryOf(new TestAgent().readings(3))
  for (const token of ['', owner.about.token.slice(1), other.about.token])
    await assert.rejects(other.append({ ...owner.about, token }, entry), /the other collectors/)
  const { certificate } = other.about
  await assert.rejects(other.append({ ...owner.about, certificate }, entry), /self-signed|verif/)
  assert.equal(asked, 0)
})

test('an owner is waited for as long as it says that it is at it, and no longer', async (t) => {
  const answer: AppendAnswer = { code: 'duplicate', held: 7, chain: chainStart }
  const takesLong = Promise.withResolvers<AppendAnswer>()
  const handlers = { append: () => takesLong.promise }
  const busy = await peersOf(t, handlers)
  // Time stands still there: it is as if it were cut off.
  const silent = await peersOf(t, handlers, { clock: new ManualClock() })
  const other = await peersOf(t, {}, { silenceMs: 2_000 })
  const entry = entryOf(new TestAgent().readings(3))
  const waiting = other.append(busy.about, entry)
  await assert.rejects(other.append(silent.about, entry), /Timeout/)
  takesLong.resolve(answer)
  assert.deepEqual(await waiting, answer)
})
