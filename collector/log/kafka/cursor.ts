import type { HeldMemory } from '../held.ts'
import { rowBytes } from '../held.ts'
import type { NewRecord, Place, StoredRecord } from './cluster.ts'

/**
 * What is held, in the compacted topic beside the batches: one record for each incarnation of each agent,
 * of which the last one counts. Its key is the incarnation, 32 hexadecimal digits, and the agent's name;
 * its value:
 *
 * ```
 * 0   1  1 when it is the agent's present incarnation
 * 1  81  row of held.ts
 * ```
 */
export function cursorRecord(
  place: Place,
  { agent, row, isCurrent }: { agent: string; row: Uint8Array; isCurrent: boolean },
  timeMs: number,
): NewRecord {
  const value = new Uint8Array(1 + rowBytes)
  value[0] = isCurrent ? 1 : 0
  value.set(row, 1)
  const incarnation = Buffer.from(row.subarray(0, 16)).toString('hex')
  return { ...place, key: `${incarnation}${agent}`, value, timeMs }
}

/** A record that says nothing: only the bucket's present owner can commit it. */
export function markRecord(place: Place, timeMs: number): NewRecord {
  return { ...place, key: markKey, value: new Uint8Array(0), timeMs }
}

const markKey = 'mark'
const idDigits = 32

/** Takes over what a record of the topic says. */
export function replayCursor(memory: HeldMemory, { key, value }: StoredRecord): void {
  if (key === markKey || value.length !== 1 + rowBytes) return
  memory.put(key.slice(idDigits), value.slice(1), value[0] === 1)
}
