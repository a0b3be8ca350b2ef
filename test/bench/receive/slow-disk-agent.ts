// The agent, whole, on a disk that can be slowed: `node slow-disk-agent.ts <agent.yaml>`. Told `slow <ms>` it
// has syncs take so much longer from then on; told `syncs` it prints `{"count": …, "ms": …}`: synced writes so
// far, and the time that they took, as the agent saw it.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { Agent } from '../../../agent/agent.ts'
import { loadAgentConfig } from '../../../agent/config.ts'
import { openLevel } from '../../../agent/outbox/level.ts'
import { openReserve } from '../../../agent/reserve.ts'
import { openDialer } from '../../../agent/source/dial.ts'
import { openHttpLink } from '../../../agent/uplink/http.ts'
import type { Store } from '../../../shared/ports.ts'
import { bootId, systemClock, systemRandom } from '../../../shared/system.ts'
import { silentLog } from '../../support/silent-log.ts'

const file = process.argv[2]
const config = await loadAgentConfig(file!)
await mkdir(join(config.data, 'outbox'), { recursive: true })
const syncs = { count: 0, ms: 0 }
let slowMs = 0
createInterface(process.stdin).on('line', (line) => {
  const [word, ms] = line.split(' ')
  if (word === 'slow') slowMs = Number(ms)
  else process.stdout.write(`${JSON.stringify(syncs)}\n`)
})
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const agent = new Agent(config, {
  clock: systemClock,
  random: systemRandom,
  boot: bootId(),
  openStore: async () => slow(await openLevel(join(config.data, 'outbox'))),
  openReserve: (bytes) => openReserve(join(config.data, 'reserve'), bytes),
  openDialer,
  openUplink: openHttpLink,
  log: silentLog,
})
await agent.run(stop.signal)
process.exit()

function slow(store: Store): Store {
  return {
    get: (key) => store.get(key),
    read: (range) => store.read(range),
    close: () => store.close(),
    async write(changes, options) {
      const startedMs = performance.now()
      await store.write(changes, options)
      if (!options.sync) return
      if (slowMs > 0) await pause(slowMs)
      syncs.ms += performance.now() - startedMs
      syncs.count += 1
    },
  }
}
