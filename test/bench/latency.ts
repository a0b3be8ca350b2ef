// From a sensor's publish to a reader of the log, through mosquitto, and what the agent needs for it:
// `node test/bench/latency.ts`.
import { get } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from '../support/clean-up.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { asPackaged } from './harness/as-packaged.ts'
import { bench, interleave, scoped } from './harness/bench.ts'
import { figure, median, missing, quantile } from './harness/figure.ts'
import { mosquittoAbsent, startMosquitto } from './harness/mosquitto.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds, memoryMb } from './harness/usage.ts'

interface Passage {
  p50Ms: number
  p99Ms: number
  /** Of the agent's CPU time, in a second. */
  cores: number
  /** What the agent's own memory grew by, from the first half to the second. */
  grownMb: number
}

await bench(async ({ short, rounds, say }) => {
  const absent = mosquittoAbsent()
  if (absent) return names.map(([name, unit]) => missing(name, unit, absent))
  // An agent that commits 80 times a second is warm after some ten seconds only.
  const side = (perSecond: number, warmUpSeconds: number, seconds: number) => async () => {
    const passage = await pass(perSecond, warmUpSeconds, seconds)
    const { p50Ms, p99Ms, cores, grownMb } = passage
    const [p50, p99] = [p50Ms.toFixed(1), p99Ms.toFixed(1)]
    say(
      `${perSecond} /s: p50 ${p50} ms, p99 ${p99} ms, ${cores.toFixed(2)} cores, memory ${grownMb.toFixed(1)} MB more`,
    )
    return passage
  }
  const { slow, fast } = await interleave(rounds, {
    slow: side(1_000, short ? 2 : 10, short ? 2 : 7),
    fast: side(10_000, 2, short ? 1 : 4),
  })
  const of = (runs: readonly Passage[], name: keyof Passage) => runs.map((run) => run[name])
  return [
    figure('latency.p50Ms', of(slow, 'p50Ms'), 'ms', { atMost: 20 }),
    figure('latency.p99Ms', of(slow, 'p99Ms'), 'ms', { atMost: 60 }),
    figure('latency.cores', of(slow, 'cores'), 'cores', { atMost: 0.35 }),
    figure('latency.grownMb', of(slow, 'grownMb'), 'MB', { atMost: 15 }),
    figure('latency.fast.p50Ms', of(fast, 'p50Ms'), 'ms'),
    figure('latency.fast.p99Ms', of(fast, 'p99Ms'), 'ms'),
    figure('latency.fast.cores', of(fast, 'cores'), 'cores'),
  ]
})

const names = [
  ['latency.p50Ms', 'ms'],
  ['latency.p99Ms', 'ms'],
  ['latency.cores', 'cores'],
] as const

/** What is measured lasts `seconds`, behind the warm-up. */
function pass(perSecond: number, warmUpSeconds: number, seconds: number): Promise<Passage> {
  return scoped(async (t) => {
    const directory = await temporaryDirectory(t)
    const broker = await startMosquitto(t)
    const cloud = await Cloud.make(t, { directory: join(directory, 'collector') })
    await cloud.start()
    const agent = await Gateway.make(t, {
      directory: join(directory, 'agent'),
      broker: broker.url,
      collector: cloud.url,
      // The wait for a fuller batch is the user's choice; here, latency is what is wanted.
      uplink: { batch: { maxAge: '0ms' } },
    })
    const { pid } = await agent.start(asPackaged)
    await agent.subscribed()
    const lasts = warmUpSeconds + seconds
    const arrivals = await tail(t, cloud.url, perSecond * lasts)
    const memory: number[] = []
    const sensors = Program.script(t, 'latency/sensors.ts', [broker.url, perSecond, lasts])
    await new Promise((resolve) => setTimeout(resolve, warmUpSeconds * 1_000))
    const [cpu, startedMs] = [cpuSeconds(pid), performance.now()]
    const watch = setInterval(() => memory.push(memoryMb(pid)), 100)
    await sensors.line()
    const cores = (cpuSeconds(pid) - cpu) / ((performance.now() - startedMs) / 1_000)
    clearInterval(watch)
    // The first ones meet programs that are not warm yet.
    const latenciesMs = (await arrivals.all).slice(perSecond * warmUpSeconds)
    const half = memory.length >> 1
    return {
      p50Ms: quantile(latenciesMs, 0.5),
      p99Ms: quantile(latenciesMs, 0.99),
      cores,
      grownMb: median(memory.slice(half)) - median(memory.slice(0, half)),
    }
  })
}

/** Reads the log as it grows; `all` resolves with each reading's age on arrival, ms, once there are `count`. */
function tail(t: Test, collector: string, count: number): Promise<{ all: Promise<number[]> }> {
  return new Promise((resolve, reject) => {
    const request = get(`${collector}/v1/streams/readings/tail?format=ndjson`, (response) => {
      const ages: number[] = []
      const all = new Promise<number[]>((done) => {
        const lines = createInterface(response).on('line', (line) => {
          const nowMs = performance.timeOrigin + performance.now()
          ages.push(nowMs - JSON.parse(line).value / 1_000)
          if (ages.length === count) done(ages)
        })
        lines.on('error', () => {}) // When the bench lets go of it.
      })
      resolve({ all })
    })
    request.on('error', reject)
    t.after(() => request.destroy())
  })
}
