import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Readable, Writable } from 'node:stream'
import { UserError } from '../shared/failure.ts'

const launcher = new URL('../headgate.mjs', import.meta.url).pathname

/** A part of `up`: a `headgate` command, or another program, in a process of its own, with its log in a file. */
export class Child implements AsyncDisposable {
  readonly name: string
  readonly logFile: string
  /** Resolves when the process has ended, with its exit code. */
  readonly ended: Promise<number>
  /** Calls back when it was killed and has been started again. */
  onRestart: (() => void) | undefined
  readonly #args: readonly string[]
  readonly #restart: boolean
  readonly #program: string | undefined
  #process: ChildProcessByStdio<Writable, Readable, Readable>
  #output = ''
  #stopping = false

  /**
   * @param options.restart start it again when a signal ended it, as an init system would
   * @param options.program in place of `headgate`
   */
  constructor(
    name: string,
    args: readonly string[],
    logFile: string,
    options: { restart?: boolean; program?: string } = {},
  ) {
    this.name = name
    this.logFile = logFile
    this.#args = args
    this.#restart = options.restart ?? false
    this.#program = options.program
    this.#process = this.#spawn()
    this.ended = this.#watch()
  }

  #spawn(): ChildProcessByStdio<Writable, Readable, Readable> {
    const own = this.#program === undefined ? [launcher] : []
    const child = spawn(this.#program ?? process.execPath, [...own, ...this.#args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      // In a group of its own: Ctrl-C reaches `up` alone, which stops its parts in order.
      detached: true,
      env: { ...process.env, HEADGATE_STOP_WITH_STDIN: '1' },
    })
    child.stdin.on('error', () => {})
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
    })
    child.stderr.pipe(createWriteStream(this.logFile, { flags: 'a' }))
    return child
  }

  async #watch(): Promise<number> {
    for (;;) {
      const child = this.#process
      const { code, signal } = await new Promise<{ code: number | null; signal: string | null }>(
        (resolve, reject) => {
          child.once('error', reject)
          child.once('close', (code, signal) => resolve({ code, signal }))
        },
      )
      if (!this.#restart || this.#stopping || signal === null) return code ?? 1
      this.#process = this.#spawn()
      this.onRestart?.()
    }
  }

  get pid(): number | undefined {
    return this.#process.pid
  }

  /** Everything printed on stdout so far. */
  get output(): string {
    return this.#output
  }

  /** The first line on stdout. @throws UserError when the process ends without one */
  async firstLine(): Promise<string> {
    while (!this.#output.includes('\n')) {
      const more = new Promise((resolve) => this.#process.stdout.once('data', resolve))
      await Promise.race([more, this.failed()])
    }
    return this.#output.slice(0, this.#output.indexOf('\n'))
  }

  /** Rejects with its last words when the process ends unasked; never resolves. */
  async failed(): Promise<never> {
    const code = await this.ended
    if (this.#stopping) return new Promise(() => {})
    const log = await readFile(this.logFile, 'utf8').catch(() => '')
    const words = log.trim().split('\n').at(-1) ?? ''
    throw new UserError(`${this.name} ended with code ${code}: ${words} (log: ${this.logFile})`)
  }

  /** Asks it to stop, and waits. */
  async stop(): Promise<void> {
    this.#stopping = true
    this.#process.kill('SIGTERM')
    await this.ended
  }

  [Symbol.asyncDispose] = () => this.stop()
}
