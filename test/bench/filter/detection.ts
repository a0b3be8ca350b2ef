import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { AlarmGate, gateTuning } from '../../../agent/filter/detect/alarm-gate.ts'
import { Surprise, surpriseTuning } from '../../../agent/filter/detect/surprise.ts'
import { createFilter, defaultRule } from '../../../agent/filter/filter.ts'
import type { AdmittedReading } from '../../../shared/reading.ts'
import { nabFolder, nabScorer, type Recording, readingsOf } from '../../support/recordings.ts'
import { Seeded } from '../../support/seeded.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { scoped } from '../harness/bench.ts'
import { type Figure, figure } from '../harness/figure.ts'

interface Profile {
  score: number
  fp_per_10k: number
  windows: number
  windows_found: number
}

/** Scores as the benchmark's scorer gives them, with the threshold that is shipped. */
export async function detection(
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
