import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { TestContext } from 'node:test'
import { cleanUp } from './clean-up.ts'
import { needs } from './needs.ts'

export interface Fault {
  /** System calls, comma between them. */
  calls: string
  /** As strace writes it: `error=EIO`, `error=ENOSPC:when=3+5`, `delay_enter=10ms`. */
  fault: string
  /** Only where they touch these files, which need not be there yet. */
  files?: readonly string[]
}

function argsOf({ calls, fault, files = [] }: Fault): string[] {
  return [
    ...['-f', '-o', '/dev/null', '-e', `trace=${calls}`, '-e', `inject=${calls}:${fault}`],
    ...files.flatMap((file) => ['-P', file]),
  ]
}

/** Breaks system calls of processes, from their start or while they run. */
export class Strace {
  readonly #t: TestContext
  readonly #binary: string

  private constructor(t: TestContext, binary: string) {
    this.#t = t
    this.#binary = binary
  }

  /** Undefined when strace is not installed and the test was skipped. */
  static find(t: TestContext): Strace | undefined {
    const binary = needs(t, 'strace')
    return binary === undefined ? undefined : new Strace(t, binary)
  }

  /** In front of a command: the fault is there from its start, and other calls cost nothing. */
  through(fault: Fault): string[] {
    // The tracer steps aside (-D), so that the process started is the command itself.
    return [this.#binary, '-D', '--seccomp-bpf', ...argsOf(fault), '--']
  }

  /** Breaks a running process; resolves once it is broken. The returned function mends it. */
  async break(pid: number, fault: Fault): Promise<() => Promise<void>> {
    const tracer = spawn(this.#binary, ['-p', String(pid), ...argsOf(fault)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const exit = once(tracer, 'exit')
    const mend = async () => {
      tracer.kill('SIGINT')
      await exit
    }
    cleanUp(this.#t, mend)
    let said = ''
    tracer.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const gone = exit.then(() => {
      throw new Error(`strace: ${said}`)
    })
    gone.catch(() => {})
    while (!/attached/.test(said)) await Promise.race([once(tracer.stderr, 'data'), gone])
    return mend
  }
}
