import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stringify } from 'yaml'
import type { AgentStatus } from '../../agent/agent.ts'
import { ask } from '../../shared/control.ts'
import { imbalance } from '../../shared/ledger.ts'
import { lanes } from '../../shared/reading.ts'
import type { Test } from './clean-up.ts'
import { freePort } from './free-port.ts'
import { poll } from './poll.ts'
import { type Ended, Headgate, type HeadgateOptions } from './process.ts'

/** Retries so short that a test need not wait for them. */
const quick = { base: '50ms', max: '250ms' }

type Section = Record<string, unknown>

export interface AgentOptions {
  /** Folder for its configuration and, below `data` unless `data` says where, for what it keeps. */
  directory: string
  data?: string
  broker: string
  collector: string
  name?: string
  source?: Section
  uplink?: Section
  /** Further sections of agent.yaml. */
  more?: Section
}

/** One gateway: an agent's configuration and folder, over any number of starts, stops and kills. */
export class Gateway {
  readonly configFile: string
  readonly data: string
  readonly #t: Test
  #process: Headgate | undefined

  private constructor(t: Test, directory: string, data: string) {
    this.#t = t
    this.configFile = join(directory, 'agent.yaml')
    this.data = data
  }

  static async make(t: Test, options: AgentOptions): Promise<Gateway> {
    const { directory, broker, collector, name = 'gw-001', source, uplink, more } = options
    const data = options.data ?? join(directory, 'data')
    await mkdir(directory, { recursive: true })
    const gateway = new Gateway(t, directory, data)
    await writeFile(
      gateway.configFile,
      stringify({
        agent: name,
        data,
        source: { url: broker, retry: { ...quick }, ...source },
        decode: [{ topic: 'sensors/{device}/{metric}', format: 'json' }],
        uplink: { url: collector, retry: { ...quick }, ...uplink },
        ...more,
      }),
    )
    return gateway
  }

  /** Starts it; resolves once its store is open and it can be asked. */
  async start(options?: HeadgateOptions): Promise<Headgate> {
    const started = this.launch(options)
    await started.said(/agent is running/)
    return started
  }

  /** Starts it, and waits for nothing. */
  launch(options?: HeadgateOptions): Headgate {
    const args = ['agent', 'run', '--config', this.configFile]
    this.#process = Headgate.start(this.#t, args, options)
    return this.#process
  }

  get process(): Headgate {
    assert.ok(this.#process, 'the agent was never started')
    return this.#process
  }

  kill(): Promise<void> {
    return this.process.kill()
  }

  stop(): Promise<Ended> {
    return this.process.stop()
  }

  /** Undefined while it does not answer. */
  async status(): Promise<AgentStatus | undefined> {
    const text = await ask(this.data, 'GET', '/status').catch(() => undefined)
    return text === undefined ? undefined : (JSON.parse(text) as AgentStatus)
  }

  /** Resolves with the first status that satisfies. */
  until(
    satisfies: (status: AgentStatus) => boolean,
    what: string,
    withinMs?: number,
  ): Promise<AgentStatus> {
    return poll(
      async () => {
        const status = await this.status()
        return status && satisfies(status) && status
      },
      what,
      withinMs,
    )
  }

  /** Connected, and its subscription granted: from now on the broker keeps messages for it. */
  subscribed(): Promise<AgentStatus> {
    return this.until(({ source }) => source.subscribed.length > 0, 'the agent has subscribed')
  }

  /** Resolves once `count` readings, repeats apart, are at the collector and nothing waits. */
  async drained(count: number, withinMs?: number): Promise<AgentStatus> {
    const status = await poll(
      async () => {
        await ask(this.data, 'POST', '/flush').catch(() => {})
        const found = await this.status()
        return found && found.ledger.received - found.ledger.deduplicated >= count && isEmpty(found)
          ? found
          : undefined
      },
      `the agent has delivered ${count} readings`,
      withinMs,
    ).catch(async (error: Error) => {
      const { ledger } = (await this.status()) ?? {}
      throw new Error(`${error.message}; ledger ${JSON.stringify(ledger)}`, { cause: error })
    })
    assert.equal(imbalance(status.ledger), 0, `out of balance: ${JSON.stringify(status.ledger)}`)
    return status
  }
}

function isEmpty({ ledger, lanes: waiting }: AgentStatus): boolean {
  return ledger.buffered === 0 && lanes.every((lane) => waiting[lane].sequences === 0)
}

export interface CollectorOptions {
  /** As with the agent. */
  directory: string
  data?: string
  /** Further sections of collector.yaml. */
  more?: Section
}

/** The cloud's end: a collector's configuration, folder and port, over any number of starts. */
export class Cloud {
  readonly configFile: string
  readonly data: string
  readonly port: number
  readonly #t: Test
  #process: Headgate | undefined

  private constructor(t: Test, { directory, data }: CollectorOptions, port: number) {
    this.#t = t
    this.configFile = join(directory, 'collector.yaml')
    this.data = data ?? join(directory, 'data')
    this.port = port
  }

  static async make(t: Test, options: CollectorOptions): Promise<Cloud> {
    await mkdir(options.directory, { recursive: true })
    const cloud = new Cloud(t, options, await freePort())
    await writeFile(
      cloud.configFile,
      stringify({
        data: cloud.data,
        http: { host: '127.0.0.1', port: cloud.port },
        auth: { mode: 'open' },
        ...options.more,
      }),
    )
    return cloud
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Starts it; resolves once it listens. */
  async start(options?: HeadgateOptions): Promise<Headgate> {
    const started = this.launch(options)
    await started.said(/"msg":"listening"/)
    return started
  }

  launch(options?: HeadgateOptions): Headgate {
    const args = ['collector', 'run', '--config', this.configFile]
    this.#process = Headgate.start(this.#t, args, options)
    return this.#process
  }

  get process(): Headgate {
    assert.ok(this.#process, 'the collector was never started')
    return this.#process
  }

  kill(): Promise<void> {
    return this.process.kill()
  }

  stop(): Promise<Ended> {
    return this.process.stop()
  }

  /** What `headgate log cat` prints of the readings, in the order of the log; `verify` must agree. */
  async readings(): Promise<LoggedReading[]> {
    const place = ['--data', this.data]
    const [cat, verify] = await Promise.all([
      Headgate.run(this.#t, ['log', 'cat', ...place, '--format', 'csv']),
      Headgate.run(this.#t, ['log', 'verify', ...place]),
    ])
    assert.equal(verify.code, 0, `log verify: ${verify.stdout}${verify.stderr}`)
    assert.equal(cat.code, 0, `log cat: ${cat.stderr}`)
    const [header, ...lines] = cat.stdout.trimEnd().split('\n')
    const names = header!.split(',')
    return lines.map((line) => {
      const cells = line.split(',')
      const cell = (name: string) => cells[names.indexOf(name)]!
      return {
        device: cell('device'),
        metric: cell('metric'),
        time: cell('time'),
        value: cell('value'),
        quality: cell('quality'),
        incarnation: cell('incarnation'),
        sequence: Number(cell('sequence')),
      }
    })
  }
}

/** A row of `headgate log cat`, as text where a test compares text. */
export interface LoggedReading {
  device: string
  metric: string
  time: string
  value: string
  quality: string
  incarnation: string
  sequence: number
}
