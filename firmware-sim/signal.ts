import { z } from 'zod'
import { duration } from '../shared/config.ts'
import type { SeededRandom } from './random.ts'

const dayMs = 86_400_000
const length = duration({ min: '1s', max: '3650d' })

/** One part of a metric's value; the parts add up. */
export const signalSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('constant'), value: z.number() }),
  /** A cosine over the hours of the day (UTC), highest at `peak`. */
  z.strictObject({
    kind: z.literal('daily'),
    amplitude: z.number(),
    peak: duration({ min: '0s', max: '24h' }).prefault('15h'),
  }),
  /** Gaussian, anew for every reading. */
  z.strictObject({ kind: z.literal('noise'), sigma: z.number().min(0) }),
  z.strictObject({ kind: z.literal('drift'), perDay: z.number() }),
  /** Load: stays at one of the levels for `every` on average, then takes another. */
  z.strictObject({
    kind: z.literal('steps'),
    levels: z.array(z.number()).min(2).max(100),
    every: length,
  }),
  /** On and off in turn; adds `amplitude` while on. */
  z.strictObject({ kind: z.literal('onOff'), amplitude: z.number(), on: length, off: length }),
])
export type SignalSpec = z.infer<typeof signalSchema>

/**
 * A value over time. Must be asked in order of time, once for every reading.
 *
 * @param timeMs milliseconds since 1970; @param elapsedMs since the recording began
 */
export type Signal = (timeMs: number, elapsedMs: number) => number

/** The signal, a function of the generator alone. */
export function makeSignal(spec: SignalSpec, random: SeededRandom): Signal {
  switch (spec.kind) {
    case 'constant':
      return () => spec.value
    case 'daily':
      return (timeMs) =>
        spec.amplitude * Math.cos((2 * Math.PI * ((timeMs % dayMs) - spec.peak)) / dayMs)
    case 'noise':
      return () => spec.sigma * random.gaussian()
    case 'drift':
      return (_, elapsedMs) => (spec.perDay * elapsedMs) / dayMs
    case 'steps': {
      let level = random.below(spec.levels.length)
      let untilMs = spec.every * random.exponential()
      return (_, elapsedMs) => {
        while (elapsedMs >= untilMs) {
          // Another one: the level never steps onto itself.
          level = (level + 1 + random.below(spec.levels.length - 1)) % spec.levels.length
          untilMs += spec.every * random.exponential()
        }
        return spec.levels[level]!
      }
    }
    case 'onOff': {
      const cycleMs = spec.on + spec.off
      const phaseMs = cycleMs * random.uniform()
      return (_, elapsedMs) => ((elapsedMs + phaseMs) % cycleMs < spec.on ? spec.amplitude : 0)
    }
  }
}
