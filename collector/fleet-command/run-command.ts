import { randomBytes } from 'node:crypto'
import { sleep } from '../../shared/clock.ts'
import { stopSignal } from '../../shared/command.ts'
import { UserError } from '../../shared/failure.ts'
import { type Document, sign } from '../../shared/fleet/envelope.ts'
import type { CommandName, CommandResult } from '../../shared/fleet/reports.ts'
import { systemClock } from '../../shared/system.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import type { FleetAccess } from './client.ts'

const lookEveryMs = 250

export interface CommandRequest {
  agent: string
  command: CommandName
  given: Document
  timeoutMs: number
}

/**
 * Has an agent do something, once, and waits for what comes of it.
 *
 * @throws UserError when it refuses, fails or does not answer in time
 */
export async function runCommand(
  client: FleetAccess,
  files: ManagerFiles,
  { agent, command, given, timeoutMs }: CommandRequest,
): Promise<CommandResult> {
  const id = randomBytes(8).toString('hex')
  const expiresMs = systemClock.wallMs() + timeoutMs
  await client.command(
    sign({ kind: 'command', agent, id, command, arguments: given, expiresMs }, files.configKey),
  )
  const endMs = systemClock.monotonicMs() + timeoutMs
  const signal = stopSignal()
  for (;;) {
    const result = await client.result(agent, id)
    if (result?.state === 'done') return result
    if (result) {
      const problems = result.problems.map(
        ({ path, message }) => `${path ? `${path}: ` : ''}${message}`,
      )
      throw new UserError(`${agent}: ${command} ${result.state}: ${problems.join('; ')}`)
    }
    if (systemClock.monotonicMs() > endMs)
      throw new UserError(
        `${agent} has not answered in time: if ${command} has not begun by now, it never will`,
      )
    await sleep(systemClock, lookEveryMs, signal)
  }
}

/** What a command gives, a line for each value. */
export function lines(content: object, prefix = ''): string[] {
  return Object.entries(content).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null
      ? lines(value, `${prefix}${key}.`)
      : [`${prefix}${key}: ${value}`],
  )
}
