// How good the default detector is on recordings with labelled anomalies, how near a reduction comes to the
// fewest points, and what a reading and a series cost: `npm run bench:filter`. docs/FILTER.md says how to
// read the figures.
import { existsSync } from 'node:fs'
import { Reduction } from '../../agent/filter/reduce/reduction.ts'
import { SeriesTable } from '../../shared/reading.ts'
import { optimum } from '../support/optimum.ts'
import {
  nabFolder,
  nabScorer,
  type Recording,
  rangeOf,
  readingsOf,
  readRecordings,
} from '../support/recordings.ts'
import { cost } from './filter/cost.ts'
import { detection } from './filter/detection.ts'
import { bench } from './harness/bench.ts'
import { type Figure, figure, median, missing } from './harness/figure.ts'

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
