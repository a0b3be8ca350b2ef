import {
  type BatchHeader,
  type Item,
  type LaneRecord,
  type RecordValue,
  readingsOf,
} from '../../shared/batch.ts'
import {
  type AdmittedReading,
  lanes,
  type Series,
  SeriesTable,
  type Value,
} from '../../shared/reading.ts'
import { Seeded } from '../support/seeded.ts'

/** Made-up items and batches with everything in them that the types allow; a seed repeats them. */
export class BatchGenerator {
  readonly table = new SeriesTable()
  readonly seeded: Seeded
  #wallMs = 1_767_225_600_000
  #monotonicUs = 5_000_000

  constructor(seed: number) {
    this.seeded = new Seeded(seed)
  }

  item(): Item {
    const kind = this.seeded.below(10)
    if (kind === 0) return this.gap()
    if (kind === 1) return this.records()
    return this.readings()
  }

  readings(count = 1 + this.seeded.below(this.seeded.pick([3, 30, 300]))): Item {
    const { seeded } = this
    const series = Array.from({ length: 1 + seeded.below(8) }, (_, i) => this.#series(i))
    const makers = series.map(() => this.#valueMaker())
    const mixed = seeded.chance(0.2)
    const clock = this.#clock()
    const inRounds = seeded.chance(0.7)
    const readings: AdmittedReading[] = []
    let arrival = this.#arrival()
    let quality = 0
    for (let i = 0; i < count; i++) {
      if (seeded.chance(0.1)) arrival = this.#arrival()
      if (seeded.chance(0.05)) quality = seeded.below(2 ** seeded.below(13))
      const at = inRounds ? i % series.length : seeded.below(series.length)
      const value = seeded.chance(mixed ? 0.3 : 0.02) ? this.#anyValue() : makers[at]!()
      readings.push({ series: series[at]!, ...clock(), value, quality, arrival })
    }
    return { kind: 'readings', readings }
  }

  records(): Item {
    const { seeded } = this
    const records = Array.from({ length: 1 + seeded.below(4) }, (): LaneRecord => {
      const type = seeded.pick(['quarantine', 'alert', 'clock'] as const)
      if (type !== 'quarantine')
        return { type, content: { ...(this.#content(2) as object), name: this.#text() } }
      const payload = this.bytes(seeded.below(300))
      const isCut = seeded.chance(0.3)
      return {
        type,
        topic: `plant/${this.#text()}`,
        payload,
        size: isCut ? payload.length + 70_000 : payload.length,
        sha256: isCut ? this.bytes(32) : undefined,
        reason: 'not JSON',
        arrival: this.#arrival(),
      }
    })
    return { kind: 'records', records }
  }

  gap(): Item {
    const { seeded } = this
    if (seeded.chance(0.3)) return this.thinned()
    const isKnown = seeded.chance(0.7)
    return {
      kind: 'gap',
      count: 1 + seeded.below(2 ** 40),
      reason: seeded.pick(['evicted', 'lost_corrupt', 'released'] as const),
      after: this.#chain(),
      series: isKnown ? [{ device: 'pump-1', metric: 'temperature', count: 17 }] : [],
      fromMs: isKnown ? 1_767_225_600_000 : undefined,
      toMs: isKnown ? 1_767_225_700_000 : undefined,
      atLeast: !isKnown,
    }
  }

  /** A gap in which readings were kept. */
  thinned(): Item {
    const { seeded } = this
    const readings = [...readingsOf(this.readings())]
    let place = -1
    const places = readings.map(() => {
      place += 1 + (seeded.chance(0.5) ? seeded.below(200) : 0)
      return place
    })
    return {
      kind: 'gap',
      count: place + 1 + seeded.below(3),
      reason: 'thinned',
      after: this.#chain(),
      series: [{ device: 'pump-1', metric: 'temperature', count: 17 }],
      fromMs: 1_767_225_600_000,
      toMs: 1_767_225_700_000,
      atLeast: false,
      kept: { places, readings },
    }
  }

  /** @param count sequences that its items cover */
  header(count: number): BatchHeader {
    const { seeded } = this
    const first = 1 + seeded.below(2 ** 40)
    return {
      agent: `gw-${this.#text()}`,
      incarnation: this.bytes(16),
      lane: seeded.pick(lanes),
      first,
      last: first + count - 1,
      before: this.#chain(),
      after: this.#chain(),
      predecessor: seeded.chance(0.5)
        ? { incarnation: this.bytes(16), last: { urgent: 0, bulk: 2 ** 40, quarantine: 3 } }
        : undefined,
      boot: this.bytes(16),
      sentMs: 1_767_225_600_000,
      ledger: seeded.chance(0.5) ? { received: 2 ** 50, forwarded: 0 } : undefined,
    }
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.seeded.below(256))
  }

  #series(i: number): Series {
    const { seeded } = this
    const between = seeded.pick(['raw', 'raw', 'hold', 'linear'] as const)
    return this.table.intern(`device-${i >> 1}`, `${this.#text()}-${i}`, {
      unit: seeded.chance(0.5) ? seeded.pick(['°C', 'kPa', '']) : undefined,
      labels: seeded.chance(0.3) ? { site: this.#text(), line: 'B' } : {},
      between,
      epsilon: between === 'raw' ? 0 : seeded.pick([0, 0.05, 1e-7, 3]),
    })
  }

  /** Times as sensors give them: on a beat, with jitter, several alike, backwards, far off. */
  #clock(): () => { timeMs: number; timeNanos: number } {
    const { seeded } = this
    const beatMs = seeded.pick([0, 1, 20, 1000, 60_000])
    const jitterMs = seeded.pick([0, 0, 3, 500])
    const nanos = seeded.pick([1, 1, 1000, 1_000_000])
    let timeMs = seeded.pick([1_767_225_600_000, 946_684_800_000, 0, -1, -(2 ** 47)])
    let timeNanos = 0
    return () => {
      if (seeded.chance(0.7)) {
        timeMs += beatMs + seeded.below(2 * jitterMs + 1) - jitterMs
        if (seeded.chance(0.02)) timeMs += seeded.pick([-86_400_000, 3_600_000, 2 ** 46])
        if (Math.abs(timeMs) > 2 ** 48) timeMs = 2 ** 48
        timeNanos = nanos === 1 ? 0 : seeded.below(1_000_000 / (1_000_000 / nanos)) % 1_000_000
      }
      return { timeMs, timeNanos }
    }
  }

  #arrival(): AdmittedReading['arrival'] {
    const { seeded } = this
    this.#monotonicUs += seeded.below(300_000)
    this.#wallMs += seeded.below(300)
    if (seeded.chance(0.02)) this.#wallMs += seeded.pick([-1_700_000_000_000, 3_600_000, -100])
    this.#wallMs = Math.max(0, this.#wallMs)
    return { wallMs: this.#wallMs, monotonicMs: this.#monotonicUs / 1000 }
  }

  #valueMaker(): () => Value {
    const { seeded } = this
    const digits = seeded.pick([0, 1, 2, 3, 7])
    const scale = 10 ** digits
    let walk = seeded.below(10_000)
    let counter = 2n ** 53n - 5n
    switch (seeded.below(9)) {
      case 0:
        return () => seeded.uniform()
      case 1:
        return () => Math.fround(seeded.uniform())
      case 2:
        return () => seeded.chance(0.5)
      case 3:
        return () => seeded.pick(['on', 'off', this.#text()])
      case 4:
        return () => {
          counter += BigInt(seeded.below(4))
          return exact(counter)
        }
      case 5:
        return () => (seeded.below(1000) - 500) * 0.1
      case 6:
        return () => this.#anyValue()
      default:
        return () => {
          walk += seeded.below(21) - 10
          return walk / scale
        }
    }
  }

  #anyValue(): Value {
    return this.seeded.pick([...edgeValues, this.#text()])
  }

  #content(depth: number): RecordValue {
    const { seeded } = this
    if (depth === 0) return seeded.pick([null, true, 1, -1, 0.5, 1e300, 'text', -0])
    if (seeded.chance(0.3)) return [this.#content(depth - 1), this.#content(depth - 1)]
    return { [this.#text()]: this.#content(depth - 1), ['__proto__']: this.#content(depth - 1) }
  }

  #text(): string {
    return this.seeded.pick([
      '',
      'a',
      'Öfen',
      '温度',
      '🌡',
      'x'.repeat(100),
      '__proto__',
      '10',
      '\u0000',
    ])
  }

  #chain(): { high: number; low: number } {
    return { high: this.seeded.below(2 ** 32), low: this.seeded.below(2 ** 32) }
  }
}

/** Values on the edges of what the columns hold. */
export const edgeValues: readonly Value[] = [
  0,
  -0,
  1,
  -1,
  21.5,
  -21.55,
  0.1,
  0.30000000000000004,
  1e-7,
  -1e-7,
  1e21,
  1e22,
  1.5e300,
  5e-324,
  Number.MAX_VALUE,
  123456789.12345678,
  94.79799999999999,
  2 ** 31,
  2 ** 32 + 0.5,
  2 ** 52 - 1,
  2 ** 52,
  -(2 ** 52),
  Number.MAX_SAFE_INTEGER,
  -Number.MAX_SAFE_INTEGER,
  2 ** 53,
  Infinity,
  -Infinity,
  Number.NaN,
  2n ** 53n,
  -(2n ** 53n),
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 63n,
  2n ** 64n - 1n,
  true,
  false,
  null,
  '',
  'stopped',
]

/** As a reading carries integers: `number` where it is exact. */
function exact(value: bigint): Value {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}
