import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { cleanUp, type Test } from '../clean-up.ts'
import { endProcess } from '../end-process.ts'
import { freePort } from '../free-port.ts'
import { poll } from '../poll.ts'
import { here, type Site } from '../site.ts'
import { temporaryDirectory } from '../temporary.ts'
import { natsServer } from './program.ts'

/** One nats-server with JetStream, over any number of starts and kills; gone when the test ends. */
export class NatsNode {
  readonly host: string
  readonly port: number
  readonly #monitor: number
  readonly #command: readonly string[]
  readonly #logFile: string
  #process: ChildProcess | undefined

  private constructor(
    place: { host: string; port: number; monitor: number },
    command: readonly string[],
    logFile: string,
  ) {
    this.host = place.host
    this.port = place.port
    this.#monitor = place.monitor
    this.#command = command
    this.#logFile = logFile
  }

  /** @param t whose end is theirs: a test, or a file's `after` */
  static async start(
    t: Test & Pick<TestContext, 'skip'>,
    options: { nodes?: number; site?: Site; lines?: readonly string[]; syncInterval?: string } = {},
  ): Promise<NatsNode[] | undefined> {
    const { nodes = 1, site = here, lines = [], syncInterval = 'always' } = options
    const binary = await natsServer(t)
    if (!binary) return undefined
    const directory = await temporaryDirectory(t)
    const routes: string[] = []
    const cluster: number[] = []
    for (let node = 0; node < nodes; node++) {
      cluster.push(await freePort())
      routes.push(`"nats://${site.host(node)}:${cluster[node]}"`)
    }
    const started: NatsNode[] = []
    for (let node = 0; node < nodes; node++) {
      const place = { host: site.host(node), port: await freePort(), monitor: await freePort() }
      const config = join(directory, `${node}.conf`)
      const logFile = join(directory, `${node}.log`)
      const text = [
        `server_name: node-${node}`,
        `listen: "${place.host}:${place.port}"`,
        `http: "${place.host}:${place.monitor}"`,
        'max_payload: 4MB',
        `log_file: "${logFile}"`,
        // The default leaves what was acknowledged to the page cache for two minutes.
        `jetstream { store_dir: "${directory}/${node}", sync_interval: ${syncInterval}, max_file_store: 8GB }`,
        ...lines,
        ...(nodes > 1
          ? [
              `cluster { name: test, listen: "${place.host}:${cluster[node]}", routes: [${routes}] }`,
            ]
          : []),
      ]
      await writeFile(config, `${text.join('\n')}\n`)
      const command = [...site.through(node), binary, '-c', config]
      const each = new NatsNode(place, command, logFile)
      cleanUp(t, () => each.kill())
      each.launch()
      started.push(each)
    }
    await Promise.all(started.map((each) => each.healthy()))
    return started
  }

  get url(): string {
    return `nats://${this.host}:${this.port}`
  }

  get monitoring(): string {
    return `http://${this.host}:${this.#monitor}`
  }

  get pid(): number {
    return this.#process!.pid!
  }

  launch(): void {
    const [program, ...args] = this.#command
    this.#process = spawn(program!, args, { stdio: 'ignore' })
  }

  /** Resolves once it serves and has caught up with the others. */
  async healthy(): Promise<void> {
    await poll(async () => {
      const answer = await fetch(`${this.monitoring}/healthz`).catch(() => null)
      if (answer?.ok) return true
      if (this.#process?.exitCode != null) throw new Error(await readFile(this.#logFile, 'utf8'))
      return false
    }, `the NATS server on port ${this.port} is healthy`)
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child, signal)
  }
}
