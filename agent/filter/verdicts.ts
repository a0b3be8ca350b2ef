import type { LaneRecord, RecordValue } from '../../shared/batch.ts'
import { type AdmittedReading, type Arrival, Quality } from '../../shared/reading.ts'
import type { StateChange } from '../state.ts'
import type { Admission, Judgement, Observer } from './filter.ts'

/** Gathers verdicts until they are taken as one judgement. */
export class Verdicts {
  readonly observer: Observer | undefined
  /** When what is under judgement arrived, or time was told last. */
  arrival: Arrival = { wallMs: 0, monotonicMs: 0 }
  /** Readings that came behind their window, since the start. */
  late = 0
  #admitted: Admission[] = []
  #records: LaneRecord[] = []
  #suppressed = 0
  #absorbed = 0
  #held = 0

  constructor(observer: Observer | undefined) {
    this.observer = observer
  }

  admit(reading: AdmittedReading, lane: Admission['lane'] = 'bulk'): void {
    this.#admitted.push({ lane, reading })
    this.observer?.decided?.(reading, 'admitted')
  }

  /** A reading that was held back. */
  admitLate(reading: AdmittedReading): void {
    reading.quality |= Quality.late
    const { wallMs, monotonicMs } = reading.arrival
    // Held since before the machine last booted: its monotonic time means nothing any more.
    if (monotonicMs > this.arrival.monotonicMs)
      reading.arrival = { wallMs, monotonicMs: this.arrival.monotonicMs }
    this.admit(reading)
  }

  /** A reading that the filter has made. */
  derive(reading: Omit<AdmittedReading, 'arrival'>): void {
    this.#admitted.push({
      lane: 'bulk',
      reading: { ...reading, arrival: this.arrival },
      derived: true,
    })
  }

  /** @param reading undefined where nobody observes */
  suppress(reading: AdmittedReading | undefined): void {
    this.#suppressed++
    if (reading) this.observer?.decided?.(reading, 'suppressed')
  }

  absorb(reading: AdmittedReading): void {
    this.#absorbed++
    this.observer?.decided?.(reading, 'absorbed')
  }

  /** Readings that were held in case of an alarm when the process ended: none will ask for them. */
  settle(count: number, as: 'suppressed' | 'absorbed'): void {
    this.#held -= count
    if (as === 'suppressed') this.#suppressed += count
    else this.#absorbed += count
  }

  /** So many more are held, or fewer where it is negative. */
  hold(change: number): void {
    this.#held += change
  }

  alert(content: { [key: string]: RecordValue }): void {
    this.#records.push({ type: 'alert', content })
  }

  take(state: StateChange[]): Judgement {
    const judgement = {
      admitted: this.#admitted,
      records: this.#records,
      suppressed: this.#suppressed,
      absorbed: this.#absorbed,
      held: this.#held,
      state,
    }
    this.#admitted = []
    this.#records = []
    this.#suppressed = this.#absorbed = this.#held = 0
    return judgement
  }
}
