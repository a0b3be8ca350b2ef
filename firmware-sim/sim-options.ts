import { type Command, Option } from 'commander'
import { integerOption } from '../shared/command.ts'
import { parseDuration } from '../shared/config.ts'
import { UserError } from '../shared/failure.ts'
import { parseTime } from '../shared/trace.ts'
import { scenarioNames } from './scenario.ts'

/** What `headgate sim` is asked for. */
export interface SimOptions {
  broker: string
  trace?: string[]
  scenario?: string
  labels?: string
  out?: string
  devices?: number
  speed: number
  qos: 0 | 1
  loop?: boolean
  topicPrefix: string
  seed?: number
  start?: number
  duration?: number
  rows?: number
  hostMetrics?: boolean
  username?: string
  password?: string
  ca?: string
  giveUp: number
  json?: boolean
}

export function addSimOptions(command: Command): Command {
  return command
    .option('--broker <url>', 'mqtt://host:port or mqtts://host:port', 'mqtt://127.0.0.1:1883')
    .option('--trace <file.csv...>', 'traces to replay; may be repeated')
    .option('--scenario <name|file.yaml>', `devices with faults: ${scenarioNames().join(', ')}`)
    .option('--devices <n>', 'number of devices', integerOption('--devices', 1))
    .option('--speed <n|max>', "times the recording's own pace, or max", parseSpeed, 1)
    .option('--qos <0|1>', 'quality of service', parseQos, 1)
    .option('--loop', 'start the traces over at the end, with times that go on rising')
    .option('--topic-prefix <text>', 'what the topics begin with', parsePrefix, 'sensors')
    .option('--seed <n>', 'of the scenario or plant (default: 1)', integerOption('--seed', 0))
    .option('--start <time>', 'first time of the scenario or plant, or now', parseStart)
    .option('--duration <10m>', 'end after so much time of the recording', parseLength)
    .option('--rows <n>', 'end after so many messages', integerOption('--rows', 1))
    .option('--host-metrics', "add this machine's own load, memory and temperature, once a second")
    .option('--labels <file>', "write the scenario's faults, as .json or .csv")
    .option('--out <file.csv>', 'write the recording to a file instead of publishing it')
    .option('--username <name>', 'user at the broker')
    .addOption(
      new Option('--password <text>', 'password at the broker').env('HEADGATE_MQTT_PASSWORD'),
    )
    .option('--ca <file.pem>', 'certificates that vouch for the broker (mqtts)')
    .option('--give-up <30s|never>', 'end when there is no broker for so long', parseGiveUp, 30_000)
    .option('--json', 'print the result as JSON')
}

/** @throws UserError for options that do not go together */
export function checkSimOptions(options: SimOptions): void {
  const { trace, scenario, labels, devices, loop, rows, out, hostMetrics } = options
  if (trace && scenario !== undefined) throw wrongCall('give either --trace or --scenario')
  if (labels !== undefined && scenario === undefined)
    throw wrongCall('--labels needs a --scenario: nothing else has known faults')
  if (labels !== undefined && rows !== undefined)
    throw wrongCall('--labels knows no --rows: give --duration')
  if (scenario !== undefined && devices !== undefined)
    throw wrongCall('--devices does not go with --scenario, which says how many there are')
  if (loop && !trace) throw wrongCall('--loop needs a --trace')
  if (out !== undefined && hostMetrics)
    throw wrongCall("--out does not take --host-metrics, which come at the machine's own pace")
}

function wrongCall(message: string): UserError {
  return new UserError(message, { exitCode: 2 })
}

/** @throws UserError */
export function parseSpeed(text: string): number {
  const speed = text === 'max' ? Number.POSITIVE_INFINITY : Number(text)
  if (!(speed > 0) || !/^(?:max|[\d.]+(?:e\d+)?)$/.test(text))
    throw wrongCall(`--speed takes a number above 0, or max, not "${text}"`)
  return speed
}

function parseQos(text: string): 0 | 1 {
  if (text !== '0' && text !== '1') throw wrongCall(`--qos takes 0 or 1, not "${text}"`)
  return text === '0' ? 0 : 1
}

function parsePrefix(text: string): string {
  if (text === '' || /[+#\0]/.test(text) || text.startsWith('$'))
    throw wrongCall(`--topic-prefix takes a topic without +, # and a leading $, not "${text}"`)
  return text
}

function parseStart(text: string): number {
  const startMs = text === 'now' ? Date.now() : parseTime(text)?.timeMs
  if (startMs === undefined)
    throw wrongCall(`--start takes a time such as 2026-01-01T00:00:00Z, or now, not "${text}"`)
  return startMs
}

function parseLength(text: string): number {
  const ms = parseDuration(text)
  if (ms === undefined || ms === 0)
    throw wrongCall(`--duration takes a time such as 30s, 10m or 2h, not "${text}"`)
  return ms
}

function parseGiveUp(text: string): number {
  const ms = text === 'never' ? Number.POSITIVE_INFINITY : parseDuration(text)
  if (ms === undefined)
    throw wrongCall(`--give-up takes a time such as 30s or 5m, or never, not "${text}"`)
  return ms
}
