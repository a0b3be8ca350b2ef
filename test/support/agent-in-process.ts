import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Agent, type AgentPorts } from '../../agent/agent.ts'
import { type AgentConfig, agentSchema, withTopics } from '../../agent/config.ts'
import { openLevel } from '../../agent/outbox/level.ts'
import { openDialer } from '../../agent/source/dial.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { cleanUp, type Test } from './clean-up.ts'
import { ModelCollector } from './model-collector.ts'
import { silentLog } from './silent-log.ts'
import { temporaryDirectory } from './temporary.ts'
import { until } from './until.ts'

type Sections = Record<string, unknown>

/** An agent.yaml for `sensors/<device>/<metric>`, with retries that a test need not wait for. */
export function agentConfig(data: string, broker: string, sections: Sections = {}): AgentConfig {
  const quick = { base: '50ms', max: '250ms' }
  const { source, uplink, ...more } = sections as { source?: Sections; uplink?: Sections }
  return withTopics(
    agentSchema.parse({
      agent: 'gw-001',
      data,
      source: { url: broker, retry: quick, ...source },
      decode: [{ topic: 'sensors/{device}/{metric}' }],
      uplink: { url: 'http://collector.test', retry: quick, batch: { maxAge: '0ms' }, ...uplink },
      ...more,
    }),
  )
}

/** The ports of an agent in this process: real store, real broker, a collector in memory. */
export async function agentPorts(
  t: Test,
  collectors: (url: string) => ModelCollector,
  data?: string,
): Promise<AgentPorts> {
  const directory = data ?? (await temporaryDirectory(t as never))
  await mkdir(join(directory, 'outbox'), { recursive: true })
  return {
    clock: systemClock,
    random: systemRandom,
    boot: new Uint8Array(16),
    openStore: () => openLevel(join(directory, 'outbox')),
    openReserve: () => ({ release: async () => {}, restore: async () => true }),
    openDialer,
    openUplink: ({ url }) => collectors(url),
    log: silentLog,
  }
}

/** An agent that runs in this process until the test ends, subscribed. */
export async function runAgent(t: Test, broker: string, sections: Sections = {}) {
  const collector = new ModelCollector()
  const data = await temporaryDirectory(t as never)
  const config = agentConfig(data, broker, sections)
  const agent = new Agent(config, await agentPorts(t, () => collector, data))
  const stop = new AbortController()
  const running = agent.run(stop.signal)
  cleanUp(t, async () => {
    stop.abort()
    await running
  })
  await until(() => (agent.status?.source.subscribed.length ?? 0) > 0, 'it has subscribed')
  return { agent, collector, config, stop, running }
}
