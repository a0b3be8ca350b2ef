// How fast a consumer reads the embedded log over HTTP, and what 200 slow readers cost ingest:
// `node test/bench/read.ts`.
import { Cloud } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, interleave, ratios, scoped } from './harness/bench.ts'
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
const slowReaders = 200

await bench(async ({ rounds, say }) => {
  const read = (how: 'decoded' | 'passed') => async () => {
    const found = await readAll(how)
    say(`${how}: ${(found.perSecond / 1e6).toFixed(2)} M readings/s`)
    return found
  }
  const ingest = (readers: number) => async () => {
    const perSecond = await ingested(readers)
    say(`ingest beside ${readers} slow readers: ${(perSecond / 1e6).toFixed(2)} M readings/s`)
    return perSecond
  }
  const { decoded, passed, alone, beside } = await interleave(rounds, {
    decoded: read('decoded'),
    passed: read('passed'),
    alone: ingest(0) as () => Promise<Reading | number>,
    beside: ingest(slowReaders),
  })
  const of = (runs: readonly (Reading | number)[], key: keyof Reading) =>
    (runs as readonly Reading[]).map((run) => run[key])
  return [
    figure('read.perSecond', of(decoded, 'perSecond'), 'readings/s', { atLeast: 2e6 }),
    figure('read.readerCpuPerMillion', of(decoded, 'readerCpu'), 'CPU s/million'),
    figure('read.collectorCpuPerMillion', of(decoded, 'collectorCpu'), 'CPU s/million'),
    figure('read.passedPerSecond', of(passed, 'perSecond'), 'readings/s'),
    figure('read.slowReadersRatio', ratios(beside as number[], alone as number[]), 'ratio', {
      atLeast: 0.9,
    }),
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

async function ingested(readers: number): Promise<number> {
  return scoped(async (t) => {
    const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
    await cloud.start()
    const poster = Program.script(t, 'ingest/poster.ts', [cloud.port, 1, batchReadings, batches])
    await poster.line() // Half of the batches are there, and read from the beginning.
    if (readers > 0) await Program.script(t, 'read/slow-readers.ts', [cloud.port, readers]).line()
    poster.tell('go')
    const { seconds } = await poster.json<{ seconds: number }>()
    return (batchReadings * batches) / 2 / seconds
  })
}
