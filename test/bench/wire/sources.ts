import { existsSync, globSync, readFileSync } from 'node:fs'
import { plant as simulated } from '../../../firmware-sim/plant.ts'
import { type AdmittedReading, SeriesTable } from '../../../shared/reading.ts'

/**
 * Readings as an agent would admit them: one MQTT message each, in order of arrival. The agent takes
 * those that lie together in time as one group, with one arrival.
 */
export interface Source {
  name: string
  readings: AdmittedReading[]
}

const devices = 50
const baseMs = 1_763_800_000_000

/** The simulator's plant as `headgate sim` plays it: 50 devices with 4 metrics each, once a second. */
export function plant(count: number, seed = 12_345): Source {
  const random = generator(seed)
  const table = new SeriesTable()
  const readings: AdmittedReading[] = []
  for (const samples of simulated({ seed, devices, startMs: baseMs })) {
    for (const { device, metric, timeMs, timeNanos, value } of samples)
      readings.push({
        series: table.intern(device, metric),
        timeMs,
        timeNanos,
        value: Number(value),
        quality: 0,
        arrival: arrivalAt(timeMs - baseMs, random),
      })
    if (readings.length >= count) break
  }
  return { name: 'plant', readings: readings.slice(0, count) }
}

/**
 * The recorded series, dealt to 50 devices: device i plays series i mod 23 from its row i · 997 on, round
 * and round, with the times of the recording; all devices step together, once a second.
 *
 * @returns undefined where the data set is absent
 */
export function nab(count: number, seed = 6_789): Source | undefined {
  const folder = new URL('../../../../shared/data/nab/data/', import.meta.url).pathname
  const files = existsSync(folder) ? globSync('*/*.csv', { cwd: folder }).sort() : []
  if (files.length === 0) return undefined
  const traces = files.map((file) =>
    readFileSync(folder + file, 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map((row) => {
        const [time, value] = row.split(',') as [string, string]
        return { timeMs: Date.parse(`${time.replace(' ', 'T')}Z`), value: Number(value) }
      }),
  )
  const random = generator(seed)
  const table = new SeriesTable()
  const readings: AdmittedReading[] = []
  for (let step = 0; readings.length < count; step++)
    for (let device = 0; device < devices; device++) {
      const trace = traces[device % traces.length]!
      const row = trace[(device * 997 + step) % trace.length]!
      readings.push({
        ...row,
        series: table.intern(deviceName(device), 'value'),
        timeNanos: 0,
        quality: 0,
        arrival: arrivalAt(step * 1000 + device * 2, random),
      })
    }
  return { name: 'nab', readings: readings.slice(0, count) }
}

/** What arrived together, and is one item in the outbox. */
export function groupsOf(readings: readonly AdmittedReading[]): AdmittedReading[][] {
  const groups: AdmittedReading[][] = []
  for (const reading of readings) {
    const group = groups.at(-1)
    if (group && group[0]!.arrival === reading.arrival) group.push(reading)
    else groups.push([reading])
  }
  return groups
}

/** What the devices publish, one message a line. */
export function jsonLines(readings: readonly AdmittedReading[]): Buffer {
  const lines = readings.map(
    ({ series, timeMs, value }) =>
      `sensors/${series.device}/${series.metric} {"t":${timeMs},"v":${value}}\n`,
  )
  return Buffer.from(lines.join(''))
}

/** Two to four milliseconds on the way; the monotonic clock has microseconds. */
function arrivalAt(sinceMs: number, random: () => number): AdmittedReading['arrival'] {
  const elapsedUs = Math.round((sinceMs + 2 + 2 * random()) * 1000)
  return {
    wallMs: baseMs + Math.floor(elapsedUs / 1000),
    monotonicMs: (86_400_000_000 + elapsedUs) / 1000,
  }
}

function deviceName(device: number): string {
  return `dev-${String(device).padStart(3, '0')}`
}

/** Uniform in [0, 1), the same on every run (mulberry32). */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
