import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from '../../support/clean-up.ts'
import { freePort } from '../../support/free-port.ts'
import { startMosquitto } from '../harness/mosquitto.ts'
import { Program } from '../harness/program.ts'
import { countOf, type Make } from './peer.ts'

/** mosquitto → Node-RED → an HTTP server that keeps nothing. */
export function makeNodeRed(red: string, perRequest: number): Make {
  return async (t, directory) => {
    const broker = await startMosquitto(t)
    const sinkPort = await freePort()
    let sink: Program | undefined
    let program: Program | undefined
    return {
      port: broker.port,
      brokerPid: broker.pid,
      async start() {
        const folder = join(directory, 'node-red')
        const options = { red, folder, broker: broker.port, sink: sinkPort, perRequest }
        program = await startNodeRed(t, options)
      },
      pid: () => program!.pid,
      kill: () => program!.stop('SIGKILL'),
      async openCloud() {
        sink = Program.script(t, 'peers/http-sink.ts', [sinkPort])
        await sink.line()
      },
      arrived: () => countOf(sink!),
    }
  }
}

/**
 * Node-RED that takes `sensors/#` with QoS 1 and posts each message, or arrays of `perRequest`, over
 * kept-alive connections; its session at the broker stays while it is away.
 */
async function startNodeRed(
  t: Test,
  options: { red: string; folder: string; broker: number; sink: number; perRequest: number },
): Promise<Program> {
  const { red, folder, broker, sink, perRequest } = options
  await mkdir(folder, { recursive: true })
  const flows = join(folder, 'flows.json')
  const settings = join(folder, 'settings.js')
  await writeFile(flows, JSON.stringify(flowOf(broker, sink, perRequest)))
  await writeFile(
    settings,
    `module.exports = ${JSON.stringify({
      uiPort: await freePort(),
      uiHost: '127.0.0.1',
      flowFile: flows,
      httpAdminRoot: false,
      telemetry: { enabled: false, updateNotification: false },
      logging: { console: { level: 'info', metrics: false, audit: false } },
    })}`,
  )
  const program = Program.start(t, process.execPath, [red, '--settings', settings, '-u', folder])
  // It goes on to say each failed request, so its lines are read on and thrown away.
  while (!/Connected to broker/.test(await program.line())) {}
  program.drain()
  return program
}

function flowOf(broker: number, sink: number, perRequest: number): object[] {
  const single = perRequest === 1
  return [
    { id: 'flow', type: 'tab', label: 'bench' },
    {
      id: 'broker',
      type: 'mqtt-broker',
      broker: '127.0.0.1',
      port: String(broker),
      clientid: 'node-red',
      autoConnect: true,
      protocolVersion: '4',
      keepalive: '60',
      cleansession: false,
    },
    {
      id: 'in',
      type: 'mqtt in',
      z: 'flow',
      topic: 'sensors/#',
      qos: '1',
      datatype: 'json',
      broker: 'broker',
      wires: [[single ? 'post' : 'gather']],
    },
    {
      id: 'gather',
      type: 'join',
      z: 'flow',
      mode: 'custom',
      build: 'array',
      property: 'payload',
      propertyType: 'msg',
      count: String(perRequest),
      timeout: '1',
      wires: [['post']],
    },
    {
      id: 'post',
      type: 'http request',
      z: 'flow',
      method: 'POST',
      ret: 'txt',
      paytoqs: 'ignore',
      url: `http://127.0.0.1:${sink}/`,
      persist: true,
      wires: [[]],
    },
  ].filter(({ id }) => !single || id !== 'gather')
}
