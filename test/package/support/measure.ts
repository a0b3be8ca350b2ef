import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import mqtt from 'mqtt-packet'
import { cleanUp, type Test } from '../../support/clean-up.ts'
import { Cloud, Gateway } from '../../support/plant.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { executable } from './built.ts'
import { watchMemory } from './memory.ts'
import { PlantLoad } from './plant-load.ts'

/** Own memory of the packaged agent, megabytes, twice a second, while it is connected and nothing comes. */
export async function idleMemory(t: Test, broker: string, seconds: number): Promise<number[]> {
  const gateway = await gatewayWithCloud(t, broker)
  const agent = await gateway.start({ command: [executable('agent')] })
  await gateway.subscribed()
  const seen = await watchMemory(agent.pid, seconds)
  await gateway.stop()
  return seen
}

/** The same under a plant's load, and the rate that the plant kept; all of it has been delivered. */
export async function loadedMemory(
  t: Test,
  broker: string,
  { perSecond, seconds }: { perSecond: number; seconds: number },
): Promise<{ seen: number[]; perSecond: number }> {
  const gateway = await gatewayWithCloud(t, broker)
  const agent = await gateway.start({ command: [executable('agent')] })
  await gateway.subscribed()
  const startMs = performance.now()
  const load = new PlantLoad(broker, perSecond)
  const seen = await watchMemory(agent.pid, seconds)
  await load.stop()
  const kept = (load.published / (performance.now() - startMs)) * 1000
  await gateway.drained(load.published)
  await gateway.stop()
  return { seen, perSecond: kept }
}

export interface Start {
  /** From the call to the first SUBSCRIBE. */
  tookMs: number
  /** Without the time in which other processes had its core. */
  shareMs: number
}

/** Starts the packaged agent so many times, each with an empty outbox. */
export async function startTimes(t: Test, runs: number): Promise<Start[]> {
  const broker = await greetingBroker(t)
  const { port } = broker.address() as AddressInfo
  const directory = await temporaryDirectory(t)
  const starts: Start[] = []
  for (let run = 0; run < runs; run++) {
    const gateway = await Gateway.make(t, {
      directory: join(directory, String(run)),
      broker: `mqtt://127.0.0.1:${port}`,
      collector: 'http://127.0.0.1:1',
      source: { version: '3.1.1' },
    })
    const startMs = performance.now()
    const agent = gateway.launch({ command: [executable('agent')] })
    await once(broker, 'subscribed')
    const tookMs = performance.now() - startMs
    starts.push({ tookMs, shareMs: tookMs - waitedForCoreMs(agent.pid) })
    await agent.kill()
  }
  return starts
}

async function gatewayWithCloud(t: Test, broker: string): Promise<Gateway> {
  const cloud = await Cloud.make(t, { directory: await temporaryDirectory(t) })
  await cloud.start()
  const directory = await temporaryDirectory(t)
  return Gateway.make(t, { directory, broker, collector: cloud.url })
}

/** A broker that takes no time: it says welcome, and `subscribed` to us. */
async function greetingBroker(t: Test): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    const parser = mqtt.parser()
    parser.on('packet', ({ cmd }) => {
      if (cmd === 'connect')
        socket.write(mqtt.generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }))
      if (cmd === 'subscribe') server.emit('subscribed')
    })
    socket.on('data', (bytes) => parser.parse(bytes))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  cleanUp(t, () => server.close())
  return server
}

/** Time in which a process could have run, had there been a free core. (Documentation/scheduler/sched-stats.rst) */
function waitedForCoreMs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1e6
}
