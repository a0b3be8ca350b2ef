import type { Value } from '../reading.ts'

/**
 * Values of an item, series by series, within a series in sequence order: position 0 is the first value
 * of series 0. Each series has a form, one byte in the column `forms`:
 *
 *   0        null: nothing is stored
 *   1        boolean: 0 or 1, in `numbers`
 *   2        text: index into `texts`, in `numbers`
 *   3        float64, in `doubles`
 *   4        float32, in `singles`
 *   5        integer to 64 bits: less the one before it in the series (0 for the first), in `numbers`, signed
 *   16 + e   decimal, plain: value · 10^e, in `numbers`, signed
 *   48 + e   decimal, difference: value · 10^e less that of the decimal before it in the series, in
 *            `numbers`, signed; the first less the first of the last series before with the same channel
 *            if that had the same form, and otherwise less 0
 *
 * with 0 ≤ e ≤ 22; value · 10^e is an integer below 2^52, and dividing it by 10^e gives the value.
 * A decimal whose position is in `nudges` is some units in the last place off: its 64 bits, read as an
 * integer, are that much more. `nudges` holds pairs: positions between this one and the one before, and
 * the nudge, signed.
 *
 * A value that its series' form cannot hold is one of the `others`: pairs of positions between this and
 * the one before, and the value in plain CBOR. It takes no place in its series' column; an integer
 * among them counts as the one before in form 5.
 */
export interface ValueColumns {
  forms: Uint8Array
  numbers: Uint8Array
  nudges: Uint8Array
  doubles: Uint8Array
  singles: Uint8Array
  texts: string[]
  others: Other[]
}
export interface Other {
  gap: number
  value: Value
}

export const form = {
  null: 0,
  boolean: 1,
  text: 2,
  double: 3,
  single: 4,
  integer: 5,
  plain: 16,
  difference: 48,
} as const

/** Form and first decimal of each channel's last series. */
export class ChannelHistory {
  readonly #codes: Uint8Array
  readonly #firsts: Float64Array

  constructor(channelOf: Uint16Array) {
    let channels = 0
    for (const channel of channelOf) if (channel >= channels) channels = channel + 1
    this.#codes = new Uint8Array(channels)
    this.#firsts = new Float64Array(channels)
  }

  code(channel: number): number {
    return this.#codes[channel]!
  }

  /** What the first decimal of a series counts from. */
  first(channel: number, code: number): number {
    return this.#codes[channel] === code ? this.#firsts[channel]! : 0
  }

  began(channel: number, code: number, scaled: number): void {
    this.#codes[channel] = code
    this.#firsts[channel] = scaled
  }
}

/** A value that counts as the one before in form 5. */
export function integerOf(value: Value): bigint | undefined {
  if (typeof value === 'bigint') return value
  return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value as number) : undefined
}
