// How fast a consumer reads the embedded log over HTTP, with every batch decoded or as it came, and what 200
// readers that are slower than the log cost ingest: `node test/bench/read.ts`.
import { setTimeout as pause } from 'node:timers/promises'
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
/** So many that the collector is warm when the second half is measured, and that this takes seconds. */
const ingestBatches = 4_000
const slowReaders = 200

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
  const ingest = (readers: number) => async () => {
    const perSecond = await ingestBeside(readers)
    say(`ingest beside ${readers} slow readers: ${(perSecond / 1e6).toFixed(2)} M readings/s`)
    return perSecond
  }
  const { alone, beside } = await interleave(rounds, {
    alone: ingest(0),
    beside: ingest(slowReaders),
  })
  const of = (runs: readonly Reading[], key: keyof Reading) => runs.map((run) => run[key])
  return [
    figure('read.perSecond', of(decoded, 'perSecond'), 'readings/s', { atLeast: 2e6 }),
    figure('read.readerCpuPerMillion', of(decoded, 'readerCpu'), 'CPU s/million'),
    figure('read.collectorCpuPerMillion', of(decoded, 'collectorCpu'), 'CPU s/million'),
    figure('read.passedPerSecond', of(passed, 'perSecond'), 'readings/s'),
    figure('read.slowReadersRatio', ratios(beside, alone), 'ratio', { atLeast: 0.9 }),
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

/** Readings/s that the collector takes while so many follow its log and do not keep up. */
async function ingestBeside(readers: number): Promise<number> {
  return scoped(async (t) => {
    const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
    const { pid } = await cloud.start()
    const poster = Program.script(t, 'ingest/poster.ts', [
      cloud.port,
      1,
      batchReadings,
      ingestBatches,
    ])
    await poster.line() // Half of the batches are there, and are what the readers begin with.
    if (readers > 0) await Program.script(t, 'read/slow-readers.ts', [cloud.port, readers]).line()
    await settled(pid)
    poster.tell('go')
    const { seconds } = await poster.json<{ seconds: number }>()
    return (batchReadings * ingestBatches) / 2 / seconds
  })
}

/** Until a process has hardly anything to do: the sockets of its readers are full. */
async function settled(pid: number): Promise<void> {
  const [everyS, restS] = [0.5, 0.05]
  for (let before = cpuSeconds(pid), tries = 0; tries < 120; tries++) {
    await pause(everyS * 1_000)
    const now = cpuSeconds(pid)
    if (now - before <= restS) return
    before = now
  }
  throw new Error('the collector does not come to rest')
}
