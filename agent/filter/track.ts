import {
  type AdmittedReading,
  type Arrival,
  Quality,
  type Series,
  type SeriesTable,
} from '../../shared/reading.ts'
import { alertContent, told } from './alert.ts'
import { Check, type FaultListener, type FaultReport } from './check.ts'
import { Detection } from './detect/detection.ts'
import type { Scored } from './detect/detector.ts'
import type { Device } from './device.ts'
import { type HardState, part, stateVersion } from './hard-state.ts'
import type { Outlet } from './outlet.ts'
import type { Dress } from './reduce/reduction.ts'
import { Thinning } from './reduce/thinning.ts'
import type { Rule } from './rule.ts'
import { StateProblem, type StateReader, type StateWriter } from './state-bytes.ts'
import type { Verdicts } from './verdicts.ts'
import { aggregateReadings, Gathering } from './window/gathering.ts'

/**
 * One series on its way through a rule: checked, judged by a detector, then thinned, gathered or passed.
 * What is held and what alerts have told is hard state; what was learned is soft.
 */
export class Track implements FaultListener {
  readonly series: Series
  readonly #index: number
  readonly #verdicts: Verdicts
  readonly #check: Check | undefined
  readonly #detection: Detection | undefined
  readonly #outlet: Thinning | Gathering | undefined
  /** Alerts have changed since hard state was saved. */
  #alerted = false

  constructor(
    series: Series,
    rule: Rule,
    world: {
      verdicts: Verdicts
      table: SeriesTable
      device: () => Device
      /** To be called when hard state changes without a reading of this series. */
      touch: () => void
    },
  ) {
    const { check, detect, reduce, around, window } = rule
    const { verdicts, table } = world
    this.series = series
    this.#index = rule.index
    this.#verdicts = verdicts
    if (check) this.#check = new Check(check, this)
    if (detect) this.#detection = new Detection(detect)
    if (reduce) this.#outlet = new Thinning(reduce, around, dresserOf(series, table), verdicts)
    else if (window) {
      const listener = aggregateReadings(series, table, verdicts)
      this.#outlet = new Gathering(window, around, world.device(), listener, world.touch, verdicts)
    }
  }

  /** Readings that wait for a decision, or in case of an alarm. */
  get held(): number {
    return this.#outlet?.held ?? 0
  }

  get undecidedMs(): number {
    return this.#outlet?.undecidedMs ?? Infinity
  }

  /** Fetches what `take` will need, see `warmth`. */
  warm(): void {
    const outlet: Outlet | undefined = this.#outlet
    this.#check?.warm()
    this.#detection?.warm()
    outlet?.warm?.()
  }

  /** Judges a reading, which is marked and dressed in place. */
  take(reading: AdmittedReading): void {
    let alarmed = this.#check?.take(reading) ?? false
    if (this.#detection && this.#detect(reading, this.#detection)) alarmed = true
    const outlet = this.#outlet
    if (!outlet) {
      this.#verdicts.admit(reading, alarmed ? 'urgent' : 'bulk')
      return
    }
    const heldBefore = outlet.held
    outlet.take(reading, alarmed)
    this.#verdicts.hold(outlet.held - heldBefore)
  }

  /** Time passes without a reading. @returns whether hard state has changed */
  tick(now: Arrival): boolean {
    this.#check?.tick(now.monotonicMs)
    const outlet = this.#outlet
    return (outlet ? this.#holding(() => outlet.tick(now)) : false) || this.#alerted
  }

  /**
   * Lets go of everything held; windows close with their device.
   *
   * @returns whether hard state has changed
   */
  release(): boolean {
    const outlet = this.#outlet
    return outlet ? this.#holding(() => outlet.release()) : false
  }

  /** Counts what `work` does to the number of held readings. @returns whether it does anything */
  #holding(work: () => void): boolean {
    const before = this.held
    work()
    this.#verdicts.hold(this.held - before)
    return this.held !== before
  }

  /** @returns whether it raised an alarm */
  #detect(reading: AdmittedReading, detection: Detection): boolean {
    if (!isScored(reading)) {
      this.#verdicts.observer?.scored?.(reading, 0, false)
      return false
    }
    detection.take(reading)
    const { event } = detection
    const raised = event === 'raised'
    if (raised) reading.quality |= Quality.anomalous
    if (event) this.#tellAnomaly(reading, event, detection)
    this.#verdicts.observer?.scored?.(reading, detection.score, raised)
    return raised
  }

  #tellAnomaly(
    { timeMs, value }: AdmittedReading,
    state: 'raised' | 'cleared',
    { score, sinceMs, threshold, expected, recent }: Detection,
  ): void {
    this.#alerted = true
    const about = { kind: 'anomaly', state, rule: this.#index, timeMs, sinceMs }
    this.#verdicts.alert(
      alertContent(this.series, about, {
        value: told(value),
        score,
        threshold,
        expected: Number.isNaN(expected) ? undefined : expected,
        recent,
      }),
    )
  }

  /** A check tells. */
  fault({ fault, state, sinceMs, timeMs, value, found, limit }: FaultReport): void {
    this.#alerted = true
    const about = { kind: fault, state, rule: this.#index, timeMs, sinceMs }
    this.#verdicts.alert(
      alertContent(this.series, about, {
        value: value === undefined ? undefined : told(value),
        found,
        limit: typeof limit === 'object' ? limit.map(told) : limit,
      }),
    )
  }

  /** Whether hard state must be saved after a reading, or after time was told. */
  get unsaved(): boolean {
    return this.#alerted || this.#outlet !== undefined
  }

  /** Writes hard state; nothing when there is nothing that must survive. */
  save(writer: StateWriter): void {
    this.#alerted = false
    const start = writer.length
    writer.byte(stateVersion)
    this.#outlet?.save(writer)
    if (this.#check && !this.#check.quiet) {
      writer.byte(part.faults)
      this.#check.save(writer)
    }
    if (this.#detection?.alarmed) {
      writer.byte(part.alarms)
      this.#detection.save(writer)
    }
    if (writer.length === start + 1) writer.rewind(start)
  }

  /**
   * Goes on with hard state, maybe saved under another rule: what that one held and this one does not is
   * let go.
   *
   * @returns whether hard state has changed by it
   */
  load(state: HardState): boolean {
    const outlet = this.#outlet
    const rest = { ...state }
    if (outlet instanceof Thinning && state.reduction) {
      outlet.load(state.reduction, state.alarmMs)
      rest.reduction = undefined
    } else if (outlet instanceof Gathering && state.windows) {
      if (outlet.load(state.windows, state.alarmMs)) rest.windows = undefined
    }
    if (state.faults) this.#check?.load(state.faults)
    if (state.alarms) this.#detection?.load(state.alarms)
    return letGo(rest, this.#verdicts)
  }

  /** Whether anything was learned that is worth a checkpoint. */
  get learns(): boolean {
    return this.#check !== undefined || this.#detection !== undefined
  }

  /** Soft state: what was learned, and may be lost. */
  saveSoft(writer: StateWriter): void {
    writer.byte(stateVersion)
    writer.byte(this.#check ? 1 : 0)
    this.#check?.saveSoft(writer)
    writer.byte(this.#detection ? 1 : 0)
    this.#detection?.saveSoft(writer)
  }

  /** @throws StateProblem when it was learned under another rule, or otherwise */
  loadSoft(reader: StateReader): void {
    if (reader.byte() !== stateVersion) throw new StateProblem('state of another version')
    if (reader.byte() === 1) Check.loadSoft(reader, this.#check)
    if (reader.byte() === 1 && this.#detection) {
      this.#detection.loadSoft(reader)
      reader.end()
    }
  }
}

function isScored(reading: AdmittedReading): reading is AdmittedReading & Scored {
  return typeof reading.value === 'number' && Number.isFinite(reading.value)
}

/** Lets go of what was held for a series, where nothing holds it any more. @returns whether there was any */
export function letGo(
  { reduction, windows, dropped, gathered }: HardState,
  verdicts: Verdicts,
): boolean {
  for (const reading of reduction?.held ?? []) {
    verdicts.admitLate(reading)
    verdicts.hold(-1)
  }
  windows?.close(Infinity)
  if (dropped > 0) verdicts.settle(dropped, 'suppressed')
  if (gathered > 0) verdicts.settle(gathered, 'absorbed')
  return reduction !== undefined || windows !== undefined || dropped + gathered > 0
}

/** Makes a series as a reduction wants it. */
export function dresserOf({ device, metric, unit, labels }: Series, table: SeriesTable): Dress {
  return (between, epsilon) => table.intern(device, metric, { unit, labels, between, epsilon })
}
