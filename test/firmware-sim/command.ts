import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { TestContext } from 'node:test'

/** `headgate` as a user runs it. */
export class Running {
  stdout = ''
  stderr = ''
  readonly child: ChildProcessWithoutNullStreams
  readonly #closed: Promise<unknown>

  constructor(t: TestContext, args: readonly string[], env: Record<string, string> = {}) {
    this.child = spawn(process.execPath, ['headgate.mjs', ...args], {
      env: { ...process.env, ...env },
    })
    this.child.stdout.on('data', (bytes) => (this.stdout += bytes))
    this.child.stderr.on('data', (bytes) => (this.stderr += bytes))
    this.#closed = once(this.child, 'close')
    t.after(() => this.child.kill('SIGKILL'))
  }

  /** Exit code; null when a signal ended it. */
  async ended(): Promise<number | null> {
    await this.#closed
    return this.child.exitCode
  }
}

/** Runs a command to its end. */
export async function run(
  t: TestContext,
  args: readonly string[],
  env?: Record<string, string>,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const running = new Running(t, args, env)
  const code = await running.ended()
  return { code, stdout: running.stdout, stderr: running.stderr }
}
