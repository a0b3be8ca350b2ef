import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type AdmittedReading, SeriesTable } from '../../shared/reading.ts'
import { absent } from './needs.ts'

/** Series of the Numenta Anomaly Benchmark with their labels, beside the project where they are present. */
export const nabFolder = fileURLToPath(new URL('../../../shared/data/nab', import.meta.url))
/** The scorer of that benchmark's rules. */
export const nabScorer = fileURLToPath(
  new URL('../../../shared/tools/nab_score.py', import.meta.url),
)

export interface Recording {
  /** As the labels name it: `<category>/<series>.csv`. */
  name: string
  device: string
  times: number[]
  values: number[]
}

/** All recordings; undefined when they are absent and the test was skipped. */
export function recordings(t: TestContext): Recording[] | undefined {
  if (!existsSync(nabFolder)) {
    absent(t, `needs the NAB recordings in ${nabFolder}: https://github.com/numenta/NAB`)
    return undefined
  }
  return readRecordings()
}

export function readRecordings(): Recording[] {
  const names = globSync('*/*.csv', { cwd: join(nabFolder, 'data') }).sort()
  return names.map((name) => {
    const [, ...lines] = readFileSync(join(nabFolder, 'data', name), 'utf8')
      .trimEnd()
      .split(/\r?\n/)
    const rows = lines.map((line) => line.split(',') as [string, string])
    return {
      name,
      device: basename(name, '.csv'),
      times: rows.map(([time]) => Date.parse(`${time.replace(' ', 'T')}Z`)),
      values: rows.map(([, value]) => Number(value)),
    }
  })
}

/** Difference between the largest and the smallest value. */
export function rangeOf(values: readonly number[]): number {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity)
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity)
  return most - least
}

const table = new SeriesTable()

/** The recording as readings that arrive as they are measured. */
export function readingsOf({ device, times, values }: Recording): AdmittedReading[] {
  const series = table.intern(device, 'value')
  return times.map((timeMs, index) => ({
    series,
    timeMs,
    timeNanos: 0,
    value: values[index]!,
    quality: 0,
    arrival: { wallMs: timeMs, monotonicMs: timeMs - times[0]! },
  }))
}
