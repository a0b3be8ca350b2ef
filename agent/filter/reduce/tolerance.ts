/** How far apart a reading and its reconstruction may lie, in the value's unit. */
export class Tolerance {
  /** The bound in force; it never shrinks. */
  epsilon: number
  readonly #share: number
  least = Infinity
  most = -Infinity

  /** @param error a distance, or a share of the span of values seen */
  constructor(error: { absolute: number } | { share: number }) {
    this.epsilon = 'absolute' in error ? error.absolute : 0
    this.#share = 'share' in error ? error.share : 0
  }

  /** Whether the bound follows the span of values seen. */
  get grows(): boolean {
    return this.#share > 0
  }

  see(value: number): void {
    if (value < this.least) this.least = value
    if (value > this.most) this.most = value
  }

  /**
   * Follows the span, where it has grown by a fifth: a bound is part of a series' identity on the wire, so
   * it moves in few steps, of two digits each. To be called between two segments only.
   */
  renew(): void {
    const wanted = this.#share * (this.most - this.least)
    if (wanted > this.epsilon * 1.2 && wanted < Infinity) this.epsilon = twoDigits(wanted)
  }
}

const fixed = new WeakMap<object, Tolerance>()

/** The tolerance of one series. One that does not grow has no state, so series share it. */
export function toleranceOf(error: { absolute: number } | { share: number }): Tolerance {
  if ('share' in error) return new Tolerance(error)
  let tolerance = fixed.get(error)
  if (!tolerance) {
    tolerance = new Tolerance(error)
    fixed.set(error, tolerance)
  }
  return tolerance
}

/** The number, cut to two digits or a little less. */
function twoDigits(value: number): number {
  const rounded = Number(value.toPrecision(2))
  return rounded <= value ? rounded : Number((value * 0.95).toPrecision(2))
}
