import { perStream, type Statistics } from '../engine.ts'
import type { Segment } from './folder.ts'

/** Sums what segments count. */
export function statisticsOf(segments: readonly Segment[]): Statistics {
  return perStream((stream) => {
    const held = segments.map(({ summary }) => summary.streams[stream])
    const sum = (name: 'records' | 'batches' | 'bytes') =>
      held.reduce((total, each) => total + each[name], 0)
    const fromMs = Math.min(...held.map((each) => each.fromMs))
    const toMs = Math.max(...held.map((each) => each.toMs))
    const records = sum('records')
    return {
      records,
      batches: sum('batches'),
      bytes: sum('bytes'),
      first: held[0]?.first ?? 0,
      next: held.at(-1)?.next ?? 0,
      fromMs: records > 0 ? fromMs : undefined,
      toMs: records > 0 ? toMs : undefined,
    }
  })
}
