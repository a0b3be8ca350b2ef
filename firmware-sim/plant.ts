import type { Sample } from '../shared/trace.ts'
import { decimalText } from './decimal.ts'
import { SeededRandom } from './random.ts'

const metrics = [
  { name: 'temp', start: 21, step: 0.05 },
  { name: 'hum', start: 45, step: 0.2 },
  { name: 'pres', start: 1013, step: 0.1 },
  { name: 'vib', start: 5, step: 0.3 },
] as const

/** A device is heard this much behind the one before it. */
const phaseMs = 17
const jitterMs = 3

export interface PlantOptions {
  seed: number
  devices: number
  startMs: number
}

/**
 * The invented plant: every second each device sends four metrics of one time; they walk at random, with
 * two decimals, and the time jitters by a few milliseconds. It never ends.
 */
export function* plant({ seed, devices, startMs }: PlantOptions): Generator<Sample[]> {
  const digits = Math.max(3, String(devices).length)
  const all = Array.from({ length: devices }, (_, i) => {
    const device = `plant-${String(i + 1).padStart(digits, '0')}`
    const random = new SeededRandom(seed, device)
    const values = metrics.map(({ start, step }) => start + 40 * step * random.gaussian())
    return { device, random, values, phaseMs: (i * phaseMs) % 1000 }
  })
  all.sort((a, b) => a.phaseMs - b.phaseMs)
  for (let second = 0; ; second++) {
    const out: Sample[] = []
    for (const { device, random, values, phaseMs } of all) {
      const atMs = startMs + second * 1000 + phaseMs
      // A device reads all its sensors at once, by its own clock.
      const timeMs = Math.round(atMs + jitterMs * random.gaussian())
      for (const [i, { name, step }] of metrics.entries()) {
        const value = values[i]! + step * random.gaussian()
        values[i] = value
        out.push({
          device,
          metric: name,
          timeMs,
          timeNanos: 0,
          value: decimalText(value, 2),
          atMs,
        })
      }
    }
    yield out
  }
}
