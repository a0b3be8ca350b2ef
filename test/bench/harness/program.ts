import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { cleanUp, type Test } from '../../support/clean-up.ts'

/** What runs; should the bench be broken off, it goes too. */
const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => process.exit(1))

/** A side in a process of its own that speaks in lines. */
export class Program {
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #name: string

  private constructor(name: string, child: ChildProcess) {
    this.#name = name
    this.#process = child
    this.#lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
  }

  /** A program of ours, `file` relative to test/bench, on this Node. */
  static script(t: Test, file: string, args: readonly (string | number)[] = []): Program {
    const path = fileURLToPath(new URL(`../${file}`, import.meta.url))
    return Program.start(t, process.execPath, [path, ...args.map(String)])
  }

  /** @param options.quiet what it complains of is of no interest */
  static start(
    t: Test,
    program: string,
    args: readonly string[],
    { quiet = false }: { quiet?: boolean } = {},
  ): Program {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', quiet ? 'ignore' : 'inherit'] })
    child.stdin!.on('error', () => {})
    running.add(child)
    child.on('exit', () => running.delete(child))
    const started = new Program(program, child)
    cleanUp(t, () => started.stop('SIGKILL'))
    return started
  }

  /** It has ended. */
  get ended(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null
  }

  get pid(): number {
    return this.#process.pid!
  }

  /** The next line that it prints. @throws when it ends instead */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error(`${this.#name} ended without saying what was waited for`)
    return value
  }

  async json<T>(): Promise<T> {
    return JSON.parse(await this.line()) as T
  }

  /** Reads on and throws away what it prints from here on, so that it never waits for us. */
  drain(): void {
    void this.line().then(
      () => this.drain(),
      () => {},
    )
  }

  tell(line: string): void {
    this.#process.stdin!.write(`${line}\n`)
  }

  /** Resolves once it has ended. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.ended) return
    this.#process.kill(signal)
    await once(this.#process, 'exit')
  }
}
