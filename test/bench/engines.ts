// Readings that a collector makes durable in each log engine, and what it spends on them, the engine's own
// processes included: `node test/bench/engines.ts`. All of them share this machine and its disk.
import { join } from 'node:path'
import type { Test } from '../support/clean-up.ts'
import { NatsNode } from '../support/nats/server.ts'
import { Cloud } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, interleave, scoped } from './harness/bench.ts'
import { figure } from './harness/figure.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds } from './harness/usage.ts'

interface Load {
  agents: number
  /** Readings in a batch. */
  size: number
  /** Batches that each agent sends; half of them are measured. */
  batches: number
}

interface Ingested {
  perSecond: number
  batchesPerSecond: number
  /** Of the collector alone, and with the engine's processes. */
  cpuPerMillion: number
  allCpuPerMillion: number
}

const large: Load = { agents: 50, size: 10_000, batches: 20 }
const small: Load = { agents: 200, size: 100, batches: 40 }
const engines = { embedded: 0, nats1: 1, nats: 3 }

await bench(async ({ rounds, say }) => {
  const sides = Object.entries(engines).flatMap(([name, nodes]) =>
    Object.entries({ large, small }).map(([kind, load]): [string, () => Promise<Ingested>] => [
      `${name} ${kind}`,
      async () => {
        const ingested = await ingest(nodes, load)
        const { perSecond, batchesPerSecond, allCpuPerMillion } = ingested
        const rate = (perSecond / 1e6).toFixed(3)
        const cpu = allCpuPerMillion.toFixed(2)
        say(`${name}, ${load.agents} agents, batches of ${load.size}: ${rate} M readings/s, `)
        say(`  ${batchesPerSecond.toFixed(0)} batches/s at ${cpu} CPU s a million`)
        return ingested
      },
    ]),
  )
  const results: Record<string, Ingested[]> = await interleave(rounds, Object.fromEntries(sides))
  return Object.keys(engines).flatMap((name) => {
    const [some, many] = [results[`${name} large`]!, results[`${name} small`]!]
    const of = (key: keyof Ingested, runs: readonly Ingested[]) => runs.map((run) => run[key])
    return [
      figure(`ingest.${name}`, of('perSecond', some), 'readings/s'),
      figure(`ingest.${name}.cpuPerMillion`, of('cpuPerMillion', some), 'CPU s/million'),
      figure(`ingest.${name}.allCpuPerMillion`, of('allCpuPerMillion', some), 'CPU s/million'),
      figure(`ingest.${name}.batches`, of('batchesPerSecond', many), 'batches/s'),
    ]
  })
})

function ingest(nodes: number, load: Load): Promise<Ingested> {
  return scoped(async (t) => {
    const servers = nodes > 0 ? await clusterOf(t, nodes) : []
    const nats = { servers: servers.map(({ url }) => url), replicas: nodes }
    const log = nodes > 0 ? { engine: 'nats', nats } : { engine: 'embedded' }
    const directory = join(await temporaryDirectory(t), 'collector')
    const cloud = await Cloud.make(t, { directory, more: { log } })
    const { pid } = await cloud.start()
    const cpu = () => servers.reduce((sum, server) => sum + cpuSeconds(server.pid), 0)
    const { agents, size, batches } = load
    const poster = Program.script(t, 'ingest/poster.ts', [cloud.port, agents, size, batches])
    await poster.line() // It is ready.
    const [before, beforeThere] = [cpuSeconds(pid), cpu()]
    poster.tell('go')
    const { seconds } = await poster.json<{ seconds: number }>()
    const spent = cpuSeconds(pid) - before
    const sent = (agents * batches) / 2
    const millions = (sent * size) / 1e6
    return {
      perSecond: (sent * size) / seconds,
      batchesPerSecond: sent / seconds,
      cpuPerMillion: spent / millions,
      allCpuPerMillion: (spent + cpu() - beforeThere) / millions,
    }
  })
}

async function clusterOf(t: Test, nodes: number): Promise<NatsNode[]> {
  const skip = (why?: string) => {
    throw new Error(why)
  }
  const servers = await NatsNode.start(Object.assign(t, { skip }), { nodes })
  return servers!
}
