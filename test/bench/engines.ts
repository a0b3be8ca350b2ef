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

const large: Load = { agents: 50, size: 10_000, batches: 8 }
const small: Load = { agents: 200, size: 100, batches: 16 }
type Engine = 'embedded' | 'nats' | 'kafka'

interface Side {
  engine: Engine
  /** The engine's servers; none where it runs in the collector. */
  nodes: number
  /** Of the section `log.<engine>`. */
  more?: object
  /** Of the agents of a load, where all of them would take too long. */
  share?: number
}

const sides: Record<string, Side> = {
  embedded: { engine: 'embedded', nodes: 0 },
  nats1: { engine: 'nats', nodes: 1 },
  nats: { engine: 'nats', nodes: 3 },
  kafkaBatches: { engine: 'kafka', nodes: 1, more: { records: 'batches' } },
  kafka: { engine: 'kafka', nodes: 1, share: 0.1 },
}
/** A broker as one would run it, if with less memory. */
const jvm = ['-Xms512m', '-Xmx512m', '-XX:+UseG1GC']

await bench(({ rounds, say }) =>
  scoped(async (t) => {
    const running = new Map<string, Running>()
    for (const [name, side] of Object.entries(sides)) running.set(name, await start(t, side))
    const runs = Object.entries(sides).flatMap(([name, { share = 1 }]) =>
      Object.entries({ large, small }).map(
        ([kind, load]): [string, (round: number) => Promise<Ingested>] => [
          `${name} ${kind}`,
          async (round) => {
            const agents = load.agents * share
            const own = { ...load, agents }
            const ingested = await ingest(running.get(name)!, own, `${kind}-${round}`)
            const { perSecond, batchesPerSecond, allCpuPerMillion } = ingested
            const rate = (perSecond / 1e6).toFixed(3)
            const cpu = allCpuPerMillion.toFixed(2)
            say(`${name}, ${agents} agents, batches of ${load.size}: ${rate} M readings/s, `)
            say(`  ${batchesPerSecond.toFixed(0)} batches/s at ${cpu} CPU s a million`)
            return ingested
          },
        ],
      ),
    )
    const results: Record<string, Ingested[]> = await interleave(rounds, Object.fromEntries(runs))
    return Object.keys(sides).flatMap((name) => {
      const [some, many] = [results[`${name} large`]!, results[`${name} small`]!]
      const of = (key: keyof Ingested, runs: readonly Ingested[]) => runs.map((run) => run[key])
      return [
        figure(`ingest.${name}`, of('perSecond', some), 'readings/s'),
        figure(`ingest.${name}.cpuPerMillion`, of('cpuPerMillion', some), 'CPU s/million'),
        figure(`ingest.${name}.allCpuPerMillion`, of('allCpuPerMillion', some), 'CPU s/million'),
        figure(`ingest.${name}.batches`, of('batchesPerSecond', many), 'batches/s'),
      ]
    })
  }),
)

/** A collector that runs, and the servers that its log is in. */
interface Running {
  port: number
  pid: number
  servers: readonly { pid: number }[]
}

async function start(t: Test, side: Side): Promise<Running> {
  const { servers, log } = await engineOf(t, side)
  const directory = join(await temporaryDirectory(t), 'collector')
  const cloud = await Cloud.make(t, { directory, more: { log } })
  const { pid } = await cloud.start()
  return { port: cloud.port, pid, servers }
}

/** @param name of the agents: others each time, since what is held of them stays */
async function ingest(
  { port, pid, servers }: Running,
  load: Load,
  name: string,
): Promise<Ingested> {
  return scoped(async (t) => {
    const { agents, size, batches } = load
    const poster = Program.script(t, 'ingest/poster.ts', [port, agents, size, batches, name])
    await poster.line() // It is ready.
    const there = () => servers.reduce((sum, server) => sum + cpuSeconds(server.pid), 0)
    const [before, beforeThere] = [cpuSeconds(pid), there()]
    poster.tell('go')
    const { seconds } = await poster.json<{ seconds: number }>()
    const spent = cpuSeconds(pid) - before
    const sent = (agents * batches) / 2
    const millions = (sent * size) / 1e6
    return {
      perSecond: (sent * size) / seconds,
      batchesPerSecond: sent / seconds,
      cpuPerMillion: spent / millions,
      allCpuPerMillion: (spent + there() - beforeThere) / millions,
    }
  })
}

/** Its servers, running, and the collector's section `log`. */
async function engineOf(
  t: Test,
  { engine, nodes, more }: Side,
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
