import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { request } from 'undici'
import { stringify } from 'yaml'
import { sleep } from '../shared/clock.ts'
import { integerOption, repeated, stopSignal } from '../shared/command.ts'
import { readYaml } from '../shared/config.ts'
import { ask } from '../shared/control.ts'
import { UserError } from '../shared/failure.ts'
import { makeFolder } from '../shared/folder.ts'
import { imbalance, type Ledger, ledgerWords } from '../shared/ledger.ts'
import { systemClock } from '../shared/system.ts'
import { Trace } from '../shared/trace.ts'
import { Child } from './child.ts'
import { CuttableLink } from './cuttable-link.ts'
import { configureNatsServer, findNatsServer, listens } from './nats-server.ts'
import type { SimReport } from './sim-command.ts'
import { parseSpeed } from './sim-options.ts'

interface Options {
  trace?: string[]
  speed: string
  untilDone?: boolean
  outage?: number
  data?: string
  engine: string
  nats?: string[]
  kafka?: string[]
  config?: string
  json?: boolean
}

/** What of the running agent's status `up` looks at. */
interface AgentStatus {
  ledger: Ledger
  totals: { derivedForwarded: number; quarantineForwarded: number }
  lanes: Record<string, { sequences: number }>
  source: { phase: string }
  uplink: { state: { phase: string }; lastFailure?: string }
}

export interface StreamTotals {
  readings: number
  batches: number
  bytes: number
}

/** What `up --json` prints. */
export interface UpReport {
  sent: number
  ledger: Ledger
  log: Record<string, StreamTotals>
  balanced: boolean
  elapsedMs: number
}

const agentName = 'gw-001'
/** `--until-done` gives up when nothing has moved for so long, the outage apart. */
const stuckAfterMs = 120_000

export function registerUp(command: Command): void {
  command
    .option('--trace <file.csv...>', 'recorded traces to replay; may be repeated', repeated)
    .option('--speed <n|max>', "times the recording's own pace, or max", checkedSpeed, '1')
    .option('--until-done', 'end once everything sent is in the log; exit 0 only if all adds up')
    .option(
      '--outage <seconds>',
      'cut the uplink for so long in mid-run',
      integerOption('--outage', 1),
    )
    .option('--data <dir>', 'keep the data here; default: a fresh temporary folder')
    .addOption(
      new Option('--engine <name>', 'where the collector keeps the log')
        .choices(['embedded', 'nats', 'kafka'])
        .default('embedded'),
    )
    .option(
      '--nats <url...>',
      'NATS servers for --engine nats; default: starts the nats-server on PATH',
      repeated,
    )
    .option('--kafka <host:port...>', 'running Kafka brokers, for --engine kafka', repeated)
    .option('--config <agent.yaml>', "take the agent's filter and decode sections from here")
    .option('--json', 'print the result as one JSON document')
    .addHelpText(
      'after',
      `
Starts an MQTT broker, a collector, an agent and simulated devices, each a process of its own, on free
ports of this machine. Without --trace it plays an invented plant of 50 devices and, beside it, this
machine's own load, memory and temperature (with --until-done for a minute). Ctrl-C stops it in order
and prints the ledger.

Examples:
  headgate up
  headgate up --trace machine_temperature.csv --speed max --until-done --outage 20`,
    )
    .action(run)
}

async function run(options: Options): Promise<void> {
  const startMs = systemClock.monotonicMs()
  const signal = stopSignal()
  for (const file of options.trace ?? []) await Trace.open(file) // Says what is wrong with it.
  const sections = await agentSections(options.config)
  const data = resolve(options.data ?? (await mkdtemp(join(tmpdir(), 'headgate-up-'))))
  await makeDataFolder(data)
  say(`data in ${data}`)
  const plant = await Plant.start(options, data, sections, signal)
  let report: UpReport
  try {
    if (options.untilDone) await plant.untilDone(signal)
    else await plant.untilStopped(signal)
    report = await plant.report(startMs)
  } finally {
    await plant.stop()
  }
  print(report, options)
  if (options.untilDone && !report.balanced) process.exitCode = 1
}

/** The processes, and what can be asked of them. */
class Plant {
  readonly #children: Child[] = []
  readonly #data: string
  readonly #options: Options
  #link!: CuttableLink
  #devices: Child | undefined
  #collectorUrl = ''
  #last: AgentStatus | undefined
  /** A `--data` that was used before brings its ledger along. */
  #receivedBefore = 0

  private constructor(options: Options, data: string) {
    this.#options = options
    this.#data = data
  }

  static async start(
    options: Options,
    data: string,
    sections: AgentSections,
    signal: AbortSignal,
  ): Promise<Plant> {
    const plant = new Plant(options, data)
    try {
      await plant.#start(sections, signal)
    } catch (error) {
      await plant.stop()
      throw error
    }
    return plant
  }

  async #start(sections: AgentSections, signal: AbortSignal): Promise<void> {
    const broker = this.#spawn('broker', ['broker', '--port', '0', '--json'])
    const collectorData = join(this.#data, 'collector')
    await makeDataFolder(collectorData)
    const collectorConfig = join(this.#data, 'collector.yaml')
    const log = await this.#engine(signal)
    await writeCollectorConfig(collectorConfig, 0, log)
    const collector = this.#spawn('collector', ['collector', 'run', '--config', collectorConfig], {
      restart: true,
    })
    const { url: brokerUrl } = JSON.parse(await broker.firstLine()) as { url: string }
    this.#collectorUrl = await this.#collectorAddress(
      collector,
      join(collectorData, 'collector.json'),
      signal,
    )
    const { hostname, port } = new URL(this.#collectorUrl)
    // Should it be killed it comes back under the same address.
    await writeCollectorConfig(collectorConfig, Number(port), log)
    this.#link = await CuttableLink.open({ host: hostname, port: Number(port) })

    const agentConfig = join(this.#data, 'agent.yaml')
    await writeFile(
      agentConfig,
      stringify({
        agent: agentName,
        data: './agent',
        source: { url: brokerUrl },
        ...sections,
        uplink: { url: `http://127.0.0.1:${this.#link.port}`, retry: { base: '1s', max: '5s' } },
      }),
    )
    const agent = this.#spawn('agent', ['agent', 'run', '--config', agentConfig], {
      restart: true,
    })
    say(`agent is process ${agent.pid}, collector ${collector.pid}`)
    await this.#until(
      signal,
      agent,
      async () => (await this.#status())?.source.phase === 'connected',
    )
    this.#receivedBefore = this.#receivedMessages()

    const play = ['sim', '--broker', brokerUrl, '--speed', this.#options.speed, '--json']
    const traces = this.#options.trace
    const endless = this.#options.untilDone ? ['--duration', '60s'] : []
    const source = traces
      ? traces.flatMap((file) => ['--trace', file])
      : ['--host-metrics', ...endless]
    this.#devices = this.#spawn('devices', [...play, ...source])
  }

  /** The collector's section `log`, once the engine can be reached. */
  async #engine(signal: AbortSignal): Promise<object> {
    const { engine, nats, kafka } = this.#options
    for (const [name, servers] of Object.entries({ nats, kafka }))
      if (servers && engine !== name)
        throw new UserError(`--${name} goes with --engine ${name}`, { exitCode: 2 })
    if (engine === 'embedded') return { engine }
    // A log of this folder's own, in a cluster that may have others.
    const name = basename(this.#data)
      .replace(/[^A-Za-z0-9_-]/g, '_')
      .slice(-64)
    if (engine === 'kafka') {
      if (!kafka) throw new UserError('name running brokers: --kafka host:port', { exitCode: 2 })
      return { engine, kafka: { brokers: kafka, name, replicas: Math.min(3, kafka.length) } }
    }
    if (nats) return { engine, nats: { servers: nats, name, replicas: Math.min(3, nats.length) } }
    const program = findNatsServer()
    const own = await configureNatsServer(join(this.#data, 'nats'))
    const server = this.#spawn('nats', ['-c', own.file], { restart: true, program })
    await Promise.race([listens(own.port, signal), server.failed()])
    const monitoring = [own.monitoring]
    return { engine, nats: { servers: [own.url], monitoring, name, replicas: 1 } }
  }

  #spawn(
    name: string,
    args: string[],
    options: { restart?: boolean; program?: string } = {},
  ): Child {
    const child = new Child(name, args, join(this.#data, `${name}.log`), options)
    child.onRestart = () => say(`${name} was killed: started again as process ${child.pid}`)
    this.#children.push(child)
    return child
  }

  /** Waits until `done`, looking ten times a second, or until the child ends. */
  async #until(signal: AbortSignal, child: Child, done: () => Promise<boolean>): Promise<void> {
    const end = new AbortController()
    const running = AbortSignal.any([signal, end.signal])
    const watch = async () => {
      while (!(await done())) await sleep(systemClock, 100, running)
    }
    try {
      await Promise.race([watch(), child.failed()])
    } finally {
      end.abort() // A watch that goes on would keep the process from ending.
    }
  }

  async #collectorAddress(collector: Child, file: string, signal: AbortSignal): Promise<string> {
    let url: string | undefined
    await this.#until(signal, collector, async () => {
      const text = await readFile(file, 'utf8').catch(() => '')
      const found = text ? (JSON.parse(text) as { url: string; pid: number }) : undefined
      // A file left by an earlier run names another process.
      if (found && found.pid === collector.pid) url = found.url
      return url !== undefined
    })
    return url ?? ''
  }

  async #status(): Promise<AgentStatus | undefined> {
    const text = await ask(join(this.#data, 'agent'), 'GET', '/status').catch(() => undefined)
    if (text) this.#last = JSON.parse(text) as AgentStatus
    return text ? this.#last : undefined
  }

  /** Cuts the uplink once it has carried something, and restores it. */
  async #outage(signal: AbortSignal): Promise<void> {
    const seconds = this.#options.outage
    if (!seconds) return
    await this.#link.firstAnswer
    this.#link.cut()
    say(`uplink cut for ${seconds} s`)
    await sleep(systemClock, seconds * 1000, signal)
    this.#link.restore()
    say('uplink restored')
  }

  async untilStopped(signal: AbortSignal): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
    const end = new AbortController()
    const running = AbortSignal.any([signal, end.signal])
    const watching = this.#watch(running)
    const outage = this.#outage(running).catch(() => {})
    try {
      await Promise.race([stopped, ...this.#children.map((child) => this.#failed(child))])
    } finally {
      end.abort()
      await watching
      await outage
    }
  }

  /** Rejects when the child ends unasked; the devices may come to the end of their recording. */
  async #failed(child: Child): Promise<never> {
    if (child === this.#devices && (await child.ended) === 0) return new Promise(() => {})
    return child.failed()
  }

  /**
   * Waits until the devices have ended and nothing is on its way any more.
   *
   * @throws UserError when nothing moves for two minutes
   */
  async untilDone(signal: AbortSignal): Promise<void> {
    const end = new AbortController()
    const running = AbortSignal.any([signal, end.signal])
    const watching = this.#watch(running)
    const outage = this.#outage(running)
    outage.catch(() => {}) // Awaited only once there is something to wait for.
    const parts = this.#children.filter((child) => child !== this.#devices)
    try {
      await Promise.race([this.#drained(running, outage), ...parts.map((child) => child.failed())])
    } finally {
      end.abort()
      await watching
    }
  }

  async #drained(signal: AbortSignal, outage: Promise<void>): Promise<void> {
    const devices = this.#devices
    if (devices && (await devices.ended) !== 0)
      throw new UserError(`the devices failed (log: ${devices.logFile})`)
    const { acknowledged } = this.#simReport()
    if (acknowledged > 0) await outage
    let seen = ''
    let seenMs = systemClock.monotonicMs()
    for (;;) {
      signal.throwIfAborted()
      await ask(join(this.#data, 'agent'), 'POST', '/flush').catch(() => {})
      const status = await this.#status()
      if (status) {
        const { ledger, lanes } = status
        const waiting = Object.values(lanes).reduce((sum, { sequences }) => sum + sequences, 0)
        if (this.#receivedMessages() >= acknowledged && ledger.buffered === 0 && waiting === 0)
          return
        const now = JSON.stringify([ledger, waiting])
        if (now !== seen) seenMs = systemClock.monotonicMs()
        seen = now
      }
      if (systemClock.monotonicMs() - seenMs > stuckAfterMs)
        throw new UserError(
          `nothing has moved for ${stuckAfterMs / 1000} s: ${seen} (logs in ${this.#data})`,
        )
      await sleep(systemClock, 50, signal)
    }
  }

  /** Distinct messages that the agent has received since the start, as of its last status. */
  #receivedMessages(): number {
    const { received = 0, deduplicated = 0 } = this.#last?.ledger ?? {}
    return received - deduplicated - this.#receivedBefore
  }

  #simReport(): Pick<SimReport, 'sent' | 'acknowledged'> {
    const output = this.#devices?.output
    return output ? (JSON.parse(output) as SimReport) : { sent: 0, acknowledged: 0 }
  }

  /** What the collector says is in the log. It is asked again while a cluster is between two leaders. */
  async #logTotals(): Promise<Record<string, StreamTotals>> {
    const endMs = systemClock.monotonicMs() + stuckAfterMs
    for (;;) {
      const { statusCode, body } = await request(`${this.#collectorUrl}/v1/streams`)
      if (statusCode === 200) return (await body.json()) as Record<string, StreamTotals>
      await body.dump()
      if (statusCode !== 503 || systemClock.monotonicMs() > endMs)
        throw new UserError(`the collector answers ${statusCode} (logs in ${this.#data})`)
      await sleep(systemClock, 500)
    }
  }

  /** Stops the devices, then reads the ledger and the log, which must agree. */
  async report(startMs: number): Promise<UpReport> {
    await this.#devices?.stop()
    const status = (await this.#status()) ?? this.#last
    if (!status) throw new UserError(`the agent does not answer (logs in ${this.#data})`)
    const log = await this.#logTotals()
    const { ledger, totals } = status
    const { sent, acknowledged } = this.#simReport()
    const inLog = log.readings?.readings ?? 0
    const agrees = inLog === ledger.forwarded + totals.derivedForwarded
    const complete = !this.#options.untilDone || this.#receivedMessages() === acknowledged
    return {
      sent,
      ledger,
      log,
      balanced: imbalance(ledger) === 0 && agrees && complete,
      elapsedMs: Math.round(systemClock.monotonicMs() - startMs),
    }
  }

  /** Keeps one line of figures current on a terminal. */
  async #watch(signal: AbortSignal): Promise<void> {
    const terminal = process.stderr.isTTY
    let before: { received: number; forwarded: number; atMs: number } | undefined
    while (!signal.aborted) {
      const status = await this.#status()
      if (status && terminal) {
        const { received, forwarded, buffered, suppressed } = status.ledger
        const atMs = systemClock.monotonicMs()
        const rate = (now: number, then: number) =>
          before ? Math.round(((now - then) * 1000) / (atMs - before.atMs)) : 0
        const link = this.#link.isCut ? 'CUT' : status.uplink.state.phase
        process.stderr.write(
          `\r\u001b[Kreceived ${received} (${rate(received, before?.received ?? 0)}/s)  ` +
            `forwarded ${forwarded} (${rate(forwarded, before?.forwarded ?? 0)}/s)  ` +
            `buffered ${buffered}  suppressed ${suppressed}  uplink ${link}`,
        )
        before = { received, forwarded, atMs }
      }
      await sleep(systemClock, 500, signal).catch(() => {})
    }
    if (terminal) process.stderr.write('\r\u001b[K')
  }

  /** From the devices to the broker: each part outlives those that feed on it. */
  async stop(): Promise<void> {
    for (const child of [...this.#children].reverse()) await child.stop()
    await this.#link?.[Symbol.asyncDispose]()
  }
}

/** @param port 0 takes any free one */
function writeCollectorConfig(file: string, port: number, log: object): Promise<void> {
  const http = { host: '127.0.0.1', port }
  const config = { data: './collector', http, auth: { mode: 'open' }, log }
  return writeFile(file, stringify(config))
}

type AgentSections = Record<string, unknown>

/** The sections that a user's agent.yaml may bring; by default what the simulator publishes is decoded. */
async function agentSections(file: string | undefined): Promise<AgentSections> {
  const standard = { decode: [{ topic: 'sensors/{device}/{metric}', format: 'json' }] }
  if (!file) return standard
  const { decode, filter } = ((await readYaml(file)) ?? {}) as AgentSections
  return {
    ...standard,
    ...(decode !== undefined && { decode }),
    ...(filter !== undefined && { filter }),
  }
}

/** Says what is wrong with a speed before anything is started; the simulator reads it itself. */
function checkedSpeed(text: string): string {
  parseSpeed(text)
  return text
}

async function makeDataFolder(path: string): Promise<void> {
  try {
    await makeFolder(path)
  } catch (cause) {
    throw new UserError(
      `${path}: cannot make the folder (${(cause as NodeJS.ErrnoException).code}): choose another --data`,
      { cause },
    )
  }
}

function print(report: UpReport, { json }: Options): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(report)}\n`)
    return
  }
  const { sent, ledger, log, balanced, elapsedMs } = report
  const lines = [
    `sent ${sent} messages in ${(elapsedMs / 1000).toFixed(1)} s`,
    'ledger',
    ...ledgerWords.map((word) => `  ${word.padEnd(13)}${ledger[word]}`),
    'log',
    ...Object.entries(log).map(
      ([stream, { readings, batches, bytes }]) =>
        `  ${stream.padEnd(13)}${readings} in ${batches} batches, ${bytes} bytes`,
    ),
    balanced ? 'balanced' : 'NOT BALANCED',
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}

function say(message: string): void {
  process.stderr.write(`headgate up: ${message}\n`)
}
