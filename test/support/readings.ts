import { type AdmittedReading, SeriesTable, type Value } from '../../shared/reading.ts'

const table = new SeriesTable()

/** A reading to test with; whatever does not matter has a default. */
export function reading(
  options: {
    device?: string
    metric?: string
    timeMs?: number
    value?: Value
    quality?: number
  } = {},
): AdmittedReading {
  const {
    device = 'pump-1',
    metric = 'temperature',
    timeMs = 1_767_225_600_000,
    value = 21.5,
    quality = 0,
  } = options
  return {
    series: table.intern(device, metric),
    timeMs,
    timeNanos: 0,
    value,
    quality,
    arrival: { wallMs: 1_767_225_600_000, monotonicMs: 0 },
  }
}

/** `count` readings with values `from`, `from` + 1, … one second apart. */
export function readings(count: number, from = 1, device = 'pump-1'): AdmittedReading[] {
  return Array.from({ length: count }, (_, index) =>
    reading({ device, value: from + index, timeMs: 1_767_225_600_000 + (from + index) * 1000 }),
  )
}
