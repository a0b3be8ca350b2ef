import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { connect, createSecureContext, type TLSSocket } from 'node:tls'
import mqtt from 'mqtt-packet'
import { type Dispatcher, request } from 'undici'
import { certificateRequest } from '../../../agent/enrol/request.ts'
import { open } from '../../../shared/fleet/envelope.ts'
import { topicsOf } from '../../../shared/fleet/topics.ts'

interface Papers {
  certificate: string
  ca: string
  configKey: string
  fleetBroker: string
}

/** As much of an agent as its fleet sees, for thousands in one process. */
export class SimulatedGateway {
  readonly #name: string
  readonly #papers: Papers
  readonly #key: KeyObject
  readonly #configKey: KeyObject
  #socket!: TLSSocket
  #version = 0

  /** Makes a key and enrols with it, as the agent does. */
  static async enrol(
    name: string,
    secret: string,
    url: string,
    dispatcher: Dispatcher,
  ): Promise<SimulatedGateway> {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const { statusCode, body } = await request(`${url}/v1/fleet/enrol`, {
      method: 'POST',
      body: JSON.stringify({ token: secret, request: certificateRequest(privateKey, name) }),
      dispatcher,
    })
    if (statusCode !== 200) throw new Error(`${name}: ${statusCode} ${await body.text()}`)
    return new SimulatedGateway(name, (await body.json()) as Papers, privateKey)
  }

  private constructor(name: string, papers: Papers, key: KeyObject) {
    this.#name = name
    this.#papers = papers
    this.#key = key
    this.#configKey = createPublicKey(papers.configKey)
  }

  /** Resolves once the broker has taken the subscription. */
  async connect(): Promise<void> {
    const { certificate, ca, fleetBroker } = this.#papers
    const { port } = new URL(fleetBroker)
    const key = this.#key.export({ type: 'pkcs8', format: 'pem' })
    const secureContext = createSecureContext({ cert: certificate, key, ca })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const socket = connect({ host: '127.0.0.1', port: Number(port), secureContext })
    this.#socket = socket
    socket.on('error', reject)
    socket.on('close', () => reject(new Error(`${this.#name} was disconnected`)))
    const parser = mqtt.parser()
    parser.on('packet', (packet) => {
      if (packet.cmd === 'suback') resolve()
      if (packet.cmd !== 'publish') return
      if (packet.qos > 0) this.#send({ cmd: 'puback', messageId: packet.messageId! })
      this.#take(packet.payload as Buffer)
    })
    socket.on('data', (bytes) => parser.parse(bytes))
    const { desired, status } = topicsOf(this.#name)
    socket.once('secureConnect', () => {
      const will = {
        topic: status,
        payload: Buffer.from(this.#status(false)),
        qos: 1,
        retain: true,
      } as const
      this.#send({
        cmd: 'connect',
        clientId: this.#name,
        protocolId: 'MQTT',
        protocolVersion: 4,
        clean: true,
        keepalive: 0,
        will,
      })
      this.#publish(status, this.#status(true))
      this.#send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: desired, qos: 1 }] })
    })
    return promise
  }

  close(): void {
    this.#socket.on('error', () => {})
    this.#socket.destroy()
  }

  /** It checks the signature, as an agent must, and is well at once. */
  #take(payload: Buffer): void {
    const { version } = open('configuration', payload, this.#configKey)
    if (version <= this.#version) return
    this.#version = version
    const report = {
      version,
      since: new Date().toISOString(),
      state: 'good',
      desired: version,
      problems: [],
    }
    this.#publish(topicsOf(this.#name).reported, JSON.stringify(report))
  }

  #status(online: boolean): string {
    return JSON.stringify({ agent: this.#name, online })
  }

  #publish(topic: string, text: string): void {
    this.#send({
      cmd: 'publish',
      topic,
      payload: text,
      qos: 1,
      retain: true,
      dup: false,
      messageId: 2,
    })
  }

  #send(packet: Parameters<typeof mqtt.generate>[0]): void {
    this.#socket.write(mqtt.generate(packet))
  }
}
