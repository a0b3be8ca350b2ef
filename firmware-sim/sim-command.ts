import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { stopSignal } from '../shared/command.ts'
import { UserError } from '../shared/failure.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import type { BadRow, Samples } from '../shared/trace.ts'
import { exportRecording, unwritable } from './export.ts'
import { hostMetrics } from './host.ts'
import { Pace } from './pace.ts'
import { play } from './play.ts'
import { openPlaylist } from './playlist.ts'
import { Publisher } from './publisher.ts'
import { labelsText } from './scenario.ts'
import { addSimOptions, checkSimOptions, type SimOptions } from './sim-options.ts'

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

/** Bad rows reported one by one. */
const maxBadRowLines = 20
/** What is in flight when the command is stopped has so long to be acknowledged. */
const drainMs = 5000

export function registerSim(command: Command): void {
  addSimOptions(command)
    .addHelpText(
      'after',
      `
Each value goes to <prefix>/<device>/<metric> as {"t":<ms since 1970>,"v":<value>}, its digits as the
trace has them.

A trace is CSV in one of three shapes, told apart by its header; cells end at "," or ";":
  timestamp,value                   the file's name is the device, the metric is "value"
  timestamp,temp,hum,...            the file's name is the device; an empty cell is no value
  timestamp,device,metric,value
Times are ISO 8601, "YYYY-MM-DD HH:MM:SS" (UTC where no zone is given) or seconds or milliseconds since
1970. Rows are sent as they stand, repeated and backward times too; several traces play side by side as
one recording. A bad row is reported and skipped. At a given speed a silence of more than an hour is
played as an hour.

--devices N plays the traces on N devices: device k plays the k-th device of the traces, counted round
and round, as <name>-001 in the first round, <name>-002 in the second.

A scenario is devices with signals and faults; --labels says where the faults are, in times of a right
clock. --out writes what would be sent, but for garbage payloads, as a trace.

Without --trace and --scenario an invented plant is played: 50 devices (or --devices) with temp, hum,
pres and vib once a second, without end unless --duration or --rows is given. It begins now, or, with
--seed, at 2026-01-01T00:00:00Z as scenarios do, so that the same seed gives the same bytes.

Examples:
  headgate sim --trace machine_temperature.csv --speed max
  headgate sim --scenario cold-chain --seed 7 --labels labels.json --out cold-chain.csv
  headgate sim --broker mqtts://plant:8883 --ca ca.pem --username sim --devices 10 --duration 1h`,
    )
    .action(run)
}

async function run(options: SimOptions): Promise<void> {
  checkSimOptions(options)
  const signal = stopSignal()
  const badRows = new BadRows()
  const { start, duration, ...rest } = options
  const { samples, labels, finite } = await openPlaylist(
    { ...rest, startMs: start, durationMs: duration },
    badRows.add,
  )
  if (options.labels !== undefined)
    await writeText(options.labels, labelsText(labels, options.labels))
  if (options.out === undefined) return publish(samples, badRows, options, signal)
  if (!finite) throw new UserError('--out needs an end: give --duration or --rows', { exitCode: 2 })
  const { written, leftOut } = await exportRecording(samples, options.out, signal)
  const report = { written, leftOut, badRows: badRows.count }
  if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`)
  else process.stdout.write(`wrote ${written} rows to ${options.out}${badRows.note}\n`)
}

/** Publishes the recording, and this machine's own metrics beside it for as long as it lasts. */
async function publish(
  samples: Samples,
  badRows: BadRows,
  options: SimOptions,
  signal: AbortSignal,
): Promise<void> {
  const startMs = systemClock.monotonicMs()
  const devices = new Map<string, number>()
  await using publisher = await Publisher.open(
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
    badRows: badRows.count,
    devices: Object.fromEntries([...devices].sort(([a], [b]) => (a < b ? -1 : 1))),
    elapsedMs: Math.round(systemClock.monotonicMs() - startMs),
  })
  const stopProgress = showProgress(report)
  const hostStop = new AbortController()
  const stage = { publisher, prefix: options.topicPrefix, devices }
  try {
    const recording = play(samples, {
      ...stage,
      pace: new Pace(systemClock, options.speed),
      signal,
    }).finally(() => hostStop.abort())
    const host = options.hostMetrics
      ? play(hostMetrics(systemClock, hostStop.signal), {
          ...stage,
          pace: new Pace(systemClock, Number.POSITIVE_INFINITY),
          signal: AbortSignal.any([signal, hostStop.signal]),
        })
      : undefined
    await Promise.all([recording, host])
    await publisher.drained(soonAfter(signal, drainMs))
  } finally {
    stopProgress()
    print(report(), badRows, options)
  }
}

/** Aborts `ms` after the given signal. */
function soonAfter(signal: AbortSignal, ms: number): AbortSignal {
  const later = new AbortController()
  const wait = () => setTimeout(() => later.abort(), ms).unref()
  if (signal.aborted) wait()
  else signal.addEventListener('abort', wait, { once: true })
  return later.signal
}

/** Reports bad rows one by one until there are too many, and counts all. */
class BadRows {
  count = 0

  add = ({ file, line, reason }: BadRow): void => {
    this.count++
    if (this.count <= maxBadRowLines) warn(`${file}:${line}: ${reason}; row skipped`)
    else if (this.count === maxBadRowLines + 1) warn('further bad rows are counted only')
  }

  get note(): string {
    return this.count > 0 ? `; ${this.count} bad rows skipped` : ''
  }
}

function print(report: SimReport, badRows: BadRows, options: SimOptions): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(report)}\n`)
    return
  }
  const { sent, acknowledged, resent, devices, elapsedMs } = report
  const acknowledgement =
    options.qos === 0 ? 'QoS 0, so nothing is acknowledged' : `${acknowledged} acknowledged`
  const again = resent > 0 ? `; ${resent} sent again` : ''
  process.stdout.write(
    `sent ${sent} messages of ${Object.keys(devices).length} devices in ${(elapsedMs / 1000).toFixed(1)} s; ` +
      `${acknowledgement}${again}${badRows.note}\n`,
  )
}

/** Once a second on a terminal; returns what ends it. */
function showProgress(report: () => SimReport): () => void {
  if (!process.stderr.isTTY) return () => {}
  const timer = setInterval(() => {
    const { sent, acknowledged, elapsedMs } = report()
    const seconds = (elapsedMs / 1000).toFixed(0)
    process.stderr.write(`\r\u001b[Ksent ${sent}, acknowledged ${acknowledged}, ${seconds} s`)
  }, 1000)
  return () => {
    clearInterval(timer)
    process.stderr.write('\r\u001b[K')
  }
}

async function writeText(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text)
  } catch (cause) {
    throw unwritable(file, cause)
  }
}

function warn(message: string): void {
  process.stderr.write(`headgate sim: ${message}\n`)
}
