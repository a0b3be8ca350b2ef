import { perStream, type Statistics } from './engine.ts'

/** One for all partitions. */
export function sumOf(all: readonly Statistics[]): Statistics {
  return perStream((stream) => {
    const each = all.map((statistics) => statistics[stream])
    const sum = (name: 'records' | 'batches' | 'bytes' | 'first' | 'next') =>
      each.reduce((total, one) => total + one[name], 0)
    const times = (name: 'fromMs' | 'toMs') =>
      each.map((one) => one[name]).filter((time) => time !== undefined)
    const [from, to] = [times('fromMs'), times('toMs')]
    return {
      records: sum('records'),
      batches: sum('batches'),
      bytes: sum('bytes'),
      first: sum('first'),
      next: sum('next'),
      fromMs: from.length > 0 ? Math.min(...from) : undefined,
      toMs: to.length > 0 ? Math.max(...to) : undefined,
    }
  })
}
