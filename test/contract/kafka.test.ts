import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { before, type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { Authority } from '../../collector/fleet/authority.ts'
import type { TopicWish } from '../../collector/log/kafka/cluster.ts'
import type { KafkaLog } from '../../collector/log/kafka/kafka.ts'
import { PlatformaticCluster } from '../../collector/log/kafka/platformatic.ts'
import { moved } from '../../collector/log/notes.ts'
import { systemClock } from '../../shared/system.ts'
import { incarnation, TestAgent } from '../support/batches.ts'
import { FileScope } from '../support/file-scope.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { needs } from '../support/needs.ts'
import { reading } from '../support/readings.ts'
import { silentLog } from '../support/silent-log.ts'
import { entryOf, logEngineContract } from './log-engine.ts'

// All tests share a broker; each has a log of its own there.
const file = new FileScope()
let nodes: KafkaNode[] | undefined
let logs = 0

before(async () => {
  nodes = await KafkaNode.start(file)
})

/** @returns undefined where there is no broker and the test was skipped */
function place(t: TestContext): { brokers: string[]; name: string } | undefined {
  if (nodes) return { brokers: nodes.map(({ address }) => address), name: `test${++logs}` }
  t.skip(file.skipped)
  return undefined
}

logEngineContract('kafka, one broker, 2 partitions', async (t) => {
  const at = place(t)
  if (!at) return undefined
  const { brokers, name } = at
  return {
    shared: true,
    open: ({ retentionBytes } = {}) =>
      openKafkaLog(brokers, {
        name,
        partitions: 2,
        retention: { bytes: retentionBytes && retentionBytes * 2, ageMs: undefined },
      }),
  }
})

/** A log that believes that all is its own, as one that was asleep while its group went on. */
async function openAlone(at: { brokers: string[]; name: string }): Promise<KafkaLog> {
  const world = { clock: systemClock, logger: silentLog }
  const cluster = await PlatformaticCluster.open({ ...world, brokers: at.brokers })
  cluster.join = async ({ assigned }) => {
    assigned([0])
    return { leave: async () => {} }
  }
  return openKafkaLog(at.brokers, { name: at.name }, cluster)
}

test('a collector that another has taken over from tells no agent what was true before', async (t) => {
  const at = place(t)
  if (!at) return
  const agent = new TestAgent()
  await using former = await openAlone(at)
  await former.append(entryOf(agent.readings(5)))
  await using present = await openKafkaLog(at.brokers, { name: at.name })
  await present.append(entryOf(agent.readings(5)))

  // By what the former knows there is a hole before this one.
  const next = entryOf(agent.readings(5))
  await assert.rejects(former.append(next), { code: 'LOG_DISK' })
  // It looks who has the bucket, and passes it on.
  const answer = await former.append(next)
  assert.deepEqual([answer.code, answer.held], ['accepted', 15])
  // It has not taken it back.
  assert.equal((await present.append(entryOf(agent.readings(5)))).code, 'accepted')
})

test('of collectors that both believe that the notes are theirs one writes', async (t) => {
  const at = place(t)
  if (!at) return
  await using former = await openAlone(at)
  const first = await former.notes.write('sinks/a', 'first', 0)
  await using present = await openKafkaLog(at.brokers, { name: at.name })
  const read = await present.notes.read('sinks/a')
  assert.deepEqual(read, { text: 'first', revision: first })
  const second = await present.notes.write('sinks/a', 'second', read.revision)

  await assert.rejects(former.notes.write('sinks/a', 'late', read.revision), { code: 'LOG_DISK' })
  // It looks who has them, and asks that one.
  assert.equal(await former.notes.write('sinks/a', 'late', read.revision), moved)
  assert.deepEqual(await former.notes.read('sinks/a'), { text: 'second', revision: second })
})

test('what waited on a gateway for long is not removed for its own time', async (t) => {
  const at = place(t)
  if (!at) return
  const world = { clock: systemClock, logger: silentLog }
  const cluster = await PlatformaticCluster.open({ ...world, brokers: at.brokers })
  const make = cluster.ensureTopics.bind(cluster)
  const wished = new Map<string, TopicWish['settings']>()
  cluster.ensureTopics = (wishes) => {
    for (const { name, settings } of wishes) wished.set(name, settings)
    return make(wishes)
  }
  const log = await openKafkaLog(at.brokers, { name: at.name }, cluster)
  await log.close()
  assert.equal(wished.get(`${at.name}.readings`)?.['retention.ms'], '-1')
})

test('what was given up is not read, however often it was tried', async (t) => {
  const at = place(t)
  if (!at) return
  const world = { clock: systemClock, logger: silentLog }
  const cluster = await PlatformaticCluster.open({ ...world, brokers: at.brokers })
  t.after(() => cluster.close())
  const topic = { topic: at.name, partition: 0 }
  await cluster.ensureTopics([{ name: at.name, partitions: 1, replicas: 1, settings: {} }])
  const record = (key: string) => ({ ...topic, key, value: new Uint8Array(300_000), timeMs: 0 })
  for (let i = 0; i < 5; i++) {
    const writer = await cluster.writer(at.name)
    await writer.commit([topic], [record(`kept ${i}`)])
    const dies = function* () {
      yield record('lost')
      yield record('lost') // The first two are sent before the third is asked for.
      yield record('lost')
      throw new Error('killed')
    }
    await assert.rejects(writer.commit([topic], dies()), { code: 'LOG_DISK' })
    writer.close()
  }
  const last = await cluster.writer(at.name)
  await last.commit([topic], [record('kept 5')])
  last.close()
  const { next } = await cluster.ends(topic)
  assert.ok(next >= 16, `only ${next} offsets were used: nothing was given up`)
  const keys: string[] = []
  for await (const { records } of cluster.read(topic, { fromOffset: 0, toOffset: next }))
    keys.push(...records.map(({ key }) => key))
  assert.deepEqual(keys, ['kept 0', 'kept 1', 'kept 2', 'kept 3', 'kept 4', 'kept 5'])
})

test('brokers are reached over TLS with a password, and no other certificate or password will do', async (t) => {
  const at = place(t)
  if (!at) return
  const { address, ca, username, password } = nodes![0]!.secure
  const world = { clock: systemClock, logger: silentLog, brokers: [address] }
  const sasl = { mechanism: 'PLAIN', username, password } as const
  {
    const cluster = await PlatformaticCluster.open({ ...world, ca, sasl })
    await using log = await openKafkaLog([], { name: at.name, replicas: 1 }, cluster)
    const batch = new TestAgent().readings(3)
    assert.equal((await log.append(entryOf(batch))).code, 'accepted')
    assert.equal((await log.statistics()).readings.records, 3)
  }
  const other = (await Authority.create('authority', systemClock.wallMs())).authority.certificatePem
  for (const wrong of [
    { ca: other, sasl },
    { ca, sasl: { ...sasl, password: 'guess' } },
  ])
    await assert.rejects(PlatformaticCluster.open({ ...world, ...wrong, patienceMs: 500 }), {
      code: 'LOG_DISK',
    })
})

test('kcat reads each reading as a CloudEvent of its device, and batches as received', async (t) => {
  const at = place(t)
  const kcat = at && needs(t, 'kcat')
  if (!at || !kcat) return
  const batch = new TestAgent().batch([
    {
      kind: 'readings',
      readings: [
        reading({ timeMs: 1_767_225_600_123, value: 21.5 }),
        reading({ timeMs: 1_767_225_601_000, value: 2n ** 60n, quality: 8 }),
      ],
    },
  ])
  const entry = entryOf(batch)
  {
    await using log = await openKafkaLog(at.brokers, { name: at.name })
    await log.append(entry)
    await log.append(entry) // A repeat.
  }
  const consume = async (topic: string, format: string) => {
    const args = ['-b', at.brokers[0]!, '-C', '-t', `${at.name}.${topic}`, '-e', '-q', '-f', format]
    const options = { encoding: 'buffer', maxBuffer: 2 ** 24 } as const
    return (await promisify(execFile)(kcat, args, options)).stdout
  }
  const lines = String(await consume('readings', '%k|%T|%h|%s\n'))
    .trimEnd()
    .split('\n')
  const found = lines.map((line) => {
    const [key, time, headers, value] = line.split('|')
    return { key, time, headers: headers!.split(','), value }
  })
  const { device, metric } = reading().series
  const id = Buffer.from(incarnation(1)).toString('hex')
  assert.equal(found.length, 2)
  assert.deepEqual([found[0]!.key, found[0]!.time], [device, '1767225600123'])
  assert.deepEqual(JSON.parse(found[0]!.value!), {
    device,
    metric,
    time: '2026-01-01T00:00:00.123Z',
    value: 21.5,
    quality: 'good',
    ...(reading().series.unit && { unit: reading().series.unit }),
  })
  for (const header of [
    'ce_specversion=1.0',
    'ce_type=headgate.reading',
    'ce_source=/headgate/gw-001',
    `ce_id=${id}/bulk/1`,
    'ce_time=2026-01-01T00:00:00.123Z',
    'content-type=application/json',
    'agent=gw-001',
    `incarnation=${id}`,
    'lane=bulk',
    'sequence=1',
    'quality=good',
  ])
    assert.ok(found[0]!.headers.includes(header), `${header} in ${found[0]!.headers}`)
  assert.match(found[1]!.value!, /"value":1152921504606846976,"quality":"outOfRange"/)
  assert.deepEqual(await consume('batches', '%s'), Buffer.from(entry.body))
})
