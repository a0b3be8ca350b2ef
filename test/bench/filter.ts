// How good the default detector is on recordings with labelled anomalies, how near a reduction comes to the
// fewest points, and what a reading and a series cost: `npm run bench:filter`. docs/FILTER.md says how to
// read the figures.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { AlarmGate, gateTuning } from '../../agent/filter/detect/alarm-gate.ts'
import { Surprise, surpriseTuning } from '../../agent/filter/detect/surprise.ts'
import { createFilter, defaultRule, type Filter, filterSchema } from '../../agent/filter/filter.ts'
import { Reduction } from '../../agent/filter/reduce/reduction.ts'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { optimum } from '../support/optimum.ts'
import {
  nabFolder,
  nabScorer,
  type Recording,
  rangeOf,
  readingsOf,
  readRecordings,
} from '../support/recordings.ts'
import { Seeded } from '../support/seeded.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { bench, scoped } from './harness/bench.ts'
import { type Figure, figure, median, missing } from './harness/figure.ts'

const seriesCount = 10_000
const groupSize = 1_000
const collectGarbage = garbageCollector()

await bench(async ({ short, rounds, say }) => {
  const recordings = existsSync(nabFolder) ? readRecordings() : undefined
  return [
    ...(recordings && existsSync(nabScorer)
      ? await detection(recordings, short ? 4 : 16, say)
      : [missing('filter.standard', 'NAB points', `needs the recordings in ${nabFolder}`)]),
    ...(recordings ? reduction(recordings) : []),
    ...(await cost(short ? 2 : Math.max(3, rounds))),
  ]
})

// Detection

interface Profile {
  score: number
  fp_per_10k: number
  windows: number
  windows_found: number
}

/** Scores as the benchmark's scorer gives them, with the threshold that is shipped. */
async function detection(
  recordings: readonly Recording[],
  neighbours: number,
  say: (line: string) => void,
): Promise<Figure[]> {
  return scoped(async (t) => {
    const folder = await temporaryDirectory(t)
    const shipped = score(recordings, join(folder, 'shipped'), shippedScores)
    const { standard, reward_low_FP_rate: lowFp } = shipped
    say(
      `as shipped: standard ${standard.score.toFixed(1)}, reward_low_FP ${lowFp.score.toFixed(1)}, ` +
        `${standard.windows_found} of ${standard.windows} windows found, ` +
        `${standard.fp_per_10k.toFixed(1)} false alarms in 10,000 readings`,
    )
    const random = new Seeded(1)
    const around = Array.from({ length: neighbours }, (_, i) =>
      score(recordings, join(folder, String(i)), neighbour(random)),
    )
    const mean = (of: (scores: Scores) => number) => {
      const numbers = around.map(of)
      const average = numbers.reduce((a, b) => a + b, 0) / numbers.length
      say(`  neighbours: ${average.toFixed(1)}, ${numbers.map((one) => one.toFixed(1)).join(' ')}`)
      return average
    }
    const one = (
      name: string,
      value: number,
      unit: string,
      bound: { atLeast?: number; atMost?: number },
    ) => ({
      ...figure(name, [value], unit, bound),
      runs: name.endsWith('Mean') ? neighbours : 1,
    })
    return [
      one('filter.standard', standard.score, 'NAB points', { atLeast: 66 }),
      one('filter.lowFp', lowFp.score, 'NAB points', { atLeast: 60 }),
      one('filter.falsePer10k', standard.fp_per_10k, 'readings', { atMost: 8 }),
      one(
        'filter.standardMean',
        mean((scores) => scores.standard.score),
        'NAB points',
        { atLeast: 66 },
      ),
      one(
        'filter.lowFpMean',
        mean((scores) => scores.reward_low_FP_rate.score),
        'NAB points',
        { atLeast: 60 },
      ),
      one(
        'filter.falsePer10kMean',
        mean((scores) => scores.standard.fp_per_10k),
        'readings',
        { atMost: 8 },
      ),
    ]
  })
}

type Scores = Record<'standard' | 'reward_low_FP_rate', Profile>

function score(
  recordings: readonly Recording[],
  folder: string,
  scoresOf: (recording: Recording) => number[],
): Scores {
  for (const recording of recordings) {
    const scores = scoresOf(recording)
    const file = join(folder, recording.name)
    mkdirSync(dirname(file), { recursive: true })
    const lines = recording.times.map(
      (timeMs, row) => `${new Date(timeMs).toISOString().slice(0, 19)},${scores[row]}\n`,
    )
    writeFileSync(file, `timestamp,anomaly_score\n${lines.join('')}`)
  }
  const windows = join(nabFolder, 'labels', 'combined_windows.json')
  const options = ['--windows', windows, '--results', folder, '--data', join(nabFolder, 'data')]
  const threshold = String(defaultRule.detect!.threshold)
  return JSON.parse(
    execFileSync('python3', [nabScorer, ...options, '--threshold', threshold, '--json'], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    }),
  )
}

/** Through the whole filter, as `headgate filter try` does without a configuration. */
function shippedScores(recording: Recording): number[] {
  const scores: number[] = []
  const observer = { scored: (_: AdmittedReading, score: number) => void scores.push(score) }
  const filter = createFilter({ rules: [defaultRule], observer })
  filter.judge(readingsOf(recording))
  return scores
}

/** The detector with all that could be tuned moved by up to a quarter. */
function neighbour(random: Seeded): (recording: Recording) => number[] {
  const near = (value: number) => value * (0.8 + 0.45 * random.uniform())
  const whole = (value: number) => Math.max(1, Math.round(near(value)))
  const { outwards, tolerance, warmUp, growth, tail, bulks, prior, slots, newest } = surpriseTuning
  const tuning = {
    outwards: whole(outwards),
    tolerance: whole(tolerance),
    warmUp: whole(warmUp),
    growth: 1 + near(growth - 1),
    tail: near(tail),
    bulks: near(bulks),
    prior: near(prior),
    newest: near(newest),
    slots,
  }
  const { fatigue, restMs, quiet } = gateTuning
  const gated = { fatigue: near(fatigue), restMs: near(restMs), quiet: whole(quiet) }
  const { threshold, alarmsPerDay } = defaultRule.detect!
  return ({ times, values }) => {
    const detector = new Surprise(tuning)
    const gate = new AlarmGate({ threshold, alarmsPerDay }, gated)
    return values.map((value, row) => {
      const timeMs = times[row]!
      detector.take({ value, timeMs })
      gate.take(detector, { timeMs })
      return gate.score
    })
  }
}

// Reduction

/** Points kept over the fewest that would do, median over the recordings. */
function reduction(recordings: readonly Recording[]): Figure[] {
  const table = new SeriesTable()
  return [0.1, 0.5, 1, 2].map((percent) => {
    const ratios = recordings.map((recording) => {
      const absolute = (rangeOf(recording.values) * percent) / 100
      const reduction = new Reduction(
        { method: 'linear', error: { absolute }, heartbeatMs: Infinity, maxDelayMs: Infinity },
        (between, epsilon) => table.intern(recording.device, 'value', { between, epsilon }),
      )
      let kept = 0
      const out = { keep: () => void kept++, drop() {} }
      for (const reading of readingsOf(recording)) reduction.take(reading, false, out)
      reduction.release(out)
      return kept / optimum(recording.times, recording.values, absolute)
    })
    return figure(`filter.points${percent}`, [median(ratios)], 'of the fewest', { atMost: 1.15 })
  })
}

// Cost

/** Check, detection and reduction of ten thousand series on one core, hard state included. */
async function cost(rounds: number): Promise<Figure[]> {
  const rules = filterSchema.parse([
    {
      check: { range: [-40, 125], rate: '5/s', stuck: '10m', missing: '5m' },
      detect: {},
      reduce: { error: 0.2, heartbeat: '10m' },
    },
  ])
  const round = plant()
  const judge = (filter: Filter) => {
    const groups = round()
    const start = process.cpuUsage()
    for (const group of groups) filter.judge(group)
    const { user, system } = process.cpuUsage(start)
    return (user + system) / seriesCount
  }
  // What the plant and the code need themselves is there before memory is measured.
  for (let i = 0, first = createFilter({ rules }); i < 20; i++) judge(first)
  const before = await memory()
  const filter = createFilter({ rules })
  for (let i = 0; i < 250; i++) judge(filter)
  const bytes = ((await memory()) - before) / seriesCount
  const micros = Array.from({ length: rounds }, () =>
    median(Array.from({ length: 30 }, () => judge(filter))),
  )
  return [
    figure('filter.microseconds', micros, 'µs/reading', { atMost: 1 }),
    figure('filter.bytes', [bytes], 'B/series', { atMost: 4096 }),
  ]
}

/** Series that wander and are noisy; each call gives a value of each of them, a second later. */
function plant(): () => AdmittedReading[][] {
  const table = new SeriesTable()
  const random = new Seeded(1)
  const all = Array.from({ length: seriesCount }, (_, i) =>
    table.intern(`device-${i}`, 'temperature', { unit: 'Cel' }),
  )
  const levels = all.map(() => 20 + 5 * random.uniform())
  let second = 0
  return () => {
    const timeMs = Date.UTC(2026, 0, 1) + ++second * 1000
    const arrival = { wallMs: timeMs, monotonicMs: second * 1000 }
    const readings = all.map((series, i) => {
      levels[i]! += (random.uniform() - 0.5) * 0.05
      const noisy = levels[i]! + (random.uniform() - 0.5) * 0.1
      const value = Math.round(noisy * 100) / 100
      return { series, timeMs, timeNanos: 0, value, quality: 0, arrival }
    })
    return Array.from({ length: seriesCount / groupSize }, (_, i) =>
      readings.slice(i * groupSize, (i + 1) * groupSize),
    )
  }
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
