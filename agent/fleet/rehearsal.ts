import { isDeepStrictEqual } from 'node:util'
import type { RecordValue } from '../../shared/batch.ts'
import type { AdmittedReading } from '../../shared/reading.ts'
import { formatTime } from '../../shared/time-text.ts'
import type { AgentConfig } from '../config.ts'
import { createFilter, type Filter, type Judgement } from '../filter/filter.ts'
import { WireMeter } from '../trial/wire-meter.ts'

/** Readings that a rehearsal looks at, at most. */
const maxReadings = 1_000_000
/** Readings between two looks at what else there is to do. */
const atOnce = 500
/** Alerts that are told one by one. */
const maxAlerts = 50
/** A gap in the readings is walked through in so many steps at most. */
const maxSteps = 60

type Alert = { [key: string]: RecordValue }

/** What a filter would have made of the readings. */
interface Made {
  kept: number
  suppressed: number
  absorbed: number
  /** Readings that the filter made. */
  derived: number
  /** Compressed, as they would go over the wire. */
  bytes: number
  alerts: number
}

export interface Rehearsal {
  readings: number
  /** When the first and the last of them came; absent where there is none. */
  from?: string
  to?: string
  /** There were more than can be looked at. */
  truncated: boolean
  running: Made
  candidate: Made
  /** Alerts that only one of the two would have raised; 50 of each at most. */
  gained: Alert[]
  lost: Alert[]
  /** The candidate decodes otherwise, which is not rehearsed: these are the readings as they are now. */
  decodeDiffers: boolean
}

/** Runs the candidate's filter and the running one, both as if they began, over readings as they came. */
export async function rehearse(
  readings: AsyncIterable<AdmittedReading>,
  running: AgentConfig,
  candidate: AgentConfig,
): Promise<Rehearsal> {
  const [now, then] = [new Player(running), new Player(candidate)]
  let count = 0
  let first: number | undefined
  let last = 0
  let truncated = false
  for await (const reading of readings) {
    if (count === maxReadings) {
      truncated = true
      break
    }
    count += 1
    first ??= reading.arrival.wallMs
    last = Math.max(last, reading.arrival.wallMs)
    for (const player of [now, then]) player.play({ ...reading })
    if (count % atOnce === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  for (const player of [now, then]) player.end()
  return {
    readings: count,
    ...(first !== undefined && { from: formatTime(first), to: formatTime(last) }),
    truncated,
    running: now.made,
    candidate: then.made,
    gained: only(then, now),
    lost: only(now, then),
    decodeDiffers: !isDeepStrictEqual(running.decode, candidate.decode),
  }
}

/** Plays readings to a filter, at the times at which they came. */
class Player {
  readonly #filter: Filter
  readonly #meter = new WireMeter()
  readonly alerts = new Map<string, Alert>()
  readonly #made: Omit<Made, 'bytes'> = {
    kept: 0,
    suppressed: 0,
    absorbed: 0,
    derived: 0,
    alerts: 0,
  }
  #startMs: number | undefined
  #nowMs = 0

  constructor({ filter: rules }: AgentConfig) {
    this.#filter = createFilter({ rules })
  }

  play(reading: AdmittedReading): void {
    const atMs = Math.max(this.#nowMs, reading.arrival.wallMs)
    this.#startMs ??= this.#nowMs = atMs
    const stepMs = Math.max(1_000, (atMs - this.#nowMs) / maxSteps)
    for (let at = this.#nowMs + stepMs; at < atMs; at += stepMs)
      this.#account(this.#filter.tick(this.#arrival(Math.floor(at))))
    this.#nowMs = atMs
    this.#account(this.#filter.judge([{ ...reading, arrival: this.#arrival(atMs) }]))
  }

  end(): void {
    this.#account(this.#filter.flush())
  }

  get made(): Made {
    return { ...this.#made, bytes: this.#meter.bytes() }
  }

  #arrival(wallMs: number) {
    return { wallMs, monotonicMs: wallMs - (this.#startMs ?? wallMs) }
  }

  #account({ admitted, records, suppressed, absorbed }: Judgement): void {
    for (const { reading, derived } of admitted) {
      this.#made[derived ? 'derived' : 'kept'] += 1
      this.#meter.add(reading)
    }
    this.#made.suppressed += suppressed
    this.#made.absorbed += absorbed
    for (const record of records) {
      this.#meter.addRecord(record)
      if (record.type !== 'alert') continue
      this.#made.alerts += 1
      if (this.alerts.size < 10 * maxAlerts) this.alerts.set(nameOf(record.content), record.content)
    }
  }
}

function only(one: Player, other: Player): Alert[] {
  return [...one.alerts]
    .filter(([name]) => !other.alerts.has(name))
    .slice(0, maxAlerts)
    .map(([, content]) => content)
}

/** An alert is the same where it is of the same kind, series and time, whichever rule raised it. */
function nameOf(content: Alert): string {
  const { device, metric, kind, state, timeMs } = content
  return JSON.stringify([device, metric, kind, state, timeMs])
}
