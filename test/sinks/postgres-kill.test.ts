import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { SinkStatus } from '../../collector/sinks/runner.ts'
import { chooseSeed, effort } from '../support/effort.ts'
import { FileScope } from '../support/file-scope.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Postgres } from '../support/postgres.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const scope = new FileScope()
const server = await Postgres.start(scope)
const kills = effort('HEADGATE_SINK_KILLS', { quick: 3, inCi: 5, inFull: 60 })

/** What the world does to a sink that is writing. */
type Fault = (cloud: Cloud, url: string, random: Seeded) => Promise<void>

async function oneOfEach(t: TestContext, database: string, fault: Fault): Promise<void> {
  if (!server) return t.skip(scope.skipped)
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const url = await server.database(database)
  const cloud = await Cloud.make(t, {
    directory: await temporaryDirectory(t),
    more: {
      log: { partitions: 2, segment: '64KiB' },
      // Small transactions, so that many are cut in the middle.
      sinks: [
        {
          name: 'history',
          retry: { base: '50ms', max: '1s' },
          postgres: { url, rows: 200, wait: '5ms' },
        },
      ],
    },
  })
  await cloud.start()
  const senders = new Senders(random, 6, () => cloud.url)
  for (let kill = 0; kill < kills; kill++) {
    await senders.progress(20 + random.below(40))
    await fault(cloud, url, random)
  }
  await senders.stop()
  const status = await poll(
    async () => {
      const answer = await fetch(`${cloud.url}/v1/sinks`)
      const { sinks } = (await answer.json()) as { sinks: SinkStatus[] }
      return sinks[0]!.behind === 0 && sinks[0]
    },
    'the sink has all that the log has',
    90_000,
  )
  const [row] = await server.query(
    `SELECT count(*)::int AS rows, count(DISTINCT (agent, incarnation, sequence))::int AS readings,
       bool_and(value = sequence) AS right FROM headgate.readings`,
    url,
  )
  t.diagnostic(`${senders.readings} readings; ${status.failures} failures since the last start`)
  assert.deepEqual(row, { rows: senders.readings, readings: senders.readings, right: true })
}

test(`a collector killed ${kills} times while its sink writes leaves each reading in PostgreSQL once`, (t) =>
  oneOfEach(t, 'collector_kills', async (cloud) => {
    await cloud.kill()
    await cloud.start()
  }))

test(`a PostgreSQL killed ${kills} times has each reading once`, (t) =>
  oneOfEach(t, 'server_kills', async () => {
    await server!.kill()
    await server!.launch()
  }))

test('a sink whose connection is cut over and over writes each reading once', (t) =>
  oneOfEach(t, 'cut_connections', async (_cloud, url, random) => {
    for (let cut = 0; cut < 3; cut++) {
      await poll(
        async () => {
          const rows = await server!.query(
            `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'headgate history' AND datname = current_database()
               AND (state = 'active' OR ${random.below(2)} = 1)`,
            url,
          )
          return rows.length > 0
        },
        'a connection to cut',
        60_000,
      )
    }
  }))
