import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from '../../support/free-port.ts'
import { type Broker, bridge, startMosquitto } from '../harness/mosquitto.ts'
import { Program } from '../harness/program.ts'
import { countOf, type Make } from './peer.ts'

/** mosquitto → a mosquitto with a bridge to either side → a second mosquitto. */
export const makeBridge: Make = async (t, directory) => {
  const broker = await startMosquitto(t)
  const cloudPort = await freePort()
  const folder = join(directory, 'bridge')
  await mkdir(folder)
  const lines = [
    ...bridge('in', broker.port),
    ...bridge('out', cloudPort),
    // As a careful owner would have it; what it saves every half an hour does not show here.
    'persistence true',
    `persistence_location ${folder}/`,
  ]
  const port = await freePort()
  let bridging: Broker | undefined
  let sink: Program | undefined
  return {
    port: broker.port,
    brokerPid: broker.pid,
    async start() {
      bridging = await startMosquitto(t, lines, port)
      await pause(1_500) // Until its bridges are up, of which it says nothing.
    },
    pid: () => bridging!.pid,
    kill: () => bridging!.stop('SIGKILL'),
    async openCloud() {
      await startMosquitto(t, [], cloudPort)
      sink = Program.script(t, 'peers/mqtt-sink.ts', [cloudPort])
      await sink.line()
    },
    arrived: () => countOf(sink!),
  }
}
