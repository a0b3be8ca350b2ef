import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { cleanUp } from './clean-up.ts'
import { endProcess } from './end-process.ts'
import { freePort } from './free-port.ts'
import { needs } from './needs.ts'
import { temporaryDirectory } from './temporary.ts'
import { until } from './until.ts'

export interface MosquittoOptions {
  /** Lines for mosquitto.conf beyond the listener; `%d` stands for its folder. */
  lines?: readonly string[]
  /** Users with their passwords; without any, everybody may come in. */
  users?: Record<string, string>
}

/** Without these mosquitto keeps 1,000 messages for an agent that is away, and drops the rest unsaid. */
export const keepsQueue = ['max_queued_messages 0', 'max_inflight_messages 1000']
/** And over its own end: it saves what has changed before it waits for more. */
export const keepsOverKill = [
  ...keepsQueue,
  'persistence true',
  'persistence_location %d/',
  'autosave_on_changes true',
  'autosave_interval 1',
]

/** A real mosquitto on a free port of loopback, with its folder, gone when the test ends. */
export class Mosquitto {
  readonly port: number
  readonly directory: string
  readonly #binary: string
  #process: ChildProcess | undefined

  private constructor(binary: string, directory: string, port: number) {
    this.#binary = binary
    this.directory = directory
    this.port = port
  }

  /** Resolves once it listens; undefined when mosquitto is not installed and the test was skipped. */
  static async start(
    t: TestContext,
    options: MosquittoOptions = {},
  ): Promise<Mosquitto | undefined> {
    const binary = needs(t, 'mosquitto')
    if (!binary) return undefined
    const directory = await temporaryDirectory(t)
    const mosquitto = new Mosquitto(binary, directory, await freePort())
    const lines = [
      `listener ${mosquitto.port} 127.0.0.1`,
      `allow_anonymous ${options.users === undefined}`,
      ...(process.getuid?.() === 0 ? ['user root'] : []),
      ...(options.lines ?? []).map((line) => line.replaceAll('%d', directory)),
    ]
    if (options.users) {
      const file = join(directory, 'passwords')
      const entries = Object.entries(options.users).map(
        ([user, password]) => `${user}:${password}\n`,
      )
      await writeFile(file, entries.join(''))
      // It comes in the same package.
      execFileSync('mosquitto_passwd', ['-U', file])
      lines.push(`password_file ${file}`)
    }
    await writeFile(mosquitto.#configuration, `${lines.join('\n')}\n`)
    cleanUp(t, () => mosquitto.kill())
    await mosquitto.up()
    return mosquitto
  }

  get #configuration(): string {
    return join(this.directory, 'mosquitto.conf')
  }

  get url(): string {
    return `mqtt://127.0.0.1:${this.port}`
  }

  /** Starts it, again after `kill`. */
  async up(): Promise<void> {
    this.#process = spawn(this.#binary, ['-c', this.#configuration], { stdio: 'ignore' })
    await until(() => listens(this.port), 'mosquitto listens')
  }

  /** Ends it as a power cut would; with SIGTERM in order, so that it saves (`persistence true`). */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process
    this.#process = undefined
    await endProcess(child, signal)
  }

  /** Has it write its sessions and queues to disk (`persistence true`), until `text` is among them. */
  async save(text: string): Promise<void> {
    this.#process?.kill('SIGUSR1')
    const file = join(this.directory, 'mosquitto.db')
    const saved = async () => (await readFile(file).catch(() => Buffer.alloc(0))).includes(text)
    await until(saved, 'mosquitto has saved')
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const done = (up: boolean) => {
      socket.destroy()
      resolve(up)
    }
    socket.once('connect', () => done(true)).once('error', () => done(false))
  })
}
