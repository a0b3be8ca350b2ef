import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { sleep } from '../../shared/clock.ts'
import { UserError } from '../../shared/failure.ts'
import { open } from '../../shared/fleet/envelope.ts'
import type { CommandResult } from '../../shared/fleet/reports.ts'
import { parseFleetTopic, topicRoot, topicsOf } from '../../shared/fleet/topics.ts'
import { systemClock } from '../../shared/system.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import { type News, Reports } from '../fleet/reports.ts'
import { type AgentView, type FleetAccess, highestVersion } from './client.ts'

const connectTimeoutMs = 10_000
/** What is retained has come when nothing has come for so long. */
const quietMs = 400
/** What a broker has taken comes back to who listens within this time. */
const comeBackMs = 5_000

/**
 * A fleet as its broker shows it to a manager: what is retained, and what comes. Labels, groups and history
 * are the collector's, and so are rollouts.
 */
export class MqttFleet implements FleetAccess {
  readonly #client: MqttClient
  readonly #files: ManagerFiles
  readonly #reports = new Reports()
  /** Signed configurations, by agent, with their versions. */
  readonly #desired = new Map<string, { version: number; envelope: Uint8Array }>()
  /** Rejects with a UserError once the broker has ended the connection. */
  readonly #lost: Promise<never>
  #hungUp: UserError | undefined
  #lastMs = 0

  /** Resolves once what is retained is there. @throws UserError when the broker does not let us in */
  static async open(url: string, files: ManagerFiles): Promise<MqttFleet> {
    const { ca, cert, key } = files
    const tls = { ca, cert, key, allowPartialTrustChain: true }
    const client = mqtt.connect(url, {
      ...tls,
      wsOptions: tls, // Of those above it would hand on all but the last.
      clientId: `headgate-${process.pid}`,
      reconnectPeriod: 0,
      connectTimeout: connectTimeoutMs,
    } as IClientOptions)
    await new Promise<void>((resolve, reject) => {
      client.once('connect', () => resolve())
      client.once('error', (cause) => reject(new UserError(`${url}: ${cause.message}`, { cause })))
      client.once('close', () => reject(new UserError(`${url}: the broker has hung up`)))
    })
    client.on('error', () => {})
    const fleet = new MqttFleet(url, client, files)
    const [grant] = await client.subscribeAsync(`${topicRoot}/#`, { qos: 1 }).catch(() => [])
    if (!grant || grant.qos === 128) {
      await client.endAsync(true)
      throw new UserError(`${url}: the broker does not let a manager listen`)
    }
    await fleet.#quiet()
    return fleet
  }

  private constructor(url: string, client: MqttClient, files: ManagerFiles) {
    this.#client = client
    this.#files = files
    this.#lost = new Promise((_, reject) => {
      client.once('close', () => {
        this.#hungUp = new UserError(
          `${url}: the broker has hung up: it may let each manager in once, and another command of yours have come`,
        )
        reject(this.#hungUp)
      })
    })
    this.#lost.catch(() => {}) // Whoever waits for something is told.
    client.on('message', (topic, payload) => this.#take(topic, payload))
  }

  async agents(group?: string): Promise<AgentView[]> {
    if (group !== undefined)
      throw new UserError('groups are known to the collector only: leave --broker out', {
        exitCode: 2,
      })
    this.#mustBeThere()
    const names = new Set([...this.#reports.heard.keys(), ...this.#desired.keys()])
    return [...names].sort().map((name) => this.#view(name))
  }

  async agent(name: string): Promise<AgentView> {
    this.#mustBeThere()
    if (!this.#reports.heard.has(name) && !this.#desired.has(name))
      throw new UserError(`${name} has never been heard of at this broker: ask the collector`)
    return this.#view(name)
  }

  async version(agent?: string): Promise<number> {
    const sent = Math.max(0, ...[...this.#desired.values()].map(({ version }) => version))
    return agent === undefined
      ? sent
      : highestVersion(sent, agent, this.#reports.heard.get(agent)?.reported)
  }

  async envelope(version: number): Promise<Uint8Array | undefined> {
    return this.#desired.values().find((desired) => desired.version === version)?.envelope
  }

  async push(envelope: Uint8Array): Promise<{ agents: string[] }> {
    const { agent } = open('configuration', envelope, this.#files.configPublic)
    if (agent === undefined)
      throw new UserError('groups are known to the collector only: leave --broker out', {
        exitCode: 2,
      })
    await this.#publish(topicsOf(agent).desired, envelope, true)
    return { agents: [agent] }
  }

  async command(envelope: Uint8Array): Promise<void> {
    const { agent, id } = open('command', envelope, this.#files.configPublic)
    if (!this.#view(agent).online)
      throw new UserError(`${agent} is offline: commands are for now, not for later`)
    await this.#publish(topicsOf(agent).command(id), envelope, false)
  }

  async result(agent: string, id: string): Promise<CommandResult | undefined> {
    this.#mustBeThere()
    return this.#reports.results.get(`${agent} ${id}`)
  }

  async *events(signal: AbortSignal): AsyncIterable<Record<string, unknown>> {
    const waiting: News[] = []
    let wake = () => {}
    const end = this.#reports.listen((news) => {
      waiting.push(news)
      wake()
    })
    signal.addEventListener('abort', () => wake(), { once: true })
    this.#client.once('close', () => wake())
    try {
      while (!signal.aborted) {
        const news = waiting.shift()
        if (news) yield { ...news }
        else if (this.#hungUp) throw this.#hungUp
        else
          await new Promise<void>((resolve) => {
            wake = resolve
          })
      }
    } finally {
      end()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What is under way on a connection that is lost would be waited for for ever.
    await this.#client.endAsync(this.#hungUp !== undefined)
  }

  #take(topic: string, payload: Uint8Array): void {
    this.#lastMs = systemClock.monotonicMs()
    this.#reports.take(topic, payload, systemClock.wallMs())
    const target = parseFleetTopic(topic)
    if (target?.kind !== 'desired') return
    try {
      const { version } = open('configuration', payload, this.#files.configPublic)
      this.#desired.set(target.agent, { version, envelope: new Uint8Array(payload) })
    } catch {
      this.#desired.delete(target.agent) // Nothing that the agent would take, either.
    }
  }

  /** A broker may take what it then drops: what is retained has to come back. */
  async #publish(topic: string, payload: Uint8Array, retain: boolean): Promise<void> {
    this.#mustBeThere()
    const { promise: came, resolve } = Promise.withResolvers<boolean>()
    const take = (got: string, bytes: Buffer) => {
      if (got === topic && bytes.equals(payload)) resolve(true)
    }
    this.#client.on('message', take)
    const cancel = systemClock.timer(comeBackMs, () => resolve(false))
    try {
      const taken = this.#client.publishAsync(topic, Buffer.from(payload), { qos: 1, retain })
      taken.catch(() => {}) // Where the connection is lost, that is told.
      await Promise.race([taken, this.#lost])
      if (!(await Promise.race([came, this.#lost])))
        throw new UserError(`the broker has taken what was sent to ${topic}, and dropped it`)
    } finally {
      cancel()
      this.#client.off('message', take)
    }
  }

  /** What was heard stands still once nobody listens. */
  #mustBeThere(): void {
    if (this.#hungUp) throw this.#hungUp
  }

  #view(name: string): AgentView {
    const { reported, status, atMs } = this.#reports.heard.get(name) ?? {}
    const desired = this.#desired.get(name)?.version
    return {
      agent: name,
      labels: {},
      online: status?.online ?? false,
      ...(atMs !== undefined && { lastHeardAt: new Date(atMs).toISOString() }),
      ...(desired !== undefined && { desired }),
      ...(reported && { reported }),
      ...(status && { status }),
    }
  }

  async #quiet(): Promise<void> {
    this.#lastMs = systemClock.monotonicMs()
    for (;;) {
      const leftMs = this.#lastMs + quietMs - systemClock.monotonicMs()
      if (leftMs <= 0) return
      await sleep(systemClock, leftMs)
    }
  }
}
