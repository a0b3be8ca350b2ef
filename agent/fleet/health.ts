import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { Problem } from '../../shared/config.ts'
import type { AgentStatus } from '../agent.ts'
import type { AgentConfig } from '../config.ts'

/** How an agent was over some time. Counts are of that time alone. */
export const healthSchema = z.object({
  /** Time that it was looked at, and of that with the source connected, s. */
  seconds: z.number(),
  connectedSeconds: z.number(),
  /** At the end of it. */
  connected: z.boolean(),
  received: z.number(),
  quarantined: z.number(),
  alerts: z.number(),
  evicted: z.number(),
  /** The collector has answered, and the uplink is not waiting to try again. */
  delivering: z.boolean(),
  /** Something waits for the collector. */
  waiting: z.boolean(),
  /** The uplink's last try has failed. */
  failing: z.boolean(),
  /** The fleet broker is connected. */
  fleet: z.boolean(),
  memoryBytes: z.number(),
})
export type Health = z.output<typeof healthSchema>

/** What an agent shows at one moment. */
export interface Sample {
  /** Monotonic clock. */
  atMs: number
  connected: boolean
  received: number
  quarantined: number
  alerts: number
  evicted: number
  /** When the collector answered last, wall clock. */
  answeredMs: number | undefined
  failing: boolean
  waiting: boolean
  fleet: boolean
  memoryBytes: number
}

/** Takes from a status what health shows in: it is alive, and long. */
export function sampleOf(
  { ledger, alerts, source, uplink, lanes }: AgentStatus,
  more: Pick<Sample, 'atMs' | 'fleet' | 'memoryBytes'>,
): Sample {
  return {
    ...more,
    connected: source.phase === 'connected',
    received: ledger.received,
    quarantined: ledger.quarantined,
    alerts,
    evicted: ledger.evicted,
    answeredMs: uplink.lastAnsweredMs,
    failing: uplink.lastFailure !== undefined,
    waiting: Object.values(lanes).some(({ entries }) => entries > 0),
  }
}

/** Time before a change that health is judged against, ms. */
const lookBackMs = 120_000

/** Looks at an agent about once a second, and sums up what it saw since a while ago or since a change. */
export class HealthWatch {
  #samples: Sample[] = []
  /** Where a change happened; from there on nothing is forgotten but what lies between. */
  #changed: Sample | undefined
  #connectedMs = 0

  take(sample: Sample): void {
    const last = this.#samples.at(-1)
    if (last?.connected) this.#connectedMs += sample.atMs - last.atMs
    this.#samples.push(sample)
    const oldest = sample.atMs - lookBackMs
    while (this.#samples.length > 2 && this.#samples[0]!.atMs < oldest) this.#samples.shift()
  }

  /** For how long it has looked, ms. */
  get spanMs(): number {
    return (this.#samples.at(-1)?.atMs ?? 0) - (this.#samples[0]?.atMs ?? 0)
  }

  /** How it was lately; undefined before anything was seen. */
  lately(): Health | undefined {
    const [first] = this.#samples
    const last = this.#samples.at(-1)
    if (!first || !last) return undefined
    const connectedMs = this.#samples.reduce((sum, { atMs, connected }, i) => {
      const next = this.#samples[i + 1]
      return next && connected ? sum + next.atMs - atMs : sum
    }, 0)
    return between(first, last, connectedMs, true)
  }

  /** From now on counts are those since the change. */
  change(sample: Sample): void {
    this.#samples = [sample]
    this.#changed = sample
    this.#connectedMs = 0
  }

  /** How it has been since the change. */
  since(): Health | undefined {
    const last = this.#samples.at(-1)
    return this.#changed && last && between(this.#changed, last, this.#connectedMs, false)
  }
}

/** @param anyAnswer whether one of before counts */
function between(from: Sample, to: Sample, connectedMs: number, anyAnswer: boolean): Health {
  const { answeredMs, connected, failing, waiting, fleet, memoryBytes } = to
  const answered = answeredMs !== undefined && (anyAnswer || answeredMs !== from.answeredMs)
  return {
    seconds: (to.atMs - from.atMs) / 1_000,
    connectedSeconds: connectedMs / 1_000,
    connected,
    received: to.received - from.received,
    quarantined: to.quarantined - from.quarantined,
    alerts: to.alerts - from.alerts,
    evicted: to.evicted - from.evicted,
    delivering: answered && !failing,
    waiting,
    failing,
    fleet,
    memoryBytes,
  }
}

export type Verdict = 'good' | 'wait' | Problem[]

/** With so many readings expected, none is no accident. */
const enoughExpected = 5
/** Share of quarantined messages that is one more, and so many at least. */
const quarantineStep = 0.1
const fewQuarantined = 10
/** Alerts for each reading that are too many, or so many times those of before. */
const alertShare = 0.05
const alertFactor = 10
const fewAlerts = 10

/**
 * Judges the time since a change against the time before. What was wrong before is no verdict, and neither
 * is an outage that the old configuration would share: it is waited for.
 */
export function judge(before: Health, since: Health, from: AgentConfig, to: AgentConfig): Verdict {
  const problems: Problem[] = []
  let wait = false
  const bad = (path: string, message: string) => problems.push({ path, message })
  const differs = (...parts: [unknown, unknown]) => !isDeepStrictEqual(...parts)

  const reach = ({ source }: AgentConfig) => sourceReach.map((name) => source[name])
  const elsewhere = differs(reach(from), reach(to))
  if (before.connected && !since.connected) {
    if (elsewhere) bad('source', 'the broker was connected before, and is not any more')
    else wait = true
  }

  const expected = (before.received / Math.max(1, before.connectedSeconds)) * since.connectedSeconds
  if (before.received > 0 && since.received === 0 && problems.length === 0) {
    const other = elsewhere || differs(from.source, to.source) || differs(from.decode, to.decode)
    if (other && expected >= enoughExpected)
      bad(
        'source',
        `no reading came in ${Math.round(since.connectedSeconds)} s, about ${Math.round(expected)} did before`,
      )
    else wait = true
  }

  const share = (count: number, { received }: Health) => count / Math.max(1, received)
  const [quarantinedBefore, quarantined] = [
    share(before.quarantined, before),
    share(since.quarantined, since),
  ]
  if (since.quarantined >= fewQuarantined && quarantined > quarantinedBefore + quarantineStep)
    bad(
      'decode',
      `${percent(quarantined)} of what comes goes into quarantine, ${percent(quarantinedBefore)} before`,
    )

  const [alertsBefore, alerts] = [share(before.alerts, before), share(since.alerts, since)]
  if (since.alerts >= fewAlerts && alerts > Math.max(alertShare, alertFactor * alertsBefore))
    bad(
      'filter',
      `${since.alerts} alerts on ${since.received} readings, ${before.alerts} on ${before.received} before`,
    )

  if (since.evicted > 0 && before.evicted === 0 && differs(from.outbox, to.outbox))
    bad('outbox', `${since.evicted} readings had to give way, none did before`)

  if (before.delivering && !since.delivering) {
    if (differs(uplinkReach(from.uplink), uplinkReach(to.uplink))) {
      if (since.failing || since.waiting)
        bad('uplink', 'the collector answered before, and does not any more')
      else wait = true
    } else if (since.failing) wait = true
  }

  if (since.memoryBytes > to.fleet.maxMemory && before.memoryBytes <= from.fleet.maxMemory)
    bad(
      'fleet.maxMemory',
      `${mebibytes(since.memoryBytes)} MiB of memory, more than the ${mebibytes(to.fleet.maxMemory)} MiB allowed`,
    )

  if (before.fleet && !since.fleet) {
    if (differs(fleetReach(from.fleet), fleetReach(to.fleet)))
      bad('fleet', 'it has cut its own connection to the fleet')
    else wait = true
  }
  return problems.length > 0 ? problems : wait ? 'wait' : 'good'
}

/** What decides whether the broker can be reached; likewise the collector and the fleet broker below. */
const sourceReach = [
  'url',
  'version',
  'clientId',
  'username',
  'password',
  'passwordFile',
  'tls',
  'keepalive',
  'connectTimeout',
] as const

function uplinkReach({ batch: _, retry: __, compression: ___, ...reach }: AgentConfig['uplink']) {
  return reach
}

/** Also how the link to the fleet broker is to be made: where it differs, it is made anew. */
export function fleetReach({ url, proxy, keepalive, retry }: AgentConfig['fleet']) {
  return { url, proxy, keepalive, retry }
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20)
}
