import type { Series } from '../../shared/reading.ts'

/** Globs that a series must match, each where it is given. */
export interface Match {
  device?: string | undefined
  metric?: string | undefined
  unit?: string | undefined
  labels?: Readonly<Record<string, string>> | undefined
}

/** Whether a series is one that a rule means. A series without a unit, or without a label, has it empty. */
export function matches({ device, metric, unit, labels }: Match, series: Series): boolean {
  return (
    (device === undefined || glob(device, series.device)) &&
    (metric === undefined || glob(metric, series.metric)) &&
    (unit === undefined || glob(unit, series.unit ?? '')) &&
    Object.entries(labels ?? {}).every(([name, pattern]) =>
      glob(pattern, Object.hasOwn(series.labels, name) ? series.labels[name]! : ''),
    )
  )
}

/** `*` stands for any characters, also none, and `?` for one. Takes pattern × text steps at most. */
export function glob(pattern: string, text: string): boolean {
  let p = 0
  let t = 0
  /** Behind the last star, and where the text went on that it took up to. */
  let afterStar = -1
  let taken = 0
  while (t < text.length) {
    if (pattern[p] === '*') {
      afterStar = ++p
      taken = t
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++
      t++
    } else if (afterStar >= 0) {
      p = afterStar
      t = ++taken
    } else return false
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
