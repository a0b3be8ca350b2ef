import { before } from 'node:test'
import { NatsLog } from '../../collector/log/nats/nats.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { FileScope } from '../support/file-scope.ts'
import { NatsNode } from '../support/nats/server.ts'
import { silentLog } from '../support/silent-log.ts'
import { logEngineContract } from './log-engine.ts'

const kinds = {
  'one server': { nodes: 1, partitions: 1 },
  'three servers, 2 partitions': { nodes: 3, partitions: 2 },
}
// The tests of a kind share its servers; each has a log of its own there.
let logs = 0

for (const [name, { nodes, partitions }] of Object.entries(kinds)) {
  const file = new FileScope()
  let servers: NatsNode[] | undefined
  before(async () => {
    servers = await NatsNode.start(file, { nodes })
  })
  logEngineContract(`nats, ${name}`, async (t) => {
    if (!servers) {
      t.skip(file.skipped)
      return undefined
    }
    const urls = servers.map(({ url }) => url)
    logs += 1
    const log = `test${logs}`
    return {
      shared: true,
      open: ({ retentionBytes } = {}) =>
        NatsLog.open({
          servers: urls,
          name: log,
          partitions,
          replicas: nodes,
          clock: systemClock,
          random: systemRandom,
          logger: silentLog,
          retention: { bytes: retentionBytes && retentionBytes * partitions, ageMs: undefined },
        }),
    }
  })
}
