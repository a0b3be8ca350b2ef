import { Audit, type VerifyReport } from '../audit.ts'
import type { Cluster, Place } from './cluster.ts'
import { batchOf } from './totals.ts'

/** Reads every batch of these partitions up to their end, and checks it against what it says of itself. */
export async function verifyPartitions(
  cluster: Cluster,
  places: readonly Place[],
  breathe: () => Promise<void>,
): Promise<VerifyReport> {
  const audit = new Audit()
  for (const place of places) {
    audit.report.segments += 1
    const { first, next } = await cluster.ends(place)
    const isWhole = first === 0
    for await (const { records } of cluster.read(place, { fromOffset: first, toOffset: next }))
      for (const record of records) {
        await breathe()
        const { offset, value } = record
        const where = `partition ${place.partition}, record ${offset}`
        const about = { place: where, bytes: value.length, isWhole }
        audit.batch(batchOf(record, place.partition), value, about)
      }
  }
  return audit.report
}
