import { before } from 'node:test'
import { FileScope } from '../support/file-scope.ts'
import { openKafkaLog } from '../support/kafka/log.ts'
import { KafkaNode } from '../support/kafka/server.ts'
import { logEngineContract } from './log-engine.ts'

// All tests share a broker; each has a log of its own there.
const file = new FileScope()
let nodes: KafkaNode[] | undefined
let logs = 0

before(async () => {
  nodes = await KafkaNode.start(file)
})

logEngineContract('kafka, one broker, 2 partitions', async (t) => {
  if (!nodes) {
    t.skip(file.skipped)
    return undefined
  }
  const brokers = nodes.map(({ address }) => address)
  const name = `test${++logs}`
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
