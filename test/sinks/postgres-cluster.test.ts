import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { LogEngine } from '../../collector/log/engine.ts'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { entryOf } from '../contract/log-engine.ts'
import { Balancer } from '../support/balancer.ts'
import { TestAgent } from '../support/batches.ts'
import { chooseSeed } from '../support/effort.ts'
import { FileScope } from '../support/file-scope.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { NatsNode } from '../support/nats/server.ts'
import { Cloud } from '../support/plant.ts'
import { poll } from '../support/poll.ts'
import { Postgres } from '../support/postgres.ts'
import { Seeded } from '../support/seeded.ts'
import { Senders } from '../support/senders.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const scope = new FileScope()
const server = await Postgres.start(scope)

/** A log in a cluster, in two partitions. */
interface Place {
  /** Section `log` of a collector. */
  section: object
  open(): Promise<LogEngine>
}

/** @param placeOf undefined where it cannot be had and the test was skipped */
async function ofTwoCollectors(
  t: TestContext,
  database: string,
  placeOf: (t: TestContext) => Promise<Place | undefined>,
): Promise<void> {
  if (!server) return t.skip(scope.skipped)
  const place = await placeOf(t)
  if (!place) return
  const seed = chooseSeed()
  t.diagnostic(`HEADGATE_SEED=${seed}`)
  const random = new Seeded(seed)
  const url = await server.database(database)
  const directory = await temporaryDirectory(t)
  const written = async () => {
    const [row] = await server.query(
      `SELECT count(*)::int AS rows, count(DISTINCT (agent, incarnation, sequence))::int AS readings,
         coalesce(bool_and(value = sequence), true) AS right FROM headgate.readings`,
      url,
    )
    return row as { rows: number; readings: number; right: boolean }
  }

  const early = 2_000
  {
    await using log = await place.open()
    const agent = new TestAgent({ name: 'early' })
    for (let sent = 0; sent < early; sent += 100)
      assert.equal((await log.append(entryOf(agent.readings(100)))).code, 'accepted')
  }

  // Small transactions, so that the kill falls into one.
  const sink = {
    name: 'history',
    retry: { base: '50ms', max: '1s' },
    postgres: { url, rows: 200, wait: '5ms' },
  }
  const more = { log: place.section, sinks: [sink] }
  const clouds = [
    await Cloud.make(t, { directory: join(directory, 'a'), more }),
    await Cloud.make(t, { directory: join(directory, 'b'), more }),
  ]
  for (const cloud of clouds) await cloud.start()
  await poll(
    // There is no table before the first of them is there.
    async () => ((await written().catch(() => undefined))?.rows ?? 0) >= early,
    'history is there',
    60_000,
  )
  const balancer = await Balancer.open(
    t,
    clouds.map(({ port }) => ({ host: '127.0.0.1', port })),
  )
  const senders = new Senders(random, 6, () => balancer.url)
  await senders.progress(20)
  for (const cloud of clouds) {
    await cloud.kill()
    const { rows } = await written()
    await senders.progress(20)
    // One transaction of the killed one may be committed yet.
    const isOn = async () => (await written()).rows > rows + sink.postgres.rows
    await poll(isOn, 'the other one writes', 60_000)
    await cloud.start()
  }
  await senders.stop()
  const all = early + senders.readings
  await poll(async () => (await written()).rows >= all, 'all is there', 60_000)
  for (const cloud of clouds) await cloud.stop()
  // A row that is there already is replaced, which the server counts, some time behind the commit.
  const counted = async () => {
    const [row] = await server.query(
      `SELECT sum(n_tup_ins)::int AS inserted, sum(n_tup_del)::int AS replaced
       FROM pg_stat_user_tables WHERE schemaname = 'headgate' AND relname LIKE 'readings%'`,
      url,
    )
    return row as { inserted: number; replaced: number }
  }
  await poll(async () => (await counted()).inserted >= all, 'the server has counted', 60_000)
  assert.equal((await counted()).replaced, 0)
  t.diagnostic(`${all} readings`)
  assert.deepEqual(await written(), { rows: all, readings: all, right: true })
}

test('two collectors of one NATS log write history and what comes to PostgreSQL once, killed in turn', (t) =>
  ofTwoCollectors(t, 'nats_log', async (t) => {
    const nodes = await NatsNode.start(t)
    if (!nodes) return undefined
    const nats = { servers: [nodes[0]!.url], name: 'headgate', replicas: 1 }
    const world = { clock: systemClock, random: systemRandom, logger: silentLog }
    const retention = { bytes: undefined, ageMs: undefined }
    return {
      section: { engine: 'nats', partitions: 2, nats },
      open: () => NatsLog.open({ ...world, ...nats, partitions: 2, retention }),
    }
  }))

test('two collectors of one Kafka log write history and what comes to PostgreSQL once, killed in turn', (t) =>
  ofTwoCollectors(t, 'kafka_log', async (t) => {
    const nodes = await KafkaNode.start(t)
    if (!nodes) return undefined
    const brokers = nodes.map(({ address }) => address)
    return {
      section: { engine: 'kafka', partitions: 2, kafka: { brokers, replicas: 1 } },
      open: () => openKafkaLog(brokers, { partitions: 2 }),
    }
  }))
