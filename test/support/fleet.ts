import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import mqtt, { type MqttClient } from 'mqtt'
import { enrol } from '../../agent/enrol/enrol.ts'
import { identityFolder, identityTls } from '../../agent/enrol/identity.ts'
import { Collector } from '../../collector/collector.ts'
import { type CollectorConfig, loadCollectorConfig } from '../../collector/config.ts'
import { initFleet, type ManagerFiles, readManagerFiles } from '../../collector/fleet/files.ts'
import { FleetClient } from '../../collector/fleet-command/client.ts'
import type { Labels } from '../../shared/fleet/groups.ts'
import { formatInvitation } from '../../shared/fleet/invitation.ts'
import { cleanUp } from './clean-up.ts'
import { silentLog } from './silent-log.ts'
import { temporaryDirectory } from './temporary.ts'

/** A gateway that has enrolled, without an agent on it. */
export interface Gateway {
  name: string
  data: string
  fleetBroker: string
  tls: { cert: Buffer; key: Buffer; ca: Buffer }
}

/** A fleet with its collector on free ports, and a manager at work; gone when the test ends. */
export class TestFleet {
  readonly folder: string
  readonly files: ManagerFiles
  readonly config: CollectorConfig
  readonly #t: TestContext
  collector!: Collector
  client!: FleetClient

  private constructor(
    t: TestContext,
    folder: string,
    files: ManagerFiles,
    config: CollectorConfig,
  ) {
    this.#t = t
    this.folder = folder
    this.files = files
    this.config = config
  }

  /**
   * @param more of the sections `fleet` and `fleet.broker` of its collector.yaml
   * @param existing an authority (PEM) to take instead of a new one
   */
  static async start(
    t: TestContext,
    more = '',
    broker = 'port: 0',
    existing?: { certificate: string; key: string },
  ): Promise<TestFleet> {
    const folder = await temporaryDirectory(t)
    await initFleet({
      folder: join(folder, 'fleet'),
      url: 'https://127.0.0.1:7070',
      hosts: [],
      manager: 'alice',
      nowMs: Date.now(),
      ...(existing && { existing }),
    })
    const file = join(folder, 'collector.yaml')
    await writeFile(
      file,
      `data: ./data\nhttp: { port: 0 }\nfleet: { folder: ./fleet, broker: { ${broker} }, ${more} }\n`,
    )
    const files = await readManagerFiles(join(folder, 'fleet'))
    const fleet = new TestFleet(t, folder, files, await loadCollectorConfig(file, {}))
    await fleet.up()
    cleanUp(t, () => fleet.down())
    return fleet
  }

  async up(): Promise<void> {
    this.collector = await Collector.open(this.config, silentLog)
    this.client = new FleetClient(this.collector.url, this.files)
  }

  async down(): Promise<void> {
    await this.client[Symbol.asyncDispose]()
    await this.collector.close()
  }

  get url(): string {
    return this.collector.url
  }

  async invite(agent: string, labels: Labels = {}, ttlMs = 60_000): Promise<string> {
    const secret = new Uint8Array(randomBytes(16))
    const hash = createHash('sha256').update(secret).digest('hex')
    await this.client.invite([{ agent, labels, hash }], ttlMs)
    const pin = createHash('sha256').update(new X509Certificate(this.files.ca).raw).digest()
    return formatInvitation({ secret, pin })
  }

  async enrol(agent: string, labels: Labels = {}): Promise<Gateway> {
    const data = await temporaryDirectory(this.#t)
    await enrol({
      url: this.url,
      token: await this.invite(agent, labels),
      folder: identityFolder(data),
    })
    return readGateway(data)
  }

  /** Connects as a gateway, or as the manager. */
  async connect(
    who: Gateway,
    options: { clientId?: string; url?: string; will?: { topic: string; payload: string } } = {},
  ): Promise<MqttClient> {
    const { url = who.fleetBroker, will, clientId } = options
    const client = mqtt.connect(url, {
      ...{ ...who.tls, allowPartialTrustChain: true },
      reconnectPeriod: 0,
      connectTimeout: 5_000,
      ...(clientId !== undefined && { clientId }),
      ...(will && { will: { ...will, payload: Buffer.from(will.payload), qos: 1, retain: true } }),
    })
    cleanUp(this.#t, () => client.endAsync(true).catch(() => {}))
    await new Promise<void>((resolve, reject) => {
      client.once('connect', () => resolve())
      client.once('error', reject)
      client.once('close', () => reject(new Error('closed')))
    })
    client.on('error', () => {})
    return client
  }

  /** The manager, as the broker sees one. */
  manager(fleetBroker: string): Gateway {
    const { ca, cert, key } = this.files
    const tls = { ca: Buffer.from(ca), cert: Buffer.from(cert), key: Buffer.from(key) }
    return { name: 'manager:alice', data: '', fleetBroker, tls }
  }

  journal(): Promise<string> {
    return readFile(join(this.config.data, 'fleet', 'audit.jsonl'), 'utf8')
  }
}

export async function readGateway(data: string): Promise<Gateway> {
  const folder = identityFolder(data)
  const { agent, fleetBroker } = JSON.parse(await readFile(join(folder, 'identity.json'), 'utf8'))
  return { name: agent, data, fleetBroker, tls: identityTls(folder)! }
}
