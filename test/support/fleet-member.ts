import { readFile } from 'node:fs/promises'
import mqtt from 'mqtt'
import { Agent } from '../../agent/agent.ts'
import { openFleetDialer } from '../../agent/fleet/dial.ts'
import { privateDisk } from '../../agent/fleet/disk.ts'
import { Fleet } from '../../agent/fleet/fleet.ts'
import type { Document } from '../../shared/fleet/envelope.ts'
import type { AgentReport, CommandResult, Reported } from '../../shared/fleet/reports.ts'
import { topicsOf } from '../../shared/fleet/topics.ts'
import { systemClock, systemRandom } from '../../shared/system.ts'
import { agentConfig, agentPorts } from './agent-in-process.ts'
import type { Certificates } from './certificates.ts'
import { cleanUp, type Test } from './clean-up.ts'
import type { FleetDesk } from './fleet-desk.ts'
import { ModelCollector } from './model-collector.ts'
import { silentLog } from './silent-log.ts'
import { temporaryDirectory } from './temporary.ts'
import { until } from './until.ts'

export interface MemberOptions {
  /** The plant's broker, and the fleet's. */
  broker: string
  fleet: string
  desk: FleetDesk
  certificates: Certificates
  labels?: Record<string, string>
  /** Sections of the gateway's own configuration. */
  sections?: Record<string, unknown>
  data?: string
  proxy?: string
}

/** Agent gw-001 as a member of a fleet, in this process, until the test ends or it is stopped. */
export async function runMember(t: Test, options: MemberOptions) {
  const { broker, fleet: fleetBroker, desk, certificates, labels = {}, sections, proxy } = options
  const data = options.data ?? (await temporaryDirectory(t as never))
  const collector = new ModelCollector()
  const local = agentConfig(data, broker, {
    ...sections,
    fleet: { probation: '5s', statusEvery: '1s', retry: { base: '50ms', max: '250ms' } },
  })
  const { ca, client } = certificates
  const stop = new AbortController()
  const restarts: number[] = []
  const fleet = await Fleet.open(
    { agent: 'gw-001', labels, fleetBroker, configKey: desk.keys.publicKey },
    local,
    {
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      disk: privateDisk(data),
      environment: {},
      versions: { headgate: '0.0.0', node: process.versions.node },
      openDialer: (url, through) => openFleetDialer(url, { ca, ...client }, through ?? proxy),
      memoryBytes: () => process.memoryUsage.rss(),
      clockOffsetMs: () => undefined,
      restart: () => restarts.push(1),
    },
  )
  const second = new ModelCollector()
  const collectors = (url: string) => {
    if (url === 'http://collector.test') return collector
    if (url === 'http://second.test') return second
    const nowhere = new ModelCollector()
    nowhere.before = () => {
      throw Object.assign(new Error('nothing there'), { code: 'ECONNREFUSED' })
    }
    return nowhere
  }
  const agent = new Agent(fleet.config, await agentPorts(t, collectors, data))
  const running = agent.run(stop.signal)
  const taking = fleet.run(agent, stop.signal)
  const end = async () => {
    stop.abort()
    await running
    await taking
  }
  cleanUp(t, end)
  await until(() => {
    const { paused, source } = agent.status ?? {}
    return paused === true || (source?.subscribed.length ?? 0) > 0
  }, 'the agent runs')
  return { agent, fleet, collector, second, local, data, restarts, end }
}

/** What a manager hears and says, by a certificate of the same authority. */
export class FleetWatcher {
  readonly #client: mqtt.MqttClient
  readonly #desk: FleetDesk
  readonly #topics = topicsOf('gw-001')
  reported: Reported[] = []
  status: AgentReport[] = []
  results: CommandResult[] = []

  private constructor(client: mqtt.MqttClient, desk: FleetDesk) {
    this.#client = client
    this.#desk = desk
    client.on('message', (topic, payload) => {
      const content = JSON.parse(payload.toString())
      if (topic === this.#topics.reported) this.reported.push(content)
      else if (topic === this.#topics.status) this.status.push(content)
      else this.results.push(content)
    })
  }

  static async open(t: Test, url: string, { ca, client }: Certificates, desk: FleetDesk) {
    const [caPem, cert, key] = await Promise.all(
      [ca, client.cert, client.key].map((file) => readFile(file)),
    )
    const connected = await mqtt.connectAsync(url, {
      reconnectPeriod: 100,
      ...(url.startsWith('mqtts:') && { ca: caPem!, cert: cert!, key: key! }),
    })
    cleanUp(t, () => connected.endAsync(true))
    const watcher = new FleetWatcher(connected, desk)
    const { reported, status, result } = watcher.#topics
    const results = result('x').replace(/x$/, '+')
    await connected.subscribeAsync([reported, status, results], { qos: 1 })
    return watcher
  }

  async push(version: number, document: Document): Promise<void> {
    await this.publish(this.#desk.configuration(version, document))
  }

  async publish(bytes: Uint8Array): Promise<void> {
    await this.#client.publishAsync(this.#topics.desired, Buffer.from(bytes), {
      qos: 1,
      retain: true,
    })
  }

  async command(id: string, bytes: Uint8Array): Promise<void> {
    await this.#client.publishAsync(this.#topics.command(id), Buffer.from(bytes), { qos: 1 })
  }

  /** Has a command done, and gives what became of it. */
  async ask(id: string, command: string, given: Document = {}): Promise<CommandResult> {
    await this.command(id, this.#desk.command(id, command, given))
    return this.result(id)
  }

  async result(id: string): Promise<CommandResult> {
    const found = () => this.results.find((result) => result.id === id)
    await until(() => found() !== undefined, `a result of ${id}`)
    return found()!
  }

  async until(version: number, state: Reported['state'], withinMs = 20_000): Promise<Reported> {
    const found = () => {
      const last = this.reported.at(-1)
      return last?.version === version && last.state === state ? last : undefined
    }
    await until(() => found() !== undefined, `version ${version} is ${state}`, withinMs).catch(
      (cause: Error) => {
        throw new Error(`${cause.message}: ${JSON.stringify(this.reported.at(-1))}`, { cause })
      },
    )
    return found()!
  }
}
