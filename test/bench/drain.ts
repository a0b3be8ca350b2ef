// An outage of five million readings: how long it takes to fill and to drain, and in how much memory:
// `node test/bench/drain.ts`. It is filled once; every round drains a copy, from the start of the agent.
// Constant memory means here that the second half of either is done in what the first was done in.
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Test } from '../support/clean-up.ts'
import { freePort } from '../support/free-port.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { asPackaged } from './harness/as-packaged.ts'
import { bench, scoped } from './harness/bench.ts'
import { figure } from './harness/figure.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds, watchMemory } from './harness/usage.ts'

interface Drained {
  /** From the start of the process until it is ready to send. */
  openMs: number
  perSecond: number
  cpuPerMillion: number
  peakMb: number
  grownMb: number
}

await bench(async ({ short, rounds, say }) => {
  const count = short ? 1_000_000 : 5_000_000
  return scoped(async (t) => {
    const broker = Program.script(t, 'receive/blasting-broker.ts', [20_000])
    const url = `mqtt://127.0.0.1:${await broker.line()}`
    const filled = join(await temporaryDirectory(t), 'filled')
    const fill = await fillSide(t, { broker, url, count, directory: filled })
    say(
      `filled at ${Math.round(fill.perSecond)} /s in ${fill.peakMb.toFixed(0)} MB, in the second half ` +
        `${fill.grownMb.toFixed(0)} MB more`,
    )
    const runs: Drained[] = []
    for (let round = 0; round < rounds; round++) {
      const run = await drainSide(url, filled, count)
      const { perSecond, cpuPerMillion, peakMb, grownMb, openMs } = run
      say(
        `drained at ${(perSecond / 1e6).toFixed(2)} M/s, ${cpuPerMillion.toFixed(2)} CPU s a million, ` +
          `${peakMb.toFixed(0)} MB, in the second half ${grownMb.toFixed(0)} MB more; opened in ${openMs.toFixed(0)} ms`,
      )
      runs.push(run)
    }
    const of = (name: keyof Drained) => runs.map((run) => run[name])
    return [
      figure('drain.perSecond', of('perSecond'), 'readings/s', { atLeast: 1e6 }),
      figure('drain.peakMb', of('peakMb'), 'MB', { atMost: 150 }),
      figure('drain.grownMb', of('grownMb'), 'MB', { atMost: 15 }),
      figure('drain.cpuPerMillion', of('cpuPerMillion'), 'CPU s/million'),
      figure('drain.openMs', of('openMs'), 'ms'),
      figure('drain.fillPerSecond', [fill.perSecond], 'readings/s'),
      figure('drain.fillPeakMb', [fill.peakMb], 'MB'),
      figure('drain.fillGrownMb', [fill.grownMb], 'MB', { atMost: 15 }),
    ]
  })
})

async function fillSide(
  t: Test,
  options: { broker: Program; url: string; count: number; directory: string },
): Promise<{ perSecond: number; peakMb: number; grownMb: number }> {
  const { broker, url, count, directory } = options
  const collector = `http://127.0.0.1:${await freePort()}`
  const retry = { base: '20s', max: '60s' }
  const agent = await Gateway.make(t, { directory, broker: url, collector, uplink: { retry } })
  const { pid } = await agent.start(asPackaged)
  await broker.line() // It has subscribed.
  const memory = watchMemory(pid)
  broker.tell(`go ${count}`)
  const { seconds } = await broker.json<{ seconds: number }>()
  const seen = memory.end()
  await agent.stop()
  return { perSecond: count / seconds, ...seen }
}

function drainSide(url: string, filled: string, count: number): Promise<Drained> {
  return scoped(async (t) => {
    const directory = await temporaryDirectory(t)
    await cp(filled, join(directory, 'agent'), { recursive: true })
    const cloud = await Cloud.make(t, { directory: join(directory, 'collector') })
    await cloud.start()
    const agent = await Gateway.make(t, {
      directory: join(directory, 'agent'),
      broker: url,
      collector: cloud.url,
    })
    const launchedMs = performance.now()
    const { pid } = await agent.start(asPackaged)
    const openMs = performance.now() - launchedMs
    const memory = watchMemory(pid)
    const [cpu, startedMs] = [cpuSeconds(pid), performance.now()]
    for (let left = count; left > 0; ) {
      await pause(50)
      left = (await agent.status())?.ledger.buffered ?? left
    }
    const seconds = (performance.now() - startedMs) / 1_000
    return {
      openMs,
      perSecond: count / seconds,
      cpuPerMillion: ((cpuSeconds(pid) - cpu) / count) * 1e6,
      ...memory.end(),
    }
  })
}
