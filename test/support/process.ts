import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { cleanUp, type Test } from './clean-up.ts'

const source = [process.execPath, fileURLToPath(new URL('../../headgate.mjs', import.meta.url))]

/** A process that has not said by then what is waited for will not; under qemu on a busy machine a start takes half of it. */
const patienceMs = 120_000

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  /** From the request to end, or from the start, to the end. */
  elapsedMs: number
}

export interface HeadgateOptions {
  /** A program that runs it and becomes it, with its arguments: `setpriv …`, `strace -D …`. */
  through?: readonly string[]
  /** What is the command `headgate`, with its first arguments; without it, the source tree. */
  command?: readonly string[]
  env?: Record<string, string>
}

/** One `headgate` command in a process of its own; what still runs when the test ends is killed. */
export class Headgate {
  readonly #process: ChildProcess
  readonly #startedMs = performance.now()
  readonly #gone: Promise<unknown>
  #stdout = ''
  #stderr = ''

  private constructor(
    args: readonly string[],
    { through = [], command = source, env }: HeadgateOptions,
  ) {
    const [program, ...rest] = [...through, ...command, ...args]
    this.#process = spawn(program!, rest, {
      stdio: ['pipe', 'pipe', 'pipe'],
      // Should the test be interrupted, the end of stdin ends what it has started.
      env: { ...process.env, HEADGATE_STOP_WITH_STDIN: '1', ...env },
    })
    this.#process.stdin!.on('error', () => {})
    this.#process.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text
    })
    this.#process.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
    this.#gone = once(this.#process, 'close')
  }

  static start(t: Test, args: readonly string[], options: HeadgateOptions = {}): Headgate {
    const started = new Headgate(args, options)
    cleanUp(t, () => started.kill())
    return started
  }

  /** Runs a command to its end. */
  static async run(
    t: Test,
    args: readonly string[],
    options: HeadgateOptions = {},
  ): Promise<Ended & { stdout: string; stderr: string }> {
    const started = Headgate.start(t, args, options)
    const ended = await started.ended()
    return { ...ended, stdout: started.stdout, stderr: started.stderr }
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** All that was printed so far. */
  get stdout(): string {
    return this.#stdout
  }

  get stderr(): string {
    return this.#stderr
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** Resolves once stderr has it. @throws when the process ends before */
  async said(pattern: RegExp): Promise<void> {
    await this.#printed('stderr', pattern)
  }

  /** Resolves once stdout has it. @throws when the process ends before */
  async printed(pattern: RegExp): Promise<void> {
    await this.#printed('stdout', pattern)
  }

  async #printed(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<void> {
    const signal = AbortSignal.timeout(patienceMs)
    let ended = false
    const end = this.#gone.then(() => {
      ended = true
    })
    while (!pattern.test(this[stream])) {
      if (ended) throw new Error(`it ended without saying ${pattern}: ${this.#stderr}`)
      if (signal.aborted) throw new Error(`it did not say ${pattern}: ${this.#stderr}`)
      const more = once(this.#process[stream]!, 'data', { signal }).catch(() => {})
      await Promise.race([more, end])
    }
  }

  async ended(sinceMs = this.#startedMs): Promise<Ended> {
    await this.#gone
    const { exitCode: code, signalCode: signal } = this.#process
    return { code, signal, elapsedMs: performance.now() - sinceMs }
  }

  /** Asks it to end, as an operator would. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ended> {
    const sinceMs = performance.now()
    this.#process.kill(signal)
    return this.ended(sinceMs)
  }

  /** Stops it where it is; only `kill` can follow. */
  halt(): void {
    this.#process.kill('SIGSTOP')
  }

  /** `kill -9`, by process id. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#gone
  }
}
