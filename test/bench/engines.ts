// Readings that a collector makes durable in each log engine, and what it spends on them, the engine's own
// processes included: `node test/bench/engines.ts`. All of them share this machine and its disk.
import { join } from 'node:path'
import type { Test } from '../support/clean-up.ts'
import { KafkaNode } from '../support/kafka/server.ts'
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
type Engine = 'embedded' | 'nats' | 'kafka'

/** The engine's servers; none where it runs in the collector. */
const sizes: Record<string, { engine: Engine; nodes: number; more?: object }> = {
  embedded: { engine: 'embedded', nodes: 0 },
  nats1: { engine: 'nats', nodes: 1 },
  nats: { engine: 'nats', nodes: 3 },
  kafkaBatches: { engine: 'kafka', nodes: 1, more: { records: 'batches' } },
  kafka: { engine: 'kafka', nodes: 1 },
}
/** A broker as one would run it, if with less memory. */
const jvm = ['-Xms512m', '-Xmx512m', '-XX:+UseG1GC']

await bench(async ({ rounds, say }) => {
  const sides = Object.entries(sizes).flatMap(([name, size]) =>
    Object.entries({ large, small }).map(([kind, load]): [string, () => Promise<Ingested>] => [
      `${name} ${kind}`,
      async () => {
        const ingested = await ingest(size, load)
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
  return Object.keys(sizes).flatMap((name) => {
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

function ingest(size: (typeof sizes)[string], load: Load): Promise<Ingested> {
  return scoped(async (t) => {
    const { servers, log } = await engineOf(t, size)
    const directory = join(await temporaryDirectory(t), 'collector')
    const cloud = await Cloud.make(t, { directory, more: { log } })
    const { pid } = await cloud.start()
    const cpu = () => servers.reduce((sum, server) => sum + cpuSeconds(server.pid), 0)
    const { agents, size: readings, batches } = load
    const poster = Program.script(t, 'ingest/poster.ts', [cloud.port, agents, readings, batches])
    await poster.line() // It is ready.
    const [before, beforeThere] = [cpuSeconds(pid), cpu()]
    poster.tell('go')
    const { seconds } = await poster.json<{ seconds: number }>()
    const spent = cpuSeconds(pid) - before
    const sent = (agents * batches) / 2
    const millions = (sent * readings) / 1e6
    return {
      perSecond: (sent * readings) / seconds,
      batchesPerSecond: sent / seconds,
      cpuPerMillion: spent / millions,
      allCpuPerMillion: (spent + cpu() - beforeThere) / millions,
    }
  })
}

/** Its servers, running, and the collector's section `log`. */
async function engineOf(
  t: Test,
  { engine, nodes, more }: (typeof sizes)[string],
): Promise<{ servers: readonly { pid: number }[]; log: object }> {
  const skip = (why?: string) => {
    throw new Error(why)
  }
  const owner = Object.assign(t, { skip })
  if (engine === 'embedded') return { servers: [], log: { engine } }
  if (engine === 'nats') {
    const servers = (await NatsNode.start(owner, { nodes }))!
    const nats = { servers: servers.map(({ url }) => url), replicas: nodes }
    return { servers, log: { engine, nats } }
  }
  const servers = (await KafkaNode.start(owner, { nodes, jvm }))!
  const kafka = { brokers: servers.map(({ address }) => address), replicas: nodes, ...more }
  return { servers, log: { engine, kafka } }
}
