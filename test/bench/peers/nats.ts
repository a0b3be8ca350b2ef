import { mkdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import type { Test } from '../../support/clean-up.ts'
import { freePort } from '../../support/free-port.ts'
import { poll } from '../../support/poll.ts'
import { bridge, startMosquitto } from '../harness/mosquitto.ts'
import { Program } from '../harness/program.ts'
import type { Make } from './peer.ts'

/** mosquitto, by a bridge → nats-server's MQTT → a hub. */
export function makeNats(binary: string): Make {
  return async (t, directory) => {
    const nats = await Nats.make(t, binary, join(directory, 'nats'))
    const broker = await startMosquitto(t, bridge('out', nats.mqttPort))
    return {
      port: broker.port,
      brokerPid: broker.pid,
      async start() {
        await nats.startEdge()
        await pause(1_500) // Until the bridge is up, of which mosquitto says nothing.
      },
      pid: () => nats.edge.pid,
      kill: () => nats.edge.stop('SIGKILL'),
      openCloud: () => nats.startHub(),
      arrived: () => nats.count(),
    }
  }
}

/**
 * NATS as forwarder: MQTT into a JetStream stream at the edge, which a stream at the hub copies over a
 * leaf connection.
 */
class Nats {
  readonly mqttPort: number
  readonly #t: Test
  readonly #binary: string
  readonly #folder: string
  readonly #ports: { edge: number; hub: number; leaf: number }
  edge!: Program

  static async make(t: Test, binary: string, folder: string): Promise<Nats> {
    const ports = { edge: await freePort(), hub: await freePort(), leaf: await freePort() }
    const nats = new Nats(t, binary, folder, ports, await freePort())
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, 'edge.conf'), nats.#edgeConfiguration())
    await writeFile(join(folder, 'hub.conf'), nats.#hubConfiguration())
    return nats
  }

  private constructor(
    t: Test,
    binary: string,
    folder: string,
    ports: { edge: number; hub: number; leaf: number },
    mqttPort: number,
  ) {
    this.#t = t
    this.#binary = binary
    this.#folder = folder
    this.#ports = ports
    this.mqttPort = mqttPort
  }

  async startEdge(): Promise<void> {
    const { edge } = this.#ports
    this.edge = Program.start(this.#t, this.#binary, ['-c', join(this.#folder, 'edge.conf')], {
      quiet: true,
    })
    await this.#ready(edge, 'STREAM.CREATE.EDGE', { name: 'EDGE', subjects: ['sensors.>'] })
  }

  async startHub(): Promise<void> {
    const { hub } = this.#ports
    Program.start(this.#t, this.#binary, ['-c', join(this.#folder, 'hub.conf')], { quiet: true })
    const external = { api: '$JS.edge.API', deliver: 'deliver.hub' }
    await this.#ready(hub, 'STREAM.CREATE.CLOUD', {
      name: 'CLOUD',
      sources: [{ name: 'EDGE', external }],
    })
  }

  /** Messages that the hub holds. */
  async count(): Promise<number> {
    const info = await request(this.#ports.hub, '$JS.API.STREAM.INFO.CLOUD', {})
    return (info as { state?: { messages: number } }).state?.messages ?? 0
  }

  /** Asks until the server is up and has made the stream. */
  async #ready(port: number, api: string, stream: object): Promise<void> {
    const settings = { storage: 'file', retention: 'limits', num_replicas: 1, ...stream }
    await poll(async () => {
      const answer = await request(port, `$JS.API.${api}`, settings).catch(() => undefined)
      return answer !== undefined && 'config' in answer
    }, `NATS: ${api}`)
  }

  #edgeConfiguration(): string {
    return `
      server_name: edge
      listen: "127.0.0.1:${this.#ports.edge}"
      jetstream { store_dir: "${join(this.#folder, 'edge')}", domain: edge }
      mqtt { host: "127.0.0.1", port: ${this.mqttPort} }
      leafnodes { reconnect: "1s", remotes: [ { url: "nats-leaf://127.0.0.1:${this.#ports.leaf}" } ] }
      log_file: "${join(this.#folder, 'edge.log')}"`
  }

  #hubConfiguration(): string {
    return `
      server_name: hub
      listen: "127.0.0.1:${this.#ports.hub}"
      jetstream { store_dir: "${join(this.#folder, 'hub')}", domain: hub }
      leafnodes { listen: "127.0.0.1:${this.#ports.leaf}" }
      log_file: "${join(this.#folder, 'hub.log')}"`
  }
}

/** One request in the NATS protocol. @throws when there is no answer within a second */
function request(port: number, subject: string, content: object): Promise<object> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    const fail = () => {
      socket.destroy()
      reject(new Error(`NATS gave no answer to ${subject}`))
    }
    const timer = setTimeout(fail, 1_000)
    socket.on('error', fail)
    const body = JSON.stringify(content)
    socket.write('CONNECT {"verbose":false}\r\nSUB _INBOX.bench 1\r\n')
    socket.write(`PUB ${subject} _INBOX.bench ${Buffer.byteLength(body)}\r\n${body}\r\n`)
    const lines = createInterface(socket).on('line', (line) => {
      if (!line.startsWith('{')) return
      clearTimeout(timer)
      socket.destroy()
      resolve(JSON.parse(line) as object)
    })
    lines.on('error', () => {})
  })
}
