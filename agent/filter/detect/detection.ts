import { StateProblem, type StateReader, type StateWriter } from '../state-bytes.ts'
import { warmth } from '../warmth.ts'
import { type AlarmConfig, AlarmGate, readAlarms, type SavedAlarms } from './alarm-gate.ts'
import type { Detector, Scored } from './detector.ts'
import { Ewma } from './ewma.ts'
import { Hampel } from './hampel.ts'
import { Surprise } from './surprise.ts'

/** Stored as positions in this list: never reorder, only add. */
export const methods = ['surprise', 'hampel', 'ewma'] as const

export interface DetectionConfig extends AlarmConfig {
  method: (typeof methods)[number]
  /** Readings that `hampel` looks at. */
  window: number
  /** Readings after which one counts half, for `ewma`. */
  halfLife: number
  /** Deviations that `hampel` and `ewma` score 0.5. */
  limit: number
}

/** Readings told with an alert, so that a person sees what came before. */
const contextLength = 8

/** A detector and its alarms, for one series. */
export class Detection {
  readonly #config: DetectionConfig
  readonly #detector: Detector
  readonly #gate: AlarmGate
  /** Time and value of the last readings, a ring of pairs. */
  readonly #ring: number[] = new Array(2 * contextLength).fill(0)
  #seen = 0

  constructor(config: DetectionConfig, detector: Detector = detectorOf(config)) {
    this.#config = config
    this.#detector = detector
    this.#gate = new AlarmGate(config)
  }

  /** Learns from a reading, and scores it by what came before. */
  take(reading: Scored): void {
    this.#detector.take(reading)
    this.#gate.take(this.#detector, reading)
    const at = (this.#seen++ % contextLength) * 2
    this.#ring[at] = reading.timeMs
    this.#ring[at + 1] = reading.value
  }

  warm(): void {
    warmth[0] = this.#ring[(this.#seen % contextLength) * 2]!
    this.#gate.warm()
    this.#detector.warm?.()
  }

  /** In [0, 1], of the last reading: reaches the threshold exactly where it raised an alarm. */
  get score(): number {
    return this.#gate.score
  }

  /** What the last reading did: raised an alarm, or ended the anomaly. */
  get event(): 'raised' | 'cleared' | undefined {
    return this.#gate.event
  }

  get sinceMs(): number {
    return this.#gate.sinceMs
  }

  get threshold(): number {
    return this.#config.threshold
  }

  get expected(): number {
    return this.#detector.expected
  }

  /** Time and value of the last readings, the newest last. */
  get recent(): [timeMs: number, value: number][] {
    const pairs: [number, number][] = []
    for (let i = Math.max(0, this.#seen - contextLength); i < this.#seen; i++) {
      const at = (i % contextLength) * 2
      pairs.push([this.#ring[at]!, this.#ring[at + 1]!])
    }
    return pairs
  }

  /** Whether there ever was an alarm. */
  get alarmed(): boolean {
    return this.#gate.events > 0
  }

  /** Alarms: what is under way must be neither raised again nor forgotten over a restart. */
  save(writer: StateWriter): void {
    this.#gate.save(writer)
  }

  load(saved: SavedAlarms): void {
    // Soft state may have been saved since.
    if (saved.events > this.#gate.events) this.#gate.load(saved)
  }

  /** What was learned. */
  saveSoft(writer: StateWriter): void {
    const { method, window, halfLife } = this.#config
    writer.byte(methods.indexOf(method))
    writer.varint(method === 'hampel' ? window : method === 'ewma' ? halfLife : 0)
    this.#gate.save(writer)
    this.#detector.save(writer)
  }

  /** @throws StateProblem also when another method, or one set otherwise, has saved it */
  loadSoft(reader: StateReader): void {
    const { method, window, halfLife } = this.#config
    const saved = methods[reader.byte()]
    const length = reader.varint()
    if (
      saved !== method ||
      length !== (method === 'hampel' ? window : method === 'ewma' ? halfLife : 0)
    )
      throw new StateProblem('what another method has learned')
    this.#gate.load(readAlarms(reader))
    this.#detector.load(reader)
  }
}

export function detectorOf({ method, window, halfLife, limit }: DetectionConfig): Detector {
  switch (method) {
    case 'surprise':
      return new Surprise()
    case 'hampel':
      return new Hampel({ window, limit })
    case 'ewma':
      return new Ewma({ halfLife, limit })
  }
}
