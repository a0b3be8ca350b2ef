import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AdmittedReading } from '../../shared/reading.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { send, startCollector } from '../support/collector.ts'
import { reading } from '../support/readings.ts'

/** A gateway that booted in 1970: its readings carry the time it took them for. */
function unset(atMs: number, value: number): AdmittedReading {
  return { ...reading({ timeMs: atMs, value }), arrival: { wallMs: atMs, monotonicMs: atMs + 5 } }
}

const trueMs = Date.UTC(2026, 10, 23)
const clock = (boot: number, offsetMs: number) =>
  ({
    type: 'clock',
    content: { boot: Buffer.from(incarnation(boot)).toString('hex'), offsetMs },
  }) as const

async function times(url: string): Promise<string[]> {
  const csv = await (await fetch(`${url}/v1/streams/readings/records?format=csv`)).text()
  const [head = '', ...rows] = csv.trim().split('\n')
  const [time, quality] = [head.split(',').indexOf('time'), head.split(',').indexOf('quality')]
  return rows.map((row) => `${row.split(',')[time]} ${row.split(',')[quality]}`)
}

test('readings from before the clock was set get their true time once the gateway tells, marked', async (t) => {
  const { url } = await startCollector(t)
  const bulk = new TestAgent()
  const urgent = new TestAgent({ lane: 'urgent' })
  await send(
    url,
    bulk.batch([{ kind: 'readings', readings: [unset(10_000, 1), unset(11_000, 2)] }]),
  )
  assert.deepEqual(await times(url), [
    '1970-01-01T00:00:10.000Z good',
    '1970-01-01T00:00:11.000Z good',
  ])

  // Boot 0xb0 is the one that the test agent names; another boot's record must not be taken for it.
  await send(url, urgent.batch([{ kind: 'records', records: [clock(0xcc, 1)] }]))
  await send(url, urgent.batch([{ kind: 'records', records: [clock(0xb0, trueMs)] }]))
  await send(
    url,
    bulk.batch([{ kind: 'readings', readings: [reading({ timeMs: trueMs + 60_000 })] }]),
  )
  assert.deepEqual(await times(url), [
    '2026-11-23T00:00:10.005Z clockRepaired',
    '2026-11-23T00:00:11.005Z clockRepaired',
    '2026-11-23T00:01:00.000Z good',
  ])
})

test("a sensor's own time is never touched", async (t) => {
  const { url } = await startCollector(t)
  const own = { ...reading({ timeMs: trueMs }), arrival: { wallMs: 10_000, monotonicMs: 10_000 } }
  await send(
    url,
    new TestAgent({ lane: 'urgent' }).batch([{ kind: 'records', records: [clock(0xb0, trueMs)] }]),
  )
  await send(url, new TestAgent().batch([{ kind: 'readings', readings: [own] }]))
  assert.deepEqual(await times(url), ['2026-11-23T00:00:00.000Z good'])
})
