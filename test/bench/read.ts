// How fast a consumer reads the embedded log over HTTP, with every batch decoded or as it came:
// `node test/bench/read.ts`.
import { Cloud } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, interleave, scoped } from './harness/bench.ts'
import { figure } from './harness/figure.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds } from './harness/usage.ts'

interface Reading {
  perSecond: number
  /** Of the collector and of the reader, CPU s a million readings. */
  collectorCpu: number
  readerCpu: number
}

const batchReadings = 10_000
const batches = 600

await bench(async ({ rounds, say }) => {
  const read = (how: 'decoded' | 'passed') => async () => {
    const found = await readAll(how)
    say(`${how}: ${(found.perSecond / 1e6).toFixed(2)} M readings/s`)
    return found
  }
  const { decoded, passed } = await interleave(rounds, {
    decoded: read('decoded'),
    passed: read('passed'),
  })
  const of = (runs: readonly Reading[], key: keyof Reading) => runs.map((run) => run[key])
  return [
    figure('read.perSecond', of(decoded, 'perSecond'), 'readings/s', { atLeast: 2e6 }),
    figure('read.readerCpuPerMillion', of(decoded, 'readerCpu'), 'CPU s/million'),
    figure('read.collectorCpuPerMillion', of(decoded, 'collectorCpu'), 'CPU s/million'),
    figure('read.passedPerSecond', of(passed, 'perSecond'), 'readings/s'),
  ]
})

/** A collector with a log of so many batches, by one agent. */
async function readAll(how: 'decoded' | 'passed'): Promise<Reading> {
  return scoped(async (t) => {
    const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
    const { pid } = await cloud.start()
    const poster = Program.script(t, 'ingest/poster.ts', [cloud.port, 1, batchReadings, batches])
    await poster.line()
    poster.tell('go')
    await poster.json()
    const before = cpuSeconds(pid)
    const reader = Program.script(t, 'read/reader.ts', [cloud.url, how])
    const { seconds, readings, cpuSeconds: used } = await reader.json<Record<string, number>>()
    if (readings !== batchReadings * batches) throw new Error(`${readings} readings`)
    return {
      perSecond: readings! / seconds!,
      readerCpu: (used! / readings!) * 1e6,
      collectorCpu: ((cpuSeconds(pid) - before) / readings!) * 1e6,
    }
  })
}
