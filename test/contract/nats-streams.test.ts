import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { jetstreamManager, type StreamConfig } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import { checkSync } from '../../collector/nats-monitoring.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { FileScope } from '../support/file-scope.ts'
import { NatsNode } from '../support/nats/server.ts'
import { silentLog } from '../support/silent-log.ts'

const file = new FileScope()
let node: NatsNode | undefined
before(async () => {
  ;[node] = (await NatsNode.start(file)) ?? []
})

function open(name: string, partitions = 1): Promise<NatsLog> {
  return NatsLog.open({
    servers: [node!.url],
    name,
    partitions,
    replicas: 1,
    clock: systemClock,
    random: systemRandom,
    logger: silentLog,
    retention: { bytes: undefined, ageMs: undefined },
  })
}

/** What somebody sets on a log's stream, with the server's own tools. */
const changes: [what: string, change: Partial<StreamConfig>, reason: RegExp][] = [
  ['an age', { max_age: 3_600_000_000_000 }, /has max_age, which forgets what is held: remove it/],
  ['a size', { max_bytes: 2 ** 30 }, /has max_bytes, which forgets/],
  ['a number of messages', { max_msgs: 1000 }, /has max_msgs, which forgets/],
  ['a number of messages a subject', { max_msgs_per_subject: 1 }, /max_msgs_per_subject, which/],
]
for (const [i, [what, change, reason]] of changes.entries())
  test(`a stream that keeps ${what} is refused, for it would forget what is held`, async (t) => {
    if (!node) return t.skip(file.skipped)
    const name = `limited${i}`
    await (await open(name)).close()
    await using connection = await connected()
    const { streams } = await jetstreamManager(connection)
    await streams.update(`${name}-0`, change)
    await assert.rejects(open(name), { code: 'LOG_REFUSED', message: reason })
    await streams.update(
      `${name}-0`,
      Object.fromEntries(Object.keys(change).map((key) => [key, key === 'max_age' ? 0 : -1])),
    )
    await (await open(name)).close()
  })

test('a stream of somebody else, in memory, or of another number of partitions is refused', async (t) => {
  if (!node) return t.skip(file.skipped)
  await using connection = await connected()
  const { streams } = await jetstreamManager(connection)
  await streams.add({ name: 'foreign-0', subjects: ['foreign.>'] })
  await assert.rejects(open('foreign'), {
    code: 'LOG_REFUSED',
    message: /is none of ours: set log/,
  })
  await streams.add({ name: 'memory-0', subjects: ['memory.>'], storage: 'memory' })
  await assert.rejects(open('memory'), { code: 'LOG_REFUSED', message: /is not kept in files/ })
  await (await open('two', 2)).close()
  await assert.rejects(open('two', 3), { code: 'LOG_REFUSED', message: /it has 2 partitions: set/ })
})

test('a server that does not sync what it acknowledges is refused, where its monitoring tells', async (t) => {
  if (!node) return t.skip(file.skipped)
  const [lazy] = (await NatsNode.start(t, { syncInterval: '2m' }))!
  const said: string[] = []
  const logger = { ...silentLog, warn: (...what: unknown[]) => said.push(JSON.stringify(what)) }
  await checkSync([node.monitoring], logger)
  assert.deepEqual(said, [])
  await assert.rejects(checkSync([node.monitoring, lazy!.monitoring], logger), {
    code: 'LOG_REFUSED',
    message: /does not sync what it acknowledges: set jetstream \{ sync_interval: always \}/,
  })
  await lazy!.kill()
  await checkSync([node.monitoring, lazy!.monitoring], logger)
  assert.match(said[0]!, /monitoring of a NATS server does not answer/)
  await checkSync([], logger)
  assert.match(said[1]!, /is not known: set log.nats.monitoring/)
})

async function connected() {
  const connection = await connect({ servers: [node!.url] })
  return Object.assign(connection, { [Symbol.asyncDispose]: () => connection.close() })
}
