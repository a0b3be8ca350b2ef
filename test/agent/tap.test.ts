import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tapLines } from '../../agent/tap.ts'
import { reading } from '../support/readings.ts'

const message = {
  topic: 'sensors/pump-1/count',
  payload: new Uint8Array(65_536),
  qos: 1,
  retained: false,
  duplicate: false,
  packetId: 1,
} as const
const arrival = { wallMs: 1_767_225_600_000, monotonicMs: 0 }

test('a tap shows values and times with all their digits', () => {
  const exact = { ...reading({ value: 18_446_744_073_709_551_615n }), timeNanos: 123_456 }
  const text = tapLines({ messages: [], readings: [exact], rejects: [] })
  assert.match(text, /"time":"2026-01-01T00:00:00\.000123456Z","value":18446744073709551615,/)
})

test('a tap shows why a message went into quarantine, and how large it was', () => {
  const oversize = { size: 307_200, sha256: new Uint8Array(32) }
  const { topic, payload } = message
  const rejected = {
    topic,
    payload,
    size: 307_200,
    sha256: undefined,
    reason: 'too large',
    arrival,
  }
  const text = tapLines({ messages: [{ ...message, oversize }], readings: [], rejects: [rejected] })
  assert.deepEqual(
    text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [
      { message: topic, bytes: 307_200, qos: 1 },
      { quarantined: topic, reason: 'too large' },
    ],
  )
})
