// How fast the agent takes QoS 1 messages until they are synced and acknowledged, against plain mqtt.js,
// which throws them away: `node test/bench/receive.ts [--short]`.
import { join } from 'node:path'
import { freePort } from '../support/free-port.ts'
import { Cloud, Gateway } from '../support/plant.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, cpuRatio, interleave, ratios, scoped } from './harness/bench.ts'
import { type Figure, figure } from './harness/figure.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds } from './harness/usage.ts'

interface Taken {
  perSecond: number
  cpuPerMillion: number
}

const window = 20_000
const slowDiskMs = 10
/** As mosquitto has it by default, and ten times as much, where what a message costs shows beside the disk. */
const slowWindows = [20, 200] as const
/** Windows that are measured. */
const slowCommits = 150
/** Windows that go before, at the disk's own speed: only after some thousands all of an agent's code is compiled. */
const slowWarmUp = 8_000

await bench(async ({ short, rounds, say }) => {
  const count = short ? 400_000 : 1_000_000
  const side = (name: string, run: () => Promise<Taken>) => async () => {
    const taken = await run()
    const { perSecond, cpuPerMillion } = taken
    say(`${name}: ${Math.round(perSecond)} /s at ${cpuPerMillion.toFixed(2)} CPU s a million`)
    return taken
  }
  const { plain, path, whole } = await interleave(rounds, {
    plain: side('mqtt.js', () => plainSide(short ? 120_000 : 300_000)),
    path: side('agent, to the PUBACK', () => pathSide(count)),
    whole: short ? undefined : side('agent, to the log', () => wholeSide(count)),
  })
  const figures: Figure[] = [
    figure('receive.ratio', ratios(rates(path), rates(plain)), 'ratio', { atLeast: 2 }),
    cpuRatio('receive.cpuRatio', costs(path), costs(plain)),
    figure('receive.perSecond', rates(path), 'messages/s'),
    figure('receive.pathCpuPerMillion', costs(path), 'CPU s/million'),
    figure('receive.plainPerSecond', rates(plain), 'messages/s'),
    figure('receive.plainCpuPerMillion', costs(plain), 'CPU s/million'),
  ]
  if (short) return figures
  figures.push(
    figure('receive.cpuPerMillion', costs(whole), 'CPU s/million', { atMost: 7 }),
    figure('receive.wholePerSecond', rates(whole), 'messages/s'),
  )
  const slow: Record<(typeof slowWindows)[number], number[]> = { 20: [], 200: [] }
  for (let round = 0; round < rounds; round++) {
    for (const slowWindow of slowWindows) slow[slowWindow].push(await slowSide(slowWindow))
    const shares = slowWindows.map((slowWindow) => slow[slowWindow].at(-1)!.toFixed(3))
    say(`slow disk: ${shares.join(', ')} of window / commit time`)
  }
  figures.push(
    figure('receive.slowDiskRatio', slow[20], 'ratio', { atLeast: 0.9 }),
    figure('receive.slowDiskRatio.200', slow[200], 'ratio', { atLeast: 0.9 }),
  )
  return figures
})

function rates(runs: readonly Taken[]): number[] {
  return runs.map(({ perSecond }) => perSecond)
}

function costs(runs: readonly Taken[]): number[] {
  return runs.map(({ cpuPerMillion }) => cpuPerMillion)
}

function plainSide(count: number): Promise<Taken> {
  return scoped(async (t) => {
    const broker = Program.script(t, 'receive/blasting-broker.ts', [window])
    const url = `mqtt://127.0.0.1:${await broker.line()}`
    const { pid } = Program.script(t, 'receive/mqttjs.ts', [url])
    return blast(broker, pid, count)
  })
}

/** The agent's path: from the socket to the PUBACK; its uplink finds nobody. */
function pathSide(count: number): Promise<Taken> {
  return scoped(async (t) => {
    const broker = Program.script(t, 'receive/blasting-broker.ts', [window])
    const agent = await Gateway.make(t, {
      directory: join(await temporaryDirectory(t), 'agent'),
      broker: `mqtt://127.0.0.1:${await broker.line()}`,
      collector: `http://127.0.0.1:${await freePort()}`,
      uplink: { retry: { base: '20s', max: '60s' } },
    })
    const { pid } = await agent.start()
    return blast(broker, pid, count)
  })
}

/** The whole agent: from the socket until the collector holds everything. */
function wholeSide(count: number): Promise<Taken> {
  return scoped(async (t) => {
    const directory = await temporaryDirectory(t)
    const broker = Program.script(t, 'receive/blasting-broker.ts', [window])
    const cloud = await Cloud.make(t, { directory: join(directory, 'collector') })
    await cloud.start()
    const agent = await Gateway.make(t, {
      directory: join(directory, 'agent'),
      broker: `mqtt://127.0.0.1:${await broker.line()}`,
      collector: cloud.url,
    })
    const { pid } = await agent.start()
    await blast(broker, pid, count / 2)
    await agent.drained(1.5 * (count / 2))
    const startedMs = performance.now()
    const before = cpuSeconds(pid)
    await send(broker, count)
    await agent.drained(count + 1.5 * (count / 2))
    const seconds = (performance.now() - startedMs) / 1_000
    return {
      perSecond: count / seconds,
      cpuPerMillion: ((cpuSeconds(pid) - before) / count) * 1e6,
    }
  })
}

/** Sends `count` messages to a side that half as many have warmed. */
async function blast(broker: Program, pid: number, count: number): Promise<Taken> {
  if ((await broker.line()) !== 'subscribed') throw new Error('the side did not subscribe')
  await send(broker, count / 2)
  const before = cpuSeconds(pid)
  const seconds = await send(broker, count)
  return {
    perSecond: count / seconds,
    cpuPerMillion: ((cpuSeconds(pid) - before) / count) * 1e6,
  }
}

/** @returns seconds until the last PUBACK */
async function send(broker: Program, count: number): Promise<number> {
  broker.tell(`go ${count}`)
  return (await broker.json<{ seconds: number }>()).seconds
}

/** What part of window / commit time the agent reaches, once it is warm. */
function slowSide(slowWindow: number): Promise<number> {
  return scoped(async (t) => {
    const broker = Program.script(t, 'receive/blasting-broker.ts', [slowWindow])
    const gateway = await Gateway.make(t, {
      directory: join(await temporaryDirectory(t), 'agent'),
      broker: `mqtt://127.0.0.1:${await broker.line()}`,
      collector: `http://127.0.0.1:${await freePort()}`,
      uplink: { retry: { base: '20s', max: '60s' } },
    })
    const agent = Program.script(t, 'receive/slow-disk-agent.ts', [gateway.configFile])
    if ((await broker.line()) !== 'subscribed') throw new Error('the agent did not subscribe')
    await send(broker, slowWindow * slowWarmUp)
    agent.tell(`slow ${slowDiskMs}`)
    const before = await syncs(agent)
    const seconds = await send(broker, slowWindow * slowCommits)
    const after = await syncs(agent)
    const commitSeconds = (after.ms - before.ms) / (after.count - before.count) / 1_000
    return slowCommits / (seconds / commitSeconds)
  })
}

function syncs(agent: Program): Promise<{ count: number; ms: number }> {
  agent.tell('syncs')
  return agent.json()
}
