import type { Command } from 'commander'
import { parseDuration } from '../../shared/config.ts'
import { UserError } from '../../shared/failure.ts'
import { isLabelName, type Labels } from '../../shared/fleet/groups.ts'
import { isAgentName } from '../../shared/fleet/topics.ts'
import { type ManagerFiles, readManagerFiles } from '../fleet/files.ts'
import { type FleetAccess, FleetClient } from './client.ts'

export interface FleetOptions {
  fleet: string
  collector?: string
  broker?: string
}

/** The options that every command has which asks the collector. */
export function withFleet(command: Command): Command {
  return command
    .option(
      '--fleet <dir>',
      "the fleet's folder with its manager's part",
      process.env.HEADGATE_FLEET ?? './fleet',
    )
    .option('--collector <url>', 'the collector, where it is not the one that the folder names')
}

/** As `withFleet`, for commands that can do without the collector. */
export function withBroker(command: Command): Command {
  return withFleet(command).option(
    '--broker <url>',
    'go straight over the fleet broker, mqtts:// or wss://, without the collector',
  )
}

/** A manager at work: its files, and the way to the collector. */
export async function openApi(
  options: FleetOptions,
): Promise<{ files: ManagerFiles; client: FleetClient }> {
  const files = await readManagerFiles(options.fleet)
  const url = options.collector ?? files.url
  if (!/^https:\/\//.test(url) || !URL.canParse(url))
    throw new UserError(`--collector takes an https:// address, not "${url}"`, { exitCode: 2 })
  return { files, client: new FleetClient(url, files) }
}

/** A manager at work, by way of the collector or straight over the broker. */
export async function openFleet(
  options: FleetOptions,
): Promise<{ files: ManagerFiles; client: FleetAccess }> {
  const { broker } = options
  if (broker === undefined) return openApi(options)
  if (!/^(mqtts|wss):\/\//.test(broker) || !URL.canParse(broker))
    throw new UserError(`--broker takes an mqtts:// or wss:// address, not "${broker}"`, {
      exitCode: 2,
    })
  const files = await readManagerFiles(options.fleet)
  // Not before it is wanted: the client is large.
  const { MqttFleet } = await import('./mqtt-fleet.ts')
  return { files, client: await MqttFleet.open(broker, files) }
}

export function checkedAgent(name: string): string {
  if (isAgentName(name)) return name
  throw new UserError(
    `"${name}" is no name of an agent: 1 to 64 letters (A to Z, a to z), digits, _ or -`,
    { exitCode: 2 },
  )
}

/** `site=berlin`, any number of them. */
export function checkedLabels(texts: readonly string[]): Labels {
  const labels: Record<string, string> = Object.create(null)
  for (const text of texts) {
    const at = text.indexOf('=')
    const name = text.slice(0, Math.max(at, 0))
    if (!isLabelName(name))
      throw new UserError(`a label is given as name=value, not "${text}"`, { exitCode: 2 })
    labels[name] = text.slice(at + 1)
  }
  return { ...labels }
}

/** A duration on the command line, in ms. */
export function durationOption(name: string) {
  return (text: string): number => {
    const ms = parseDuration(text)
    if (ms === undefined)
      throw new UserError(`${name} takes a duration such as 30s, 10m or 24h, not "${text}"`, {
        exitCode: 2,
      })
    return ms
  }
}
