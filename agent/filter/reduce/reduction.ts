import { type AdmittedReading, Quality, type Series } from '../../../shared/reading.ts'
import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
import { Cone } from './cone.ts'
import { Hold } from './hold.ts'
import type { Decisions, Segmenter } from './segment.ts'
import { type Tolerance, toleranceOf } from './tolerance.ts'

export interface ReductionConfig {
  method: 'linear' | 'deadband'
  error: { absolute: number } | { share: number }
  /** Infinity for none, as below. */
  heartbeatMs: number
  maxDelayMs: number
}

/** Makes the series under which kept readings travel: it says how to read between them, and how exactly. */
export type Dress = (between: 'hold' | 'linear', epsilon: number) => Series

/** Values of readings with these say nothing about the span of a series. */
const untrue = Quality.outOfRange | Quality.notFinite | Quality.anomalous

const nothing: AdmittedReading[] = []
const exact = toleranceOf({ absolute: 0 })

/** Readings that a saved state can hold at most. */
const maxSaved = 64

/**
 * Reduction of one series: finite numbers by straight lines or by exception as configured, all else by
 * change only. Where the kind of value or the quality changes, the reading is kept.
 */
export class Reduction {
  readonly #config: ReductionConfig
  readonly #dress: Dress
  readonly #tolerance: Tolerance
  /** Takes finite numbers. */
  readonly #numbers: Segmenter
  /** Takes all else; made when it is needed, as it hardly ever is. */
  #others: Segmenter | undefined
  /** The one that took the last reading; the other one holds nothing. */
  #active: Segmenter
  #quality = -1
  /** What kept readings wear: numbers, and all else. */
  #forNumbers: Series | undefined
  #forOthers: Series | undefined
  /** Held as of the last start, oldest first: the first of them ends a segment that was begun before. */
  #restored = nothing

  /** @param seen whether `Decisions.drop` is to be given the reading */
  constructor(config: ReductionConfig, dress: Dress, seen = false) {
    this.#config = config
    this.#dress = dress
    this.#tolerance = toleranceOf(config.error)
    const { method, heartbeatMs } = config
    this.#numbers =
      method === 'linear'
        ? new Cone(this.#tolerance, heartbeatMs, seen)
        : new Hold(this.#tolerance, heartbeatMs)
    this.#active = this.#numbers
  }

  /** Readings that wait for a decision. */
  get held(): number {
    return this.#active.held + this.#restored.length
  }

  /** When the one arrived that waits longest, wall clock, ms; Infinity when none does. */
  get undecidedMs(): number {
    return this.#restored[0]?.arrival.wallMs ?? this.#active.oldestWallMs ?? Infinity
  }

  /** Takes the next reading; `whole` keeps it, whatever it is. */
  take(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    if (this.#restored.length > 0) this.#resume(out)
    this.#takeNext(reading, whole, out)
    if (this.#config.maxDelayMs < Infinity) this.overdue(reading.arrival.monotonicMs, out)
  }

  warm(): void {
    warmth[0] = this.#quality
    this.#active.warm?.()
  }

  /** Lets go of what has waited for longer than it may. */
  overdue(monotonicMs: number, out: Decisions): void {
    const { maxDelayMs } = this.#config
    if (maxDelayMs === Infinity) return
    if (this.#restored.length > 0) this.#resume(out)
    for (;;) {
      const { oldestMs } = this.#active
      if (oldestMs === undefined) return
      const waitedMs = monotonicMs - oldestMs
      // Less than nothing: it arrived before the machine last booted.
      if (waitedMs >= 0 && waitedMs < maxDelayMs) return
      this.#active.advance(out)
    }
  }

  /** Decides everything held; the newest is kept, and so is the next reading to come. */
  release(out: Decisions): void {
    if (this.#restored.length > 0) this.#resume(out)
    this.#active.release(out)
  }

  /** Keeps everything held, and the next reading to come. */
  spill(out: Decisions): void {
    if (this.#restored.length > 0) this.#resume(out)
    this.#active.spill(out)
    this.#active.release(out)
  }

  /** Gives a reading that is to be kept the series that says how to read up to it. */
  dress(reading: AdmittedReading): void {
    // One that ends a segment of before the start is dressed already, with the bound of that time.
    if (reading.series.between !== 'raw') return
    if (this.#segmenterOf(reading) !== this.#numbers) {
      this.#forOthers ??= this.#dress('hold', 0)
      reading.series = this.#forOthers
      return
    }
    const { epsilon } = this.#tolerance
    if (this.#forNumbers?.epsilon !== epsilon)
      this.#forNumbers = this.#dress(this.#config.method === 'linear' ? 'linear' : 'hold', epsilon)
    reading.series = this.#forNumbers
  }

  #takeNext(reading: AdmittedReading, whole: boolean, out: Decisions): void {
    const segmenter = this.#segmenterOf(reading)
    const quality = reading.quality & ~Quality.late
    const changed = quality !== this.#quality
    this.#quality = quality
    if (segmenter !== this.#active) {
      this.#active.release(out)
      this.#active = segmenter
    }
    if (this.#tolerance.grows && segmenter === this.#numbers && (quality & untrue) === 0)
      this.#tolerance.see(reading.value as number)
    segmenter.take(reading, whole || changed, out)
  }

  #segmenterOf({ value }: AdmittedReading): Segmenter {
    if (typeof value === 'number' && Number.isFinite(value)) return this.#numbers
    this.#others ??= new Hold(exact, this.#config.heartbeatMs)
    return this.#others
  }

  /** Goes on with what was held: the oldest is kept, so that every start begins with a kept reading. */
  #resume(out: Decisions): void {
    const [first, ...rest] = this.#restored
    this.#restored = nothing
    if (!first) return
    out.keep(first, true)
    this.#active = this.#segmenterOf(first)
    // A line goes on from there. A step would be read with the bound of before, so it begins behind.
    const { method } = this.#config
    if (method === 'linear' && first.series.between === 'linear') this.#active.begin(first)
    this.#quality = first.quality & ~Quality.late
    for (const reading of rest) this.#takeNext(reading, false, out)
  }

  /** What a restart needs: nothing, as long as nothing is held and the bound does not grow. */
  get blank(): boolean {
    return this.held === 0 && !this.#tolerance.grows
  }

  save(writer: StateWriter): void {
    const { epsilon, grows, least, most } = this.#tolerance
    const first = this.#restored[0]
    const numbers = this.#active === this.#numbers
    const linear = first
      ? first.series.between === 'linear'
      : numbers && this.#config.method === 'linear'
    writer.byte((linear ? 1 : 0) | (grows ? 2 : 0))
    writer.float(first ? first.series.epsilon : numbers ? epsilon : 0)
    if (grows) {
      writer.float(least)
      writer.float(most)
    }
    writer.varint(this.held)
    for (const reading of this.#restored) writer.reading(reading)
    this.#active.saveHeld(writer)
  }

  /** Begins with what a reduction of this series had saved, maybe under another rule. */
  load(saved: SavedReduction): void {
    this.#restored = saved.held
    if (!this.#tolerance.grows) return
    if (saved.least <= saved.most) {
      this.#tolerance.see(saved.least)
      this.#tolerance.see(saved.most)
    }
    this.#tolerance.renew()
  }
}

/** A reduction's state as it was saved. */
export interface SavedReduction {
  least: number
  most: number
  /** Held readings, oldest first. Marked late; the first has the series of the segment that it ends. */
  held: AdmittedReading[]
}

/** @throws StateProblem */
export function readReduction(reader: StateReader, series: Series, dress: Dress): SavedReduction {
  const flags = reader.byte()
  const between = flags & 1 ? 'linear' : 'hold'
  const epsilon = reader.float()
  if (!(epsilon >= 0)) throw new StateProblem(`a bound of ${epsilon}`)
  const least = flags & 2 ? reader.float() : Infinity
  const most = flags & 2 ? reader.float() : -Infinity
  const held = Array.from({ length: reader.count(maxSaved) }, () => reader.reading(series))
  for (const reading of held) reading.quality |= Quality.late
  if (held[0]) held[0].series = dress(between, epsilon)
  return { least, most, held }
}
