import { type Command, Option } from 'commander'
import { integerOption, repeated, stopSignal } from '../shared/command.ts'
import { parseDuration } from '../shared/config.ts'
import { UserError } from '../shared/failure.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { parseTime } from './cell.ts'
import { hostMetrics } from './host.ts'
import { Pace } from './pace.ts'
import { plant } from './plant.ts'
import { play } from './play.ts'
import { Publisher } from './publisher.ts'
import { deal, dealtNames, limit, merge, repeat } from './recording.ts'
import type { Samples } from './sample.ts'
import { type BadRow, survey, Trace } from './trace.ts'

interface Options {
  broker: string
  trace?: string[]
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

/** What a run did, as `--json` prints it. */
export interface SimReport {
  sent: number
  /** With QoS 0 nobody acknowledges: 0. */
  acknowledged: number
  /** Sent again because a connection broke before the acknowledgement. */
  resent: number
  badRows: number
  /** Messages sent by each device. */
  devices: Record<string, number>
  elapsedMs: number
}

/** Where the invented plant begins when a seed is given, so that the same seed gives the same bytes. */
const fixedStartMs = Date.UTC(2026, 0, 1)
const defaultDevices = 50
/** Bad rows reported one by one, per run. */
const maxBadRowLines = 20
/** What is in flight at SIGTERM has so long to be acknowledged. */
const drainMs = 5000

export function registerSim(command: Command): void {
  command
    .option('--broker <url>', 'mqtt://host:port or mqtts://host:port', 'mqtt://127.0.0.1:1883')
    .option('--trace <file.csv...>', 'traces to replay; may be repeated', repeated)
    .option('--devices <n>', 'number of devices', integerOption('--devices', 1))
    .option('--speed <n|max>', "times the recording's own pace, or max", parseSpeed, 1)
    .option('--qos <0|1>', 'quality of service', parseQos, 1)
    .option('--loop', 'start over at the end, with times that go on rising')
    .option('--topic-prefix <text>', 'first level of the topics', parsePrefix, 'sensors')
    .option('--seed <n>', 'of the invented plant', integerOption('--seed', 0))
    .option('--start <time>', "the plant's first time, or now", parseStart)
    .option('--duration <10s>', 'end after so much time of the recording', parseLength)
    .option('--rows <n>', 'end after so many messages', integerOption('--rows', 1))
    .option('--host-metrics', "add this machine's own load, memory and temperature, once a second")
    .option('--username <name>', 'user at the broker')
    .addOption(
      new Option('--password <text>', 'password at the broker').env('HEADGATE_MQTT_PASSWORD'),
    )
    .option('--ca <file.pem>', 'certificates that vouch for the broker (mqtts)')
    .option('--give-up <30s|never>', 'end when there is no broker for so long', parseGiveUp, 30_000)
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Each value goes to <prefix>/<device>/<metric> as {"t":<ms since 1970>,"v":<value>}, its digits as the
trace has them.

A trace is CSV in one of three shapes, told apart by its header:
  timestamp,value                   the file's name is the device, the metric is "value"
  timestamp,temp,hum,...            the file's name is the device; "," or ";" between cells
  timestamp,device,metric,value
Times are ISO 8601, "YYYY-MM-DD HH:MM:SS" (UTC where no zone is given) or seconds or milliseconds since
1970. Rows are sent as they stand, repeated and backward times too; several traces play side by side as
one recording. At a given speed a silence of more than an hour is played as an hour.

--devices N plays the traces on N devices: device k plays the k-th device of the traces, counted round
and round, as <name>-001 in the first round, <name>-002 in the second.

Without --trace an invented plant is played: 50 devices (or N) with temp, hum, pres and vib once a
second, from --seed, without end unless --duration or --rows is given. It begins now, or, with --seed,
at 2026-01-01T00:00:00Z, so that the same seed gives the same bytes.

Examples:
  headgate sim --trace machine_temperature.csv --speed max
  headgate sim --broker mqtts://plant:8883 --ca ca.pem --username sim --devices 10 --duration 1h`,
    )
    .action(run)
}

async function run(options: Options): Promise<void> {
  const signal = stopSignal()
  let badRows = 0
  const onBadRow = ({ file, line, reason }: BadRow) => {
    badRows++
    if (badRows <= maxBadRowLines) warn(`${file}:${line}: ${reason}; row skipped`)
    if (badRows === maxBadRowLines) warn('further bad rows are counted only')
  }
  const recording = await recordingOf(options, onBadRow)
  const startMs = systemClock.monotonicMs()
  const devices = new Map<string, number>()
  const publisher = await Publisher.open(
    {
      url: options.broker,
      qos: options.qos,
      caFile: options.ca,
      username: options.username,
      password: options.password,
      giveUpMs: options.giveUp,
      clock: systemClock,
      random: systemRandom,
      onTrouble: warn,
    },
    signal,
  )
  const report = (): SimReport => ({
    sent: publisher.sent,
    acknowledged: publisher.acknowledged,
    resent: publisher.resent,
    badRows,
    devices: Object.fromEntries([...devices].sort(([a], [b]) => (a < b ? -1 : 1))),
    elapsedMs: Math.round(systemClock.monotonicMs() - startMs),
  })
  const stopProgress = options.json ? () => {} : showProgress(report)
  // The machine's own readings go on for as long as the recording does.
  const hostStop = new AbortController()
  const stream = { publisher, prefix: options.topicPrefix, devices }
  try {
    const host = options.hostMetrics
      ? play(hostMetrics(systemClock, hostStop.signal), {
          ...stream,
          pace: new Pace(systemClock, Number.POSITIVE_INFINITY),
          signal: AbortSignal.any([signal, hostStop.signal]),
        })
      : undefined
    await play(recording, { ...stream, pace: new Pace(systemClock, options.speed), signal })
    hostStop.abort()
    await host
    const patience = new AbortController()
    const impatient = () => systemClock.timer(drainMs, () => patience.abort())
    if (signal.aborted) impatient()
    else signal.addEventListener('abort', impatient, { once: true })
    await publisher.drained(patience.signal)
  } finally {
    hostStop.abort()
    stopProgress()
    await publisher.close()
    print(report(), options)
  }
}

/** What is to be played: traces or the plant, dealt, looped and limited as asked. */
async function recordingOf(options: Options, onBadRow: (row: BadRow) => void): Promise<Samples> {
  const bounds = {
    ...(options.rows === undefined ? {} : { rows: options.rows }),
    ...(options.duration === undefined ? {} : { durationMs: options.duration }),
  }
  if (!options.trace) {
    const startMs = options.start ?? (options.seed === undefined ? Date.now() : fixedStartMs)
    const devices = options.devices ?? defaultDevices
    return limit(plant({ seed: options.seed ?? 1, devices, startMs }), bounds)
  }
  const traces = await Promise.all(options.trace.map((file) => Trace.open(file)))
  const names = options.devices && dealtNames(await deviceNames(traces), options.devices)
  const playOnce = () => {
    const merged = merge(traces.map((trace) => trace.samples(onBadRow)))
    return names ? deal(merged, names) : merged
  }
  return limit(options.loop ? repeat(playOnce) : playOnce(), bounds)
}

/** Devices of the traces in order; only traces whose rows name devices need a pass of their own. */
async function deviceNames(traces: readonly Trace[]): Promise<string[]> {
  const names = new Set<string>()
  for (const trace of traces)
    if (trace.namesDevices)
      for (const name of (await survey([trace])).devices.keys()) names.add(name)
    else names.add(trace.device)
  return [...names]
}

function print(report: SimReport, options: Options): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(report)}\n`)
    return
  }
  const { sent, acknowledged, resent, badRows, devices, elapsedMs } = report
  const parts = [
    `sent ${sent} messages of ${Object.keys(devices).length} devices in ${(elapsedMs / 1000).toFixed(1)} s`,
    options.qos === 0 ? 'QoS 0, so nothing is acknowledged' : `${acknowledged} acknowledged`,
    ...(resent > 0 ? [`${resent} sent again`] : []),
    ...(badRows > 0 ? [`${badRows} bad rows skipped`] : []),
  ]
  process.stdout.write(`${parts.join('; ')}\n`)
}

/** Once a second on a terminal; returns what ends it. */
function showProgress(report: () => SimReport): () => void {
  if (!process.stderr.isTTY) return () => {}
  const timer = setInterval(() => {
    const { sent, acknowledged, elapsedMs } = report()
    process.stderr.write(
      `\r\u001b[Ksent ${sent}, acknowledged ${acknowledged}, ${(elapsedMs / 1000).toFixed(0)} s`,
    )
  }, 1000)
  return () => {
    clearInterval(timer)
    process.stderr.write('\r\u001b[K')
  }
}

function warn(message: string): void {
  process.stderr.write(`headgate sim: ${message}\n`)
}

function wrongCall(message: string): UserError {
  return new UserError(message, { exitCode: 2 })
}

function parseSpeed(text: string): number {
  const speed = text === 'max' ? Number.POSITIVE_INFINITY : Number(text)
  if (!(speed > 0) || text.trim() === '')
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
