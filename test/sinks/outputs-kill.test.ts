import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import { duckdb } from '../support/duckdb/duckdb.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { HttpReceiver } from '../support/http-receiver.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const kills = effort('HEADGATE_SINK_KILLS', { quick: 3, inCi: 5, inFull: 60 })

interface Identity {
  agent: string
  incarnation: string
  sequence: number
}

test(`a collector killed ${kills} times leaves each reading in Parquet once, and repeats of a webhook can be told`, async (t) => {
  const query = await duckdb(t)
  if (!query) return
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const directory = await temporaryDirectory(t)
  const lake = join(directory, 'lake')
  const secretFile = join(directory, 'secret')
  await writeFile(secretFile, `whsec_${Buffer.alloc(32, 1).toString('base64')}\n`)
  const receiver = await HttpReceiver.start(t)
  // Now and then it has a request, and does not get to say so.
  receiver.answer = () => (random.below(20) === 0 ? undefined : { status: 200 })
  const cloud = await Cloud.make(t, {
    directory,
    more: {
      log: { partitions: 2, segment: '64KiB' },
      // Small cuts, so that many are broken off.
      sinks: [
        { name: 'lake', parquet: { folder: lake, bytes: '4KiB', every: '1s' } },
        { name: 'hook', webhook: { url: receiver.url, secretFile, maxAge: '5ms' } },
      ],
    },
  })
  await cloud.start()
  const senders = new Senders(random, 6, () => cloud.url)
  for (let kill = 0; kill < kills; kill++) {
    await senders.progress(20 + random.below(40))
    await cloud.kill()
    await cloud.start()
  }
  await senders.stop()
  await poll(
    async () => {
      const answer = await fetch(`${cloud.url}/v1/sinks`)
      const { sinks } = (await answer.json()) as { sinks: SinkStatus[] }
      return sinks.every(({ behind }) => behind === 0)
    },
    'the sinks have all that the log has',
    90_000,
  )
  const [row] = await query(
    `SELECT count(*) AS rows, count(DISTINCT (agent, incarnation, sequence)) AS readings,
       bool_and(value = sequence) AS right FROM read_parquet('${lake}/**/*.parquet')`,
  )
  assert.deepEqual(row, { rows: senders.readings, readings: senders.readings, right: true })

  const bodies = new Map<unknown, string>()
  for (const { headers, body } of receiver.received) {
    const known = bodies.get(headers['webhook-id'])
    assert.ok(known === undefined || known === body, 'one id is of one body')
    bodies.set(headers['webhook-id'], body)
  }
  const identities = [...bodies.values()].flatMap((body) =>
    (JSON.parse(body) as { data: { records: Identity[] } }).data.records.map(
      ({ agent, incarnation, sequence }) => `${agent}/${incarnation}/${sequence}`,
    ),
  )
  const repeats = receiver.received.length - bodies.size
  t.diagnostic(`${senders.readings} readings, ${bodies.size} requests, ${repeats} repeats`)
  assert.equal(identities.length, senders.readings)
  assert.equal(new Set(identities).size, senders.readings)
})
