import { BoundedMap } from './bounded-map.ts'

/**
 * A reading's value. Integers up to ±(2^53 − 1) and all other numbers are `number`; integers beyond,
 * up to 64 bits signed or unsigned, are `bigint`. `null` is a value: the sensor said that it has none.
 */
export type Value = number | bigint | boolean | string | null

/**
 * What a reading belongs to. A `SeriesTable` gives the same object again while it remembers it; two
 * objects of equal content may exist, so identity is a short cut and content decides.
 */
export interface Series {
  readonly device: string
  readonly metric: string
  readonly unit: string | undefined
  /** Sorted by name. */
  readonly labels: Readonly<Record<string, string>>
  /** How to read between two points: whole as sent, last one holds, or on the straight line. */
  readonly between: 'raw' | 'hold' | 'linear'
  /** Bound of what a reduction suppressed, in the value's unit; 0 for raw. */
  readonly epsilon: number
  /** 32-bit hash of everything above; part of the running hash. */
  readonly hash: number
}

/** One value of one series at one time. */
export interface Reading {
  series: Series
  /** Milliseconds since 1970, integer, with `timeNanos` (0 to 999,999) behind it. */
  timeMs: number
  timeNanos: number
  value: Value
  /** Bits of `Quality`; 0 is good. */
  quality: number
}

/** Quality bits. They travel and are stored as numbers: never renumber, only add. */
export const Quality = {
  good: 0,
  /** The sensor's time was missing its mark (outside 2000 to 2100): arrival time stands in. */
  timeReplaced: 1,
  /** A retained copy that the broker gave on subscribing: of unknown age. */
  retained: 2,
  /** Pulled in as context around an alarm, or released late by a reduction. */
  late: 4,
  outOfRange: 8,
  rateExceeded: 16,
  stuck: 32,
  timeInFuture: 64,
  timeBackwards: 128,
  notFinite: 256,
  anomalous: 512,
  /** The gateway's clock was not set when this reading arrived; its time has been repaired by a reader. */
  clockRepaired: 1024,
  /** Sent again on request, from the agent's tail. */
  resent: 2048,
} as const

/** A gateway's clock that shows an earlier time, ms since 1970, has not been set: this software is younger. */
export const clocksSetAfterMs = 1_767_225_600_000 // 2026-01-01T00:00Z

/** Names of the set bits joined by `|`, or `good`. */
export function qualityText(quality: number): string {
  if (quality === 0) return 'good'
  const names = Object.entries(Quality).filter(([, bit]) => bit !== 0 && (quality & bit) === bit)
  return names.map(([name]) => name).join('|') || String(quality)
}

/** When a group of messages was taken from the source, by the gateway's two clocks. */
export interface Arrival {
  wallMs: number
  monotonicMs: number
}

/** A reading that the filter lets through, with its arrival. */
export interface AdmittedReading extends Reading {
  arrival: Arrival
}

export const lanes = ['urgent', 'bulk', 'quarantine'] as const
export type Lane = (typeof lanes)[number]

/** Priority-ordered numbers of the lanes, as stored and sent. */
export const laneNumber: Record<Lane, number> = { urgent: 0, bulk: 1, quarantine: 2 }

export const streams = ['readings', 'alerts', 'quarantine', 'gaps', 'ledger'] as const
export type Stream = (typeof streams)[number]

/**
 * Interns series, so that a series is one object, as a rule, and its hash is computed once. It forgets
 * those not asked for longest, since names come from outside: who publishes can invent any number.
 */
export class SeriesTable {
  readonly #known: BoundedMap<string, Series>

  /** @param capacity series remembered at least; at most twice as many are */
  constructor(capacity = 50_000) {
    this.#known = new BoundedMap(capacity)
  }

  /** @param labels any order; kept sorted */
  intern(
    device: string,
    metric: string,
    options: {
      unit?: string | undefined
      labels?: Readonly<Record<string, string>> | undefined
      between?: Series['between']
      epsilon?: number
    } = {},
  ): Series {
    const labels = Object.entries(options.labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
    const between = options.between ?? 'raw'
    const epsilon = options.epsilon ?? 0
    const key = JSON.stringify([device, metric, options.unit ?? null, labels, between, epsilon])
    let series = this.#known.get(key)
    if (!series) {
      series = Object.freeze({
        device,
        metric,
        unit: options.unit,
        labels: Object.freeze(Object.fromEntries(labels)),
        between,
        epsilon,
        hash: hashText(key),
      })
      this.#known.set(key, series)
    }
    return series
  }

  get size(): number {
    return this.#known.size
  }
}

/** FNV-1a over UTF-16 code units, finished with murmur3's mixer; unsigned 32 bits. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
