import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import { TestAgent } from '../support/batches.ts'
import { clusterEngines, runnerOf, sinksOf, startCluster } from '../support/cluster.ts'
import { send } from '../support/collector.ts'
import { duckdb } from '../support/duckdb/duckdb.ts'
import { effort } from '../support/effort.ts'
import { HttpReceiver } from '../support/http-receiver.ts'
import type { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const kills = effort('HEADGATE_TAKEOVERS', { quick: 1, inCi: 2, inFull: 30 })
/** A batch is a request, and so a slice: no more than the last one comes again. */
const batchReadings = 10

interface Row {
  agent: string
  sequence: number
  log_partition: number
  log_offset: number
}

const recordsIn = (body: string) => (JSON.parse(body) as { data: { records: Row[] } }).data.records

for (const engine of Object.keys(clusterEngines))
  test(`${engine}: of two collectors one runs each sink, and over ${kills} kills each reading is in Parquet once, and with a webhook in order, repeats known for what they are`, async (t) => {
    const query = await duckdb(t)
    if (!query) return
    const directory = await temporaryDirectory(t)
    const lake = join(directory, 'lake')
    const secretFile = join(directory, 'secret')
    await writeFile(secretFile, `whsec_${Buffer.alloc(32, 1).toString('base64')}\n`)
    const receiver = await HttpReceiver.start(t)
    const cluster = await startCluster(t, engine, {
      sinks: [
        {
          name: 'hook',
          webhook: { url: receiver.url, secretFile, maxRecords: batchReadings, maxAge: '5ms' },
        },
        { name: 'lake', parquet: { folder: lake, bytes: '4KiB', every: '1s' } },
      ],
    })
    if (!cluster) return
    const { clouds, url } = cluster
    const agents = Array.from({ length: 6 }, (_, i) => new TestAgent({ name: `gw-${i}` }))
    let readings = 0
    const sendSome = async () => {
      for (const agent of agents) {
        assert.equal((await send(url, agent.readings(batchReadings))).status, 200)
        readings += batchReadings
      }
    }
    const sendMore = async () => {
      for (let i = 0; i < 5; i++) await sendSome()
    }
    for (let kill = 0; kill < kills; kill++) {
      const victim = await runnerOf(clouds, kill % 2 === 0 ? 'hook' : 'lake')
      const others = clouds.filter((cloud) => cloud !== victim)
      const before = receiver.received.length
      await sendMore()
      // In the middle of what was sent.
      await poll(async () => receiver.received.length > before + 3, 'some of it is received')
      await victim.kill()
      await sendSome()
      for (const sink of ['hook', 'lake']) await runnerOf(others, sink)
      await victim.start()
    }
    const counts = new Map<unknown, number>()
    await poll(
      async () => {
        const counted = `SELECT count(*) AS rows FROM read_parquet('${lake}/**/*.parquet')`
        const [found] = await query(counted).catch(() => [])
        for (const { headers, body } of receiver.received)
          counts.set(headers['webhook-id'], recordsIn(body).length)
        const hooked = [...counts.values()].reduce((sum, count) => sum + count, 0)
        return hooked >= readings && Number(found?.rows) >= readings
      },
      'the outputs have all',
      60_000,
    )
    const agree = async () => {
      const [a, b] = await Promise.all(clouds.map(sinksOf))
      return a!.every(({ positions }, sink) => positions.join() === b![sink]!.positions.join())
    }
    await poll(agree, 'each collector knows how far the sinks are')

    const bodies = new Map<unknown, string>()
    const next = new Map<number, number>()
    let rows = 0
    for (const { headers, body } of receiver.received) {
      const records = recordsIn(body)
      const [{ log_partition: partition, log_offset: offset }] = records as [Row]
      const known = bodies.get(headers['webhook-id'])
      assert.ok(known === undefined || known === body, 'one id is of one body')
      if (known === undefined) {
        assert.ok(offset >= (next.get(partition) ?? 0), `${partition}/${offset} came before`)
        next.set(partition, records.at(-1)!.log_offset + 1)
        rows += records.length
      } else
        assert.equal(records.at(-1)!.log_offset + 1, next.get(partition), 'only the last again')
      bodies.set(headers['webhook-id'], body)
    }
    t.diagnostic(`${readings} readings, ${receiver.received.length - bodies.size} requests again`)
    assert.equal(rows, readings)
    const [found] = await query(
      `SELECT count(*) AS rows, count(DISTINCT (agent, sequence)) AS readings
       FROM read_parquet('${lake}/**/*.parquet')`,
    )
    assert.deepEqual(found, { rows: readings, readings })

    // Whichever collector is told: it holds for the one that runs the sink.
    const running = await runnerOf(clouds, 'hook')
    const other = clouds.find((cloud) => cloud !== running)!
    const tell = async (cloud: Cloud, what: string) => {
      const headers = { 'content-type': 'application/json' }
      const request = { method: 'POST', headers, body: '{}' }
      const answer = await fetch(`${cloud.url}/v1/sinks/hook/${what}`, request)
      assert.equal(answer.status, 200)
    }
    const all = async (is: (sink: SinkStatus) => boolean) =>
      (await Promise.all(clouds.map(sinksOf))).every(([hook]) => is(hook!))
    await tell(other, 'pause')
    await poll(() => all(({ phase }) => phase === 'paused'), 'it is paused everywhere')
    await tell(other, 'backfill')
    await tell(running, 'resume')
    await poll(() => all(({ again }) => again === undefined), 'all was written again')
    const ids = new Set(receiver.received.map(({ headers }) => headers['webhook-id']))
    const twice = receiver.received.filter(({ headers }) => ids.delete(headers['webhook-id']))
    const written = twice.reduce((sum, { body }) => sum + recordsIn(body).length, 0)
    assert.equal(written, 2 * readings)
  })
