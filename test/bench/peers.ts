// The agent against what people use for the same job: same broker, payload and machine. `node
// test/bench/peers.ts`. Each forwards what mosquitto has for it:
//
//   Headgate          agent → collector, which syncs
//   Node-RED          mqtt in → http request, one message or 500 at a time → a server that keeps nothing
//   mosquitto bridge  a mosquitto that subscribes and publishes on, nothing on disk → a second mosquitto
//   NATS              bridged into its MQTT, a JetStream stream at the edge → a leaf connection → a hub
//
// Peers that are not installed are fetched into a cache folder; where that fails their figures say why.
import { setTimeout as pause } from 'node:timers/promises'
import type { Test } from '../support/clean-up.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, interleave, ratios, scoped } from './harness/bench.ts'
import { type Bound, type Figure, figure, missing } from './harness/figure.ts'
import { mosquittoAbsent } from './harness/mosquitto.ts'
import { Program } from './harness/program.ts'
import { cpuSeconds, watchMemory } from './harness/usage.ts'
import { makeBridge } from './peers/bridge.ts'
import { makeHeadgate } from './peers/headgate.ts'
import { natsServer, nodeRed } from './peers/install.ts'
import { makeNats } from './peers/nats.ts'
import { makeNodeRed } from './peers/node-red.ts'
import type { Make, Peer } from './peers/peer.ts'

interface Forwarded {
  perSecond: number
  /** Of the forwarder, and of the broker in front of it. */
  cpuPerMillion: number
  brokerCpuPerMillion: number
  peakMb: number
}

const window = 1_000
/** Published while the cloud cannot be reached, and before the kill. */
const beforeKill = 5_000
/** A forwarder that has brought nothing for so long brings nothing more. */
const lostAfterMs = 20_000
/** Messages that are measured; as many again go before, so that what is compiled on the way is warm. */
const counts = {
  headgate: 250_000,
  single: 5_000,
  batch: 100_000,
  bridge: 100_000,
  nats: 100_000,
}

const names = [
  ['peers.nodeRedSingleRatio', 'ratio'],
  ['peers.nodeRedBatchCpuRatio', 'ratio'],
  ['peers.bridgeCpuRatio', 'ratio'],
  ['peers.natsCpuRatio', 'ratio'],
  ['peers.lost', 'messages'],
] as const

await bench(async ({ rounds, say }) => {
  const absent = mosquittoAbsent()
  if (absent) return names.map(([name, unit]) => missing(name, unit, absent))
  const [red, nats] = [await nodeRed(say), await natsServer()]
  for (const { missing } of [red, nats]) if (missing) say(`LEFT OUT: ${missing}`)
  const makers: Record<keyof typeof counts, Make | undefined> = {
    headgate: makeHeadgate,
    single: red.path ? makeNodeRed(red.path, 1) : undefined,
    batch: red.path ? makeNodeRed(red.path, 500) : undefined,
    bridge: makeBridge,
    nats: nats.path ? makeNats(nats.path) : undefined,
  }
  const side = (name: keyof typeof counts) => {
    const make = makers[name]
    if (!make) return undefined
    return async () => {
      const forwarded = await forward(make, counts[name], (line) => say(`${name}: ${line}`))
      const { perSecond, cpuPerMillion, brokerCpuPerMillion, peakMb } = forwarded
      const [cpu, broker] = [cpuPerMillion.toFixed(1), brokerCpuPerMillion.toFixed(1)]
      say(
        `${name}: ${Math.round(perSecond)} /s, ${cpu} CPU s a million (broker ${broker}), ${peakMb.toFixed(0)} MB`,
      )
      return forwarded
    }
  }
  const runs = await interleave(rounds, {
    headgate: side('headgate'),
    single: side('single'),
    batch: side('batch'),
    bridge: side('bridge'),
    nats: side('nats'),
  })
  const lost: Partial<Record<keyof typeof counts, number[]>> = {}
  for (const name of Object.keys(makers) as (keyof typeof counts)[])
    for (let round = 0; makers[name] && round < (name === 'headgate' ? rounds : 1); round++) {
      const gone = await killed(makers[name])
      say(`${name}: ${gone} of ${beforeKill} lost by kill -9 with the uplink down`)
      lost[name] = [...(lost[name] ?? []), gone]
    }

  const of = (name: keyof typeof counts, what: keyof Forwarded) =>
    runs[name].map((run) => run[what])
  const cpu = (name: keyof typeof counts) => of(name, 'cpuPerMillion')
  const versus = (name: string, theirs: number[], ours: number[], bound: Bound): Figure =>
    theirs.length > 0
      ? figure(name, ratios(ours, theirs), 'ratio', bound)
      : missing(name, 'ratio', (name.includes('nats') ? nats : red).missing ?? 'left out')
  return [
    versus('peers.nodeRedSingleRatio', of('single', 'perSecond'), of('headgate', 'perSecond'), {
      atLeast: 20,
    }),
    versus('peers.nodeRedBatchCpuRatio', cpu('batch'), cpu('headgate'), { atMost: 0.3 }),
    versus('peers.bridgeCpuRatio', cpu('bridge'), cpu('headgate'), { atMost: 1.2 }),
    versus('peers.natsCpuRatio', cpu('nats'), cpu('headgate'), { atMost: 0.5 }),
    figure('peers.lost', [Math.max(...lost.headgate!)], 'messages', { atMost: 0 }),
    ...Object.entries(lost).map(([name, gone]) => figure(`peers.lost.${name}`, gone, 'messages')),
    ...(Object.keys(runs) as (keyof typeof counts)[])
      .filter((name) => runs[name].length > 0)
      .flatMap((name) => [
        figure(`peers.perSecond.${name}`, of(name, 'perSecond'), 'messages/s'),
        figure(`peers.cpuPerMillion.${name}`, cpu(name), 'CPU s/million'),
        figure(`peers.peakMb.${name}`, of(name, 'peakMb'), 'MB'),
      ]),
    figure('peers.brokerCpuPerMillion', of('headgate', 'brokerCpuPerMillion'), 'CPU s/million'),
  ]
})

/** Publishes as fast as the broker acknowledges; the clock stops when everything is at the other end. */
function forward(make: Make, count: number, say: (line: string) => void): Promise<Forwarded> {
  return scoped(async (t) => {
    const peer = await make(t, await temporaryDirectory(t))
    await peer.openCloud()
    await peer.start()
    const sensors = await startSensors(t, peer.port)
    const memory = watchMemory(peer.pid())
    sensors.tell(`go ${count}`)
    const warm = await arrival(peer, count)
    const before = used(peer)
    const startedMs = performance.now()
    sensors.tell(`go ${count}`)
    const end = await arrival(peer, warm.arrived + count)
    const seconds = (end.atMs - startedMs) / 1_000
    const after = used(peer)
    const forwarded = end.arrived - warm.arrived
    if (end.arrived < 2 * count) say(`${2 * count - end.arrived} of ${2 * count} never arrived`)
    return {
      perSecond: forwarded / seconds,
      cpuPerMillion: ((after.peer - before.peer) / forwarded) * 1e6,
      brokerCpuPerMillion: ((after.broker - before.broker) / forwarded) * 1e6,
      peakMb: memory.end().peakMb,
    }
  })
}

/** Resolves once so many have arrived, or none has for so long that the others are lost. */
async function arrival(peer: Peer, wanted: number): Promise<{ arrived: number; atMs: number }> {
  let last = { arrived: 0, atMs: performance.now() }
  while (last.arrived < wanted && performance.now() - last.atMs < lostAfterMs) {
    const arrived = await peer.arrived()
    if (arrived > last.arrived) last = { arrived, atMs: performance.now() }
    else await pause(20)
  }
  return last
}

/** How many messages are gone when the forwarder is killed while it cannot reach the cloud. */
function killed(make: Make): Promise<number> {
  return scoped(async (t) => {
    const peer = await make(t, await temporaryDirectory(t))
    await peer.start()
    const sensors = await startSensors(t, peer.port)
    sensors.tell(`go ${beforeKill}`)
    await sensors.line()
    await pause(3_000)
    await peer.kill()
    await peer.openCloud()
    await peer.start()
    let arrived = 0
    for (let quiet = 0; quiet < 50 && arrived < beforeKill; quiet++) {
      const now = await peer.arrived().catch(() => arrived)
      if (now > arrived) quiet = 0
      arrived = now
      await pause(200)
    }
    return beforeKill - arrived
  })
}

async function startSensors(t: Test, port: number): Promise<Program> {
  const sensors = Program.script(t, 'peers/publisher.ts', [port, window])
  await sensors.line()
  return sensors
}

function used(peer: Peer): { peer: number; broker: number } {
  return {
    peer: cpuSeconds(peer.pid()),
    broker: cpuSeconds(peer.brokerPid),
  }
}
