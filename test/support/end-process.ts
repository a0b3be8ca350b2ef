import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** Resolves once the process is gone, as it may have been before. */
export async function endProcess(
  child: ChildProcess | undefined,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  child.kill(signal)
  await once(child, 'exit')
}
