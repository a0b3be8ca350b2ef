// Readings that the collector makes durable, against an HTTP server that only appends and syncs:
// `node test/bench/ingest.ts`.
import { join } from 'node:path'
import { Cloud } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, cpuRatio, interleave, ratios, scoped } from './harness/bench.ts'
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
  cpuPerMillion: number
}

/** Half of them go before what is measured: the collector gets faster for two thousand batches. */
const one: Load = { agents: 1, size: 10_000, batches: 3_000 }
const fleet: Load = { agents: 200, size: 10_000, batches: 6 }
const thousands: Load = { agents: 200, size: 1_000, batches: 12 }
const hundreds: Load = { agents: 200, size: 100, batches: 60 }

await bench(async ({ short, rounds, say }) => {
  const side = (name: string, load: Load, run: (load: Load) => Promise<Ingested>) => async () => {
    const ingested = await run(load)
    const { perSecond, cpuPerMillion } = ingested
    const what = `${name}, ${load.agents} × ${load.batches} batches of ${load.size}`
    const rate = (perSecond / 1e6).toFixed(2)
    say(`${what}: ${rate} M readings/s at ${cpuPerMillion.toFixed(3)} CPU s a million`)
    return ingested
  }
  const collector = (load: Load) => side('collector', load, collectorSide)
  const reference = (load: Load) => side('append', load, appendSide)
  const all = <Run>(run: Run) => (short ? undefined : run)
  const { oneOurs, oneTheirs, ours, theirs, thousand, hundred, hundredTheirs } = await interleave(
    rounds,
    {
      oneOurs: all(collector(one)),
      oneTheirs: all(reference(one)),
      ours: all(collector(fleet)),
      theirs: all(reference(fleet)),
      thousand: all(collector(thousands)),
      hundred: collector(hundreds),
      hundredTheirs: reference(hundreds),
    },
  )
  const rate = (runs: readonly Ingested[]) => runs.map(({ perSecond }) => perSecond)
  const cost = (runs: readonly Ingested[]) => runs.map(({ cpuPerMillion }) => cpuPerMillion)
  const figures = [
    // What a request costs, however little is in it. With more in it the other side has next to nothing to
    // do but to wait for the disk, and what that costs varies twofold.
    cpuRatio('ingest.smallCpuRatio', cost(hundred), cost(hundredTheirs)),
    figure('ingest.cpuPerMillion.100', cost(hundred), 'CPU s/million'),
  ]
  if (short) return figures
  return [
    // One agent, since each has one batch on its way: how much longer it waits for an answer.
    figure('ingest.ratio', ratios(rate(oneOurs), rate(oneTheirs)), 'ratio', { atLeast: 0.8 }),
    figure('ingest.perSecond', rate(oneOurs), 'readings/s', { atLeast: 3e6 }),
    // All at once: what one core can check, against what it can pass on to the disk unseen.
    figure('ingest.fleetRatio', ratios(rate(ours), rate(theirs)), 'ratio'),
    figure('ingest.fleetPerSecond', rate(ours), 'readings/s', { atLeast: 3e6 }),
    figure('ingest.cpuPerMillion', cost(oneOurs), 'CPU s/million'),
    figure('ingest.cpuPerMillion.10000', cost(ours), 'CPU s/million'),
    figure('ingest.cpuPerMillion.1000', cost(thousand), 'CPU s/million'),
    ...figures,
  ]
})

function collectorSide(load: Load): Promise<Ingested> {
  return scoped(async (t) => {
    const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
    const { pid } = await cloud.start()
    const poster = Program.script(t, 'ingest/poster.ts', posterArguments(cloud.port, load))
    return post(poster, pid, load)
  })
}

function appendSide(load: Load): Promise<Ingested> {
  return scoped(async (t) => {
    const file = join(await temporaryDirectory(t), 'log')
    const server = Program.script(t, 'ingest/append-server.ts', [file])
    const port = Number(await server.line())
    const poster = Program.script(t, 'ingest/poster.ts', posterArguments(port, load))
    return post(poster, server.pid, load)
  })
}

function posterArguments(port: number, { agents, size, batches }: Load): number[] {
  return [port, agents, size, batches]
}

async function post(poster: Program, pid: number, load: Load): Promise<Ingested> {
  await poster.line() // It is ready.
  const before = cpuSeconds(pid)
  poster.tell('go')
  const { seconds } = await poster.json<{ seconds: number }>()
  const readings = load.agents * load.size * (load.batches / 2)
  return {
    perSecond: readings / seconds,
    cpuPerMillion: ((cpuSeconds(pid) - before) / readings) * 1e6,
  }
}
