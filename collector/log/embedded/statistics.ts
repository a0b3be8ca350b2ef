import { perStream, type Statistics } from '../engine.ts'
import type { Segment } from './folder.ts'

/** Sums what segments count. @param partitions their segments, oldest first */
export function statisticsOf(partitions: readonly (readonly Segment[])[]): Statistics {
  const segments = partitions.flat()
  return perStream((stream) => {
    const held = segments.map(({ summary }) => summary.streams[stream])
    const sum = (name: 'records' | 'batches' | 'bytes') =>
      held.reduce((total, each) => total + each[name], 0)
    const ends = (at: 0 | -1, name: 'first' | 'next') =>
      partitions.reduce(
        (total, each) => total + (each.at(at)?.summary.streams[stream][name] ?? 0),
        0,
      )
    const fromMs = Math.min(...held.map((each) => each.fromMs))
    const toMs = Math.max(...held.map((each) => each.toMs))
    const records = sum('records')
    return {
      records,
      batches: sum('batches'),
      bytes: sum('bytes'),
      first: ends(0, 'first'),
      next: ends(-1, 'next'),
      fromMs: records > 0 ? fromMs : undefined,
      toMs: records > 0 ? toMs : undefined,
    }
  })
}
