import assert from 'node:assert/strict'
import { test } from 'node:test'
import { verifyLog } from '../../collector/log/embedded/verify.ts'
import { entryOf, readAll } from '../contract/log-engine.ts'
import { TestAgent } from '../support/batches.ts'
import { cleanUp } from '../support/clean-up.ts'
import { send, startCollector } from '../support/collector.ts'
import { openLog } from '../support/embedded-log.ts'
import { events } from '../support/events.ts'
import { MemoryDisk } from '../support/memory-disk.ts'

const names = Array.from({ length: 20 }, (_, i) => `gw-${i}`)

test('agents stay in their partition when the number of partitions changes', async () => {
  const disk = new MemoryDisk()
  const agents = names.map((name) => new TestAgent({ name }))
  const late = new TestAgent({ name: 'gw-late' })
  for (const partitions of [1, 4, 2]) {
    await using log = await openLog(disk, { partitions })
    for (const agent of partitions === 1 ? agents : [...agents, late]) {
      const batch = entryOf(agent.readings(2))
      assert.equal((await log.append(batch)).code, 'accepted')
      assert.equal((await log.append(batch)).code, 'duplicate')
    }
  }
  await using log = await openLog(disk)
  assert.equal(log.partitions, 4) // What is there stays.
  const homes = new Map<string, Set<number>>()
  for (const item of await readAll(log, { stream: 'readings' })) {
    assert.equal(item.type, 'batch')
    if (item.type === 'batch')
      homes.set(item.agent, (homes.get(item.agent) ?? new Set()).add(item.partition))
  }
  assert.equal(homes.size, 21)
  for (const [name, home] of homes) assert.equal(home.size, 1, name)
  assert.deepEqual(await log.statistics().then(({ readings }) => readings.records), 20 * 6 + 4)
  const { problems, records } = await verifyLog(disk)
  assert.deepEqual([problems, records.readings], [[], 124])
})

test('readers get all partitions, and a tail goes on in each where it ended', async (t) => {
  const { url, log } = await startCollector(t, { rest: 'log: { partitions: 3 }' })
  const agents = names.map((name) => new TestAgent({ name }))
  for (const agent of agents) await send(url, agent.readings(2))
  const path = `${url}/v1/streams/readings`

  const all = (await (await fetch(`${path}/records?format=ndjson`)).text()).trimEnd().split('\n')
  assert.equal(all.length, 40)
  const { next } = (await log.statistics(1)).readings
  const one = await (await fetch(`${path}/records?partition=1&from=1`)).text()
  assert.equal(one.trimEnd().split('\n').length, next - 1)
  const unclear = await fetch(`${path}/records?from=1`)
  assert.deepEqual([unclear.status, /name the one/.test(await unclear.text())], [400, true])
  assert.equal((await fetch(`${path}/records?partition=3`)).status, 400)

  const stop = new AbortController()
  cleanUp(t, () => stop.abort())
  const seen: string[] = []
  let id = ''
  const take = async (count: number, headers: Record<string, string>, query = '') => {
    const tail = events(`${path}/tail${query}`, headers, stop.signal)
    while (seen.length < count) {
      const event = (await tail.next()).value!
      id = /^id: (\S+)/.exec(event)![1]!
      const { agent, sequence } = JSON.parse(/data: (.*)/.exec(event)![1]!)
      seen.push(`${agent} ${sequence}`)
    }
  }
  await take(13, {}, '?from=0,0,0')
  await take(30, { 'last-event-id': id })
  for (const agent of agents) await send(url, agent.readings(1))
  await take(60, { 'last-event-id': id })
  assert.equal(new Set(seen).size, 60)
})
