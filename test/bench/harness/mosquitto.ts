import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Test } from '../../support/clean-up.ts'
import { freePort } from '../../support/free-port.ts'
import { poll } from '../../support/poll.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { findProgram } from './find.ts'
import { Program } from './program.ts'

/** A mosquitto that loses nothing of what it is given while it runs, and does not wait to fill packets. */
export interface Broker {
  url: string
  port: number
  pid: number
  stop(signal: NodeJS.Signals): Promise<void>
}

/** Why there can be no mosquitto here; undefined when there can. */
export function mosquittoAbsent(): string | undefined {
  return findProgram('mosquitto') ? undefined : 'needs mosquitto: apt-get install mosquitto'
}

/** @param lines of mosquitto.conf beside the listener */
export async function startMosquitto(
  t: Test,
  lines: readonly string[] = [],
  givenPort?: number,
): Promise<Broker> {
  const binary = findProgram('mosquitto')
  if (!binary) throw new Error(mosquittoAbsent())
  const port = givenPort ?? (await freePort())
  const file = join(await temporaryDirectory(t), 'mosquitto.conf')
  const settings = [
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    'set_tcp_nodelay true',
    'max_queued_messages 0',
    'max_inflight_messages 1000',
    'log_type none',
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    ...lines,
  ]
  await writeFile(file, `${settings.join('\n')}\n`)
  const program = Program.start(t, binary, ['-c', file], { quiet: true })
  await poll(() => listens(port), 'mosquitto listens')
  const stop = (signal: NodeJS.Signals) => program.stop(signal)
  return { url: `mqtt://127.0.0.1:${port}`, port, pid: program.pid, stop }
}

/** Lines that connect it to another broker, both ways with QoS 1 and a session that stays. */
export function bridge(direction: 'in' | 'out', port: number): string[] {
  return [
    `connection ${direction}`,
    `address 127.0.0.1:${port}`,
    `topic sensors/# ${direction} 1`,
    `remote_clientid bridge-${direction}`,
    'cleansession false',
    'try_private false',
    'notifications false',
    'restart_timeout 1',
  ]
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
