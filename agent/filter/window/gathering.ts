import {
  type AdmittedReading,
  type Arrival,
  Quality,
  type Series,
  type SeriesTable,
} from '../../../shared/reading.ts'
import { Around } from '../around.ts'
import type { Device, Windowed } from '../device.ts'
import { part } from '../hard-state.ts'
import type { Outlet } from '../outlet.ts'
import type { FilterRule } from '../schema.ts'
import type { StateWriter } from '../state-bytes.ts'
import type { Verdicts } from '../verdicts.ts'
import { type WindowConfig, type WindowListener, Windows } from './windows.ts'

/**
 * Gathers the numbers of one series into windows; everything else passes, and so does a reading that comes
 * when its window is closed. Around an alarm readings pass too, besides being counted in their window.
 */
export class Gathering implements Outlet, Windowed {
  readonly #verdicts: Verdicts
  readonly #device: Device
  readonly #around: Around | undefined
  readonly #touch: () => void
  #windows: Windows

  constructor(
    config: WindowConfig,
    around: FilterRule['around'],
    device: Device,
    listener: WindowListener,
    touch: () => void,
    verdicts: Verdicts,
  ) {
    this.#verdicts = verdicts
    this.#touch = touch
    this.#device = device
    this.#windows = new Windows(config, listener)
    if (around) this.#around = new Around(around, (reading) => verdicts.absorb(reading))
    device.join(this)
  }

  get held(): number {
    return this.#around?.held ?? 0
  }

  get undecidedMs(): number {
    return this.#windows.oldestMs
  }

  get dueMs(): number {
    return this.#windows.nextEndMs + this.#windows.config.latenessMs
  }

  get patienceMs(): number {
    const { sizeMs, latenessMs } = this.#windows.config
    return sizeMs + latenessMs
  }

  closeWindows(watermarkMs: number): void {
    this.#touch()
    this.#windows.close(watermarkMs - this.#windows.config.latenessMs)
  }

  take(reading: AdmittedReading, alarmed: boolean): void {
    const { value, timeMs, quality, arrival } = reading
    const verdicts = this.#verdicts
    this.#around?.pass(timeMs)
    if (alarmed) this.#around?.alarm(timeMs, (gathered) => verdicts.admitLate(gathered))
    const lane = alarmed ? 'urgent' : 'bulk'
    if (typeof value !== 'number' || !Number.isFinite(value)) {
      verdicts.admit(reading, lane)
      return
    }
    const openBefore = this.#windows.open
    if (!this.#windows.add(value, timeMs, quality)) {
      reading.quality |= Quality.late
      verdicts.late++
      verdicts.admit(reading, lane)
    } else if (alarmed || this.#around?.wants(timeMs)) verdicts.admit(reading, lane)
    else if (!this.#around?.hold(reading, true)) verdicts.absorb(reading)
    // A clock that is ahead must not close the windows of its neighbours.
    const tellsMs = quality & Quality.timeInFuture ? -Infinity : timeMs
    const dueMs = this.#windows.open > openBefore ? this.dueMs : Infinity
    this.#device.see(tellsMs, dueMs, arrival.monotonicMs)
  }

  tick(_now: Arrival): void {}

  release(): void {
    this.#around?.release()
  }

  save(writer: StateWriter): void {
    writer.byte(part.windows)
    this.#windows.save(writer)
    this.#around?.save(writer, part.gathered)
  }

  /** Goes on with windows that were open. @returns false when they are configured otherwise by now */
  load(saved: Windows, alarmMs: number | undefined): boolean {
    this.#around?.load(alarmMs)
    if (!saved.fits(this.#windows.config)) return false
    this.#windows = saved
    this.#device.see(saved.closedMs, this.dueMs, Infinity)
    return true
  }
}

/** Turns the aggregates of a series into readings. */
export function aggregateReadings(
  { device, metric, unit, labels }: Series,
  table: SeriesTable,
  verdicts: Verdicts,
): WindowListener {
  const made = new Map<string, Series>()
  return {
    aggregate(name, startMs, value, quality) {
      let series = made.get(name)
      if (!series) {
        const own = name === 'count' ? undefined : unit
        series = table.intern(device, `${metric}.${name}`, { unit: own, labels })
        made.set(name, series)
      }
      verdicts.derive({ series, timeMs: startMs, timeNanos: 0, value, quality })
    },
  }
}
