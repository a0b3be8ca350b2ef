/** One result of a bench. */
export interface Figure {
  name: string
  /** Median over the runs; null where it could not be measured. */
  figure: number | null
  unit: string
  /** Repetitions behind the figure. */
  runs: number
  /** Whether it is what issue and documentation promise; null where nothing is. */
  holds: boolean | null
  /** Why there is no figure, or what it stands for. */
  note?: string
}

/** What is asked of a figure, either bound inclusive. */
export interface Bound {
  atLeast?: number
  atMost?: number
}

/** The median of `values`, as a figure. */
export function figure(
  name: string,
  values: readonly number[],
  unit: string,
  { atLeast, atMost }: Bound = {},
): Figure {
  const middle = median(values)
  const asked = atLeast !== undefined || atMost !== undefined
  const holds = middle >= (atLeast ?? -Infinity) && middle <= (atMost ?? Infinity)
  return {
    name,
    figure: rounded(middle),
    unit,
    runs: values.length,
    holds: asked ? holds : null,
  }
}

/** A figure that could not be measured here, and why. */
export function missing(name: string, unit: string, note: string): Figure {
  return { name, figure: null, unit, runs: 0, holds: null, note }
}

/** @param values at least one */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** The value below which a share of `values` lies, without interpolation but for the median of two. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new RangeError('the quantile of nothing')
  const sorted = Float64Array.from(values).sort()
  const at = share * (sorted.length - 1)
  if (share === 0.5) return (sorted[Math.floor(at)]! + sorted[Math.ceil(at)]!) / 2
  return sorted[Math.ceil(at)]!
}

/** To four digits, so that a table can be read. */
function rounded(value: number): number {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : value
}
