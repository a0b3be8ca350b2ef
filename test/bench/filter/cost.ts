import { setTimeout as pause } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Device } from '../../../agent/filter/device.ts'
import { createFilter, filterSchema } from '../../../agent/filter/filter.ts'
import { Rule } from '../../../agent/filter/rule.ts'
import { warmedAtOnce } from '../../../agent/filter/rule-filter.ts'
import { Track } from '../../../agent/filter/track.ts'
import { Verdicts } from '../../../agent/filter/verdicts.ts'
import {
  type AdmittedReading,
  type Series,
  SeriesTable,
  type Value,
} from '../../../shared/reading.ts'
import { Seeded } from '../../support/seeded.ts'
import { type Figure, figure } from '../harness/figure.ts'

const seriesCount = 10_000
const groupSize = 1_000
const collectGarbage = garbageCollector()

const rule = {
  check: { range: [-40, 125], rate: '5/s', stuck: '10m', missing: '5m' },
  detect: {},
  reduce: { error: 0.2, heartbeat: '10m' },
}
/** The same, where nothing is alarming: an alert is an object, and meant to be. */
const quietRule = { ...rule, detect: { threshold: 1 } }
/** Rounds after which detectors have learned enough to judge. */
const warmUp = 250

/** Ten thousand series on one core, a thousand readings at a time. */
export async function cost(rounds: number): Promise<Figure[]> {
  const rules = filterSchema.parse([rule, quietRule])
  const wholeFilter = () => {
    const filter = createFilter({ rules })
    return (readings: readonly AdmittedReading[]) => void filter.judge(readings)
  }
  // What the plant and the code need themselves is there before memory is measured.
  const plant = new Plant()
  for (let i = 0, first = wholeFilter(); i < 20; i++) plant.round(first)
  const before = await memory()
  const judge = wholeFilter()
  for (let i = 0; i < warmUp; i++) plant.round(judge)
  const bytes = ((await memory()) - before) / seriesCount
  const judged = measured(rounds, () => plant.round(judge))

  const take = tracksOf(plant, new Rule(rules[0]!, 0))
  for (let i = 0; i < warmUp; i++) plant.round(take)
  const taken = measured(rounds, () => plant.round(take))

  const takeQuietly = tracksOf(plant, new Rule(rules[1]!, 1))
  for (let i = 0; i < warmUp; i++) plant.round(takeQuietly)
  return [
    // What it costs to find each series and to save hard state comes on top in `judgeMicroseconds`.
    figure('filter.microseconds', taken, 'µs/reading', { atMost: 1 }),
    figure('filter.judgeMicroseconds', judged, 'µs/reading'),
    figure('filter.bytes', [bytes], 'B/series', { atMost: 4096 }),
    // No object a reading: these are readings that are kept, and room for those that wait, given back behind them.
    figure('filter.garbage', [garbage(plant, takeQuietly)], 'B/reading', { atMost: 32 }),
  ]
}

/** The quickest of thirty, so many times: whatever else the machine does only adds to it. */
function measured(times: number, round: () => number): number[] {
  return Array.from({ length: times }, () => Math.min(...Array.from({ length: 30 }, round)))
}

/** Check, detection and reduction, and nothing else. */
function tracksOf({ series }: Plant, rule: Rule): Take {
  const verdicts = new Verdicts(undefined)
  const world = { verdicts, table: new SeriesTable(), device: () => new Device(), touch() {} }
  const tracks = series.map((one) => new Track(one, rule, world))
  return (readings, from) => {
    // As the filter goes through a group.
    for (let i = 0; i < readings.length; i++) {
      if (i % warmedAtOnce === 0)
        for (let k = i; k < Math.min(i + warmedAtOnce, readings.length); k++)
          tracks[from + k]!.warm()
      tracks[from + i]!.take(readings[i]!)
    }
    verdicts.take([])
  }
}

/** Bytes that come and go with a reading. */
function garbage(plant: Plant, take: Take): number {
  const groups = Array.from(plant.groups())
  collectGarbage()
  const before = process.memoryUsage().heapUsed
  for (const [i, group] of groups.entries()) take(group, i * groupSize)
  return (process.memoryUsage().heapUsed - before) / seriesCount
}

/** @param from which series the first of the readings is of; the others follow */
type Take = (readings: readonly AdmittedReading[], from: number) => void

/** Series that wander and are noisy. */
class Plant {
  readonly series: readonly Series[]
  readonly #random = new Seeded(1)
  readonly #levels: number[]
  #second = 0

  constructor() {
    const table = new SeriesTable()
    this.series = Array.from({ length: seriesCount }, (_, i) =>
      table.intern(`device-${i}`, 'temperature', { unit: 'Cel' }),
    )
    this.#levels = this.series.map(() => 20 + 5 * this.#random.uniform())
    // A decoder makes readings of any value: with numbers alone they would be laid out otherwise.
    readingOf(this.series[0]!, 0, 'text', { wallMs: 0, monotonicMs: 0 })
  }

  /** A value of each series, a second later than the last ones: groups as decoders make them. */
  *groups(): Iterable<AdmittedReading[]> {
    const timeMs = Date.UTC(2026, 0, 1) + ++this.#second * 1000
    const arrival = { wallMs: timeMs, monotonicMs: this.#second * 1000 }
    for (let from = 0; from < seriesCount; from += groupSize)
      yield this.series.slice(from, from + groupSize).map((series, i) => {
        this.#levels[from + i]! += (this.#random.uniform() - 0.5) * 0.05
        const noisy = this.#levels[from + i]! + (this.#random.uniform() - 0.5) * 0.1
        return readingOf(series, timeMs, Math.round(noisy * 100) / 100, arrival)
      })
  }

  /** @returns CPU time that `take` needed for a reading, µs */
  round(take: Take): number {
    let micros = 0
    let from = 0
    for (const group of this.groups()) {
      const start = process.cpuUsage()
      take(group, from)
      const { user, system } = process.cpuUsage(start)
      micros += user + system
      from += groupSize
    }
    return micros / seriesCount
  }
}

function readingOf(
  series: Series,
  timeMs: number,
  value: Value,
  arrival: AdmittedReading['arrival'],
): AdmittedReading {
  return { series, timeMs, timeNanos: 0, value, quality: 0, arrival }
}

/** Bytes in use on the heap and in buffers. */
async function memory(): Promise<number> {
  for (let i = 0; i < 5; i++) {
    collectGarbage()
    await pause(50) // Buffers are given back a little later.
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc')
}
