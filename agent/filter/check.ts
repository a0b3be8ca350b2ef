import { type AdmittedReading, Quality, type Value } from '../../shared/reading.ts'
import { type AlertState, type AlertTiming, Condition } from './condition.ts'
import { StateProblem, type StateReader, type StateWriter } from './state-bytes.ts'
import { warmth } from './warmth.ts'

/** Undefined is: not checked. */
export interface CheckConfig extends AlertTiming {
  /** Least and most, in the value's unit; either may be infinite. */
  range: readonly [number, number] | undefined
  /** How far inside the range a value must be to count as back, in the value's unit. */
  hysteresis: number
  /** Largest change per millisecond, in the value's unit. */
  ratePerMs: number | undefined
  /** Longest time that a value may stay the same. */
  stuckMs: number | undefined
  /** Longest time without a reading. */
  missingMs: number | undefined
  /** How far a reading's time may lie ahead of the gateway's. */
  futureMs: number | undefined
  /** How far a reading's time may lie behind that of an earlier one. */
  backwardsMs: number | undefined
}

/** Stored as positions in this list: never reorder, only add. */
export const faults = [
  'range',
  'rate',
  'stuck',
  'missing',
  'notFinite',
  'future',
  'backwards',
] as const
export type Fault = (typeof faults)[number]

/** Shared by all checks without a fault. */
const none: (Condition | undefined)[] = []

/** What a fault's change of state is told with. */
export interface FaultReport {
  fault: Fault
  state: AlertState
  sinceMs: number
  timeMs: number
  /** The reading's; undefined where time told it. */
  value: Value | undefined
  /** What was found and what is allowed, ms or the value's unit (for `rate` per second). */
  found: number | undefined
  limit: number | readonly [number, number] | undefined
}

/** Where faults are told. */
export interface FaultListener {
  fault(report: FaultReport): void
}

/** Back below this share of the limit the rate counts as good. */
const calmRate = 0.9
/** Before this the gateway's clock is not set, and says nothing about a reading's time: 2020. */
const clockSetMs = 1_577_836_800_000

/**
 * Checks of one series that need no learning: each bad reading gets a quality bit, each fault one alert.
 *
 * Cost: a few comparisons a reading. State: ten numbers, and four more per fault that was ever there.
 */
export class Check {
  readonly #config: CheckConfig
  readonly #listener: FaultListener
  /** Of the faults that were ever there, by their position in `faults`. */
  #conditions: (Condition | undefined)[] = none
  /** Newest time of a reading, those in the future left out, ms; -Infinity before the first. */
  #newestMs = -Infinity
  #value: Value | undefined
  #valueMs = 0
  #sameSinceMs = 0
  /** Arrival of the last reading, monotonic ms; NaN before the first since the start. */
  #arrivedMs = Number.NaN
  #raised = false
  /** The latest time known, with the reading under check, ms. */
  #nowMs = -Infinity
  /** The reading under check has it. */
  #given: Value | undefined

  constructor(config: CheckConfig, listener: FaultListener) {
    this.#config = config
    this.#listener = listener
  }

  /** Marks the reading with what is wrong with it. @returns whether a fault was raised */
  take(reading: AdmittedReading): boolean {
    const { value, timeMs, arrival } = reading
    const { futureMs } = this.#config
    this.#raised = false
    this.#given = value
    const inFuture =
      futureMs !== undefined && arrival.wallMs >= clockSetMs && timeMs > arrival.wallMs + futureMs
    // A time in the future must not make all that follows look old.
    this.#nowMs = Math.max(this.#newestMs, inFuture ? arrival.wallMs : timeMs)
    if (inFuture) reading.quality |= Quality.timeInFuture
    if (inFuture || this.#hasFaults)
      this.#judge('future', inFuture, true, this.#nowMs, timeMs - arrival.wallMs)
    this.#checkOrder(reading)
    if (typeof value === 'number') this.#checkNumber(reading)
    this.#checkStuck(reading)
    if (typeof value !== 'number' || Number.isFinite(value)) {
      this.#value = value
      this.#valueMs = timeMs
    }
    this.#newestMs = this.#nowMs
    this.#arrivedMs = arrival.monotonicMs
    this.#given = undefined
    return this.#raised
  }

  warm(): void {
    const value = typeof this.#value === 'number' ? this.#value : 0
    warmth[0] =
      value + this.#newestMs + this.#valueMs + this.#sameSinceMs + this.#arrivedMs + this.#nowMs
  }

  /** Time passes without a reading. */
  tick(monotonicMs: number): void {
    const { missingMs } = this.#config
    if (missingMs === undefined) return
    // After a start silence counts from there.
    if (Number.isNaN(this.#arrivedMs)) this.#arrivedMs = monotonicMs
    const silentMs = monotonicMs - this.#arrivedMs
    if (silentMs > missingMs && this.#newestMs > -Infinity)
      this.#judge('missing', true, false, this.#newestMs + silentMs, silentMs)
  }

  #checkOrder(reading: AdmittedReading): void {
    const { backwardsMs, missingMs } = this.#config
    const newestMs = this.#newestMs
    if (newestMs === -Infinity) return
    if (backwardsMs !== undefined) {
      const backwards = reading.timeMs < newestMs - backwardsMs
      if (backwards) reading.quality |= Quality.timeBackwards
      if (backwards || this.#hasFaults)
        this.#judge('backwards', backwards, true, this.#nowMs, newestMs - reading.timeMs)
    }
    if (missingMs === undefined) return
    const silentMs = this.#nowMs - newestMs
    if (silentMs > missingMs) {
      this.#judge('missing', true, false, newestMs + missingMs, silentMs)
      this.#conditions[faults.indexOf('missing')]?.extend(this.#nowMs)
    } else if (this.#hasFaults) this.#judge('missing', false, true, this.#nowMs, silentMs)
  }

  #checkNumber(reading: AdmittedReading): void {
    const { range, hysteresis, ratePerMs } = this.#config
    const value = reading.value as number
    const finite = Number.isFinite(value)
    if (!finite) reading.quality |= Quality.notFinite
    if (!finite || this.#hasFaults) this.#judge('notFinite', !finite, true, this.#nowMs, undefined)
    if (!finite) return
    if (range) {
      const outside = value < range[0] || value > range[1]
      if (outside) reading.quality |= Quality.outOfRange
      const calm = value >= range[0] + hysteresis && value <= range[1] - hysteresis
      if (outside || this.#hasFaults) this.#judge('range', outside, calm, this.#nowMs, value)
    }
    const elapsedMs = reading.timeMs - this.#valueMs
    if (ratePerMs === undefined || typeof this.#value !== 'number' || elapsedMs <= 0) return
    const rate = Math.abs(value - this.#value) / elapsedMs
    const fast = rate > ratePerMs
    if (fast) reading.quality |= Quality.rateExceeded
    if (fast || this.#hasFaults)
      this.#judge('rate', fast, rate <= ratePerMs * calmRate, this.#nowMs, rate * 1000)
  }

  #checkStuck(reading: AdmittedReading): void {
    const { stuckMs } = this.#config
    if (stuckMs === undefined) return
    if (reading.value !== this.#value) this.#sameSinceMs = this.#nowMs
    const sameMs = this.#nowMs - this.#sameSinceMs
    const stuck = sameMs >= stuckMs
    if (stuck) reading.quality |= Quality.stuck
    if (stuck || this.#hasFaults) this.#judge('stuck', stuck, true, this.#nowMs, sameMs)
  }

  /** Where there never was a fault, only a bad reading needs to be judged; numbers need not be handed on. */
  get #hasFaults(): boolean {
    return this.#conditions !== none
  }

  /** @param calm clearly not bad: between bad and calm a fault goes on, yet none begins */
  #judge(fault: Fault, bad: boolean, calm: boolean, atMs: number, found: number | undefined): void {
    const index = faults.indexOf(fault)
    let condition = this.#conditions[index]
    if (!condition) {
      if (!bad) return
      condition = this.#begin(fault, new Condition())
    }
    const there = bad || (condition.raised && !calm)
    const state = there ? condition.bad(atMs, this.#config) : condition.good(atMs, this.#config)
    if (!state) return
    if (state === 'raised') this.#raised = true
    const { sinceMs } = condition
    const limit = this.#limit(fault)
    this.#listener.fault({ fault, state, sinceMs, timeMs: atMs, value: this.#given, found, limit })
  }

  #begin(fault: Fault, condition: Condition): Condition {
    if (this.#conditions === none) this.#conditions = faults.map(() => undefined)
    this.#conditions[faults.indexOf(fault)] = condition
    return condition
  }

  #limit(fault: Fault): FaultReport['limit'] {
    const { range, ratePerMs, stuckMs, missingMs, futureMs, backwardsMs } = this.#config
    switch (fault) {
      case 'range':
        return range
      case 'rate':
        return ratePerMs && ratePerMs * 1000
      case 'stuck':
        return stuckMs
      case 'missing':
        return missingMs
      case 'future':
        return futureMs
      case 'backwards':
        return backwardsMs
      case 'notFinite':
        return undefined
    }
  }

  /** Whether no fault is raised, so that there is nothing to save. */
  get quiet(): boolean {
    return this.#conditions.every((condition) => !condition?.raised)
  }

  /** Raised faults: one fault is one alert, also over a restart. */
  save(writer: StateWriter): void {
    const raised = this.#conditions.filter((condition) => condition?.raised)
    writer.varint(raised.length)
    this.#conditions.forEach((condition, index) => {
      if (!condition?.raised) return
      writer.byte(index)
      condition.save(writer)
    })
  }

  /** Goes on with faults raised before; one that is no longer checked is dropped without a word. */
  load(saved: ReadonlyMap<Fault, Condition>): void {
    for (const [fault, condition] of saved)
      if (fault === 'notFinite' || this.#limit(fault) !== undefined) this.#begin(fault, condition)
  }

  /** What may be lost: what the next reading is compared with. */
  saveSoft(writer: StateWriter): void {
    writer.float(this.#newestMs)
    writer.float(this.#valueMs)
    writer.float(this.#sameSinceMs)
    writer.byte(this.#value === undefined ? 0 : 1)
    if (this.#value !== undefined) writer.value(this.#value)
  }

  /** Goes on with soft state; without a check it is read and left. @throws StateProblem */
  static loadSoft(reader: StateReader, check: Check | undefined): void {
    const newestMs = reader.float()
    const valueMs = reader.float()
    const sameSinceMs = reader.float()
    const value = reader.byte() === 1 ? reader.value() : undefined
    if (!check) return
    check.#newestMs = newestMs
    check.#valueMs = valueMs
    check.#sameSinceMs = sameSinceMs
    check.#value = value
  }
}

/** @throws StateProblem */
export function readFaults(reader: StateReader): Map<Fault, Condition> {
  const found = new Map<Fault, Condition>()
  for (let left = reader.count(faults.length); left > 0; left--) {
    const fault = faults[reader.byte()]
    if (!fault) throw new StateProblem('an unknown fault')
    found.set(fault, Condition.load(reader))
  }
  return found
}
