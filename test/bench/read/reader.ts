// Reads a collector's stream of readings to its end: `node reader.ts <url> decoded|passed`, every batch decoded into
// readings or taken as it came. Prints `{"seconds": …, "readings": …, "cpuSeconds": …}`.

import { readingsOf } from '../../../shared/batch.ts'
import { LogClient } from '../../../shared/client.ts'

const [url = '', how = 'decoded'] = process.argv.slice(2)
const client = new LogClient({ url })
const query = { stream: 'readings', from: { offset: 0 } } as const
let readings = 0
let sum = 0
await client.partitions() // Connected before the clock starts.
const startedMs = performance.now()
const cpu = process.cpuUsage()
if (how === 'decoded')
  for await (const batch of client.batches(query)) {
    if (batch.type !== 'batch') throw new Error('the log is damaged')
    for (const item of batch.items)
      for (const { value } of readingsOf(item)) {
        readings += 1
        if (typeof value === 'number') sum += value
      }
  }
else
  for await (const passage of client.passages(query))
    if (passage.type === 'batch') readings += passage.count
const seconds = (performance.now() - startedMs) / 1e3
const { user, system } = process.cpuUsage(cpu)
process.stdout.write(
  `${JSON.stringify({ seconds, readings, sum, cpuSeconds: (user + system) / 1e6 })}\n`,
)
process.exit()
