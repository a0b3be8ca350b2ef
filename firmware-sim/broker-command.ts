import { once } from 'node:events'
import type { Command } from 'commander'
import { stopSignal } from '../shared/command.ts'
import { UserError } from '../shared/failure.ts'
import { Broker, defaultLimits } from './broker.ts'

interface Options {
  host: string
  port: number
  json?: boolean
}

export function registerBroker(command: Command): void {
  command
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .option('--port <number>', 'which port; 0 takes any free one', parsePort, 1883)
    .option('--json', 'print the address as JSON, one line')
    .addHelpText(
      'after',
      `
MQTT 3.1.1 over TCP, for anybody who can reach the address. Sessions and what is queued for them are
kept in memory: when the broker ends they are gone. A session may be owed ${defaultLimits.maxMessages} messages; from then on
publishers of QoS 1 are not acknowledged until it has taken some, or has been away for an hour, which
ends it.

Example:
  headgate broker --port 0 --json`,
    )
    .action(async (options: Options) => {
      const signal = stopSignal()
      await using broker = await Broker.open({
        ...options,
        onHold: (session, queued) =>
          warn(`"${session}" has not taken ${queued} messages: publishers wait until it has`),
      })
      process.stdout.write(
        options.json
          ? `${JSON.stringify({ url: broker.url })}\n`
          : `broker listens on ${broker.url}\n`,
      )
      if (!signal.aborted) await once(signal, 'abort')
      const { queued } = broker
      if (queued > 0)
        warn(`ends with ${queued} messages that no subscriber has taken; they are gone`)
    })
}

function warn(message: string): void {
  process.stderr.write(`headgate broker: ${message}\n`)
}

function parsePort(text: string): number {
  const port = Number(text)
  if (!Number.isSafeInteger(port) || port < 0 || port > 65535)
    throw new UserError(`--port takes a number from 0 to 65535, not "${text}"`, { exitCode: 2 })
  return port
}
