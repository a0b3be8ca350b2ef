import { z } from 'zod'
import { duration, parseDuration } from '../shared/config.ts'
import type { SeededRandom } from './random.ts'

const length = duration({ min: '1s', max: '3650d' })

/** When it happens: once, or again and again at random, `every` apart on average. */
const when = {
  at: duration({ min: '0s', max: '3650d' }).optional(),
  every: length.optional(),
  /** How long it lasts; one reading where nothing is said. */
  for: length.optional(),
}

/** `1h` or `-1h`, in milliseconds. */
const signedDuration = z.string().transform((text, context) => {
  const ms = parseDuration(text.replace(/^[+-]/, ''))
  if (ms === undefined)
    context.addIssue({ code: 'custom', message: `expected a duration such as 5m or -1h` })
  return text.startsWith('-') ? -(ms ?? 0) : (ms ?? 0)
})

export const faultSchema = z
  .discriminatedUnion('kind', [
    /** Adds `size`. */
    z.strictObject({ kind: z.literal('spike'), size: z.number(), ...when }),
    /** Adds `size`, for longer. */
    z.strictObject({ kind: z.literal('shift'), size: z.number(), ...when }),
    /** Adds more and more, `size` at the end. */
    z.strictObject({ kind: z.literal('drift'), size: z.number(), ...when }),
    /** Repeats the value that it had at the beginning. */
    z.strictObject({ kind: z.literal('stuck'), ...when }),
    /** Sends nothing. */
    z.strictObject({ kind: z.literal('dropout'), ...when }),
    /** Sends everything twice. */
    z.strictObject({ kind: z.literal('duplicate'), ...when }),
    /** Sends every other reading behind the one that follows it. */
    z.strictObject({ kind: z.literal('outOfOrder'), ...when }),
    /** The device's clock is ahead by `by`, or behind. */
    z.strictObject({ kind: z.literal('clockSkew'), by: signedDuration, ...when }),
    /** Sends what is not JSON. */
    z.strictObject({ kind: z.literal('garbage'), ...when }),
  ])
  .refine(({ at, every }) => (at === undefined) !== (every === undefined), {
    message: 'takes either at or every',
  })
export type FaultSpec = z.infer<typeof faultSchema>

/** A fault from its first reading to its last, counted from 0 at the start of the recording. */
export interface Episode {
  fault: FaultSpec
  first: number
  last: number
}

/** Where a fault strikes among `count` readings that are `periodMs` apart; in order, never overlapping. */
export function planEpisodes(
  fault: FaultSpec,
  random: SeededRandom,
  count: number,
  periodMs: number,
): Episode[] {
  const length = Math.max(1, Math.round((fault.for ?? 0) / periodMs))
  const episodes: Episode[] = []
  const add = (first: number) =>
    episodes.push({ fault, first, last: Math.min(count, first + length) - 1 })
  if (fault.at !== undefined) {
    const first = Math.ceil(fault.at / periodMs)
    if (first < count) add(first)
    return episodes
  }
  const mean = fault.every! / periodMs
  for (let first = 0; ; first += length + 1) {
    first += Math.floor(mean * random.exponential())
    if (first >= count) return episodes
    add(first)
  }
}

/** What the faults of one reading do to it. */
export interface Effect {
  value: number
  skewMs: number
  dropped: boolean
  twice: boolean
  heldBack: boolean
  garbage: string | undefined
}

/** Walks along the episodes of one metric, reading by reading. */
export class Faults {
  readonly #random: SeededRandom
  /** Still to come, in order of their beginning. */
  readonly #coming: Episode[]
  #active: { episode: Episode; stuckAt: number | undefined }[] = []

  constructor(episodes: readonly Episode[], random: SeededRandom) {
    this.#random = random
    this.#coming = episodes.toSorted((a, b) => b.first - a.first)
  }

  /** @param index of the reading; must be asked for all of them in order */
  at(index: number, value: number): Effect {
    while (this.#coming.length > 0 && this.#coming.at(-1)!.first <= index)
      this.#active.push({ episode: this.#coming.pop()!, stuckAt: undefined })
    if (this.#active.length > 0)
      this.#active = this.#active.filter(({ episode }) => episode.last >= index)
    const effect: Effect = {
      value,
      skewMs: 0,
      dropped: false,
      twice: false,
      heldBack: false,
      garbage: undefined,
    }
    for (const active of this.#active) {
      const { fault, first, last } = active.episode
      switch (fault.kind) {
        case 'spike':
        case 'shift':
          effect.value += fault.size
          break
        case 'drift':
          effect.value += (fault.size * (index - first + 1)) / (last - first + 1)
          break
        case 'clockSkew':
          effect.skewMs += fault.by
          break
        case 'dropout':
          effect.dropped = true
          break
        case 'duplicate':
          effect.twice = true
          break
        case 'outOfOrder':
          effect.heldBack = (index - first) % 2 === 0
          break
        case 'garbage':
          effect.garbage = this.#garbage()
          break
        case 'stuck':
          break
      }
    }
    // Last, since a stuck sensor shows neither spike nor drift.
    for (const active of this.#active)
      if (active.episode.fault.kind === 'stuck') {
        active.stuckAt ??= effect.value
        effect.value = active.stuckAt
      }
    return effect
  }

  /** What firmware sends when it goes wrong: cut short, not JSON, or noise on the line. */
  #garbage(): string {
    const kinds = ['{"t":', '{"v":nan}', 'ERR', '', '\u0000\u0000\u0000', '}{']
    const kind = this.#random.below(kinds.length + 1)
    return kinds[kind] ?? Array.from({ length: 12 }, () => this.#letter()).join('')
  }

  #letter(): string {
    return String.fromCharCode(33 + this.#random.below(94))
  }
}
