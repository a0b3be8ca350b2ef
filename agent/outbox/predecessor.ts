import type { Chain } from '../../shared/chain.ts'
import type { StoreChange } from '../../shared/ports.ts'
import { type Lane, lanes } from '../../shared/reading.ts'
import { type Incarnation, type Position, type PredecessorEnd, positionsOf } from './incarnation.ts'
import { positionKey } from './key.ts'
import { putIncarnation, putPosition } from './recovery.ts'

/** Where a lane of an incarnation's predecessor ended, if it has that name. */
export function endOf(
  predecessor: PredecessorEnd | undefined,
  id: Uint8Array,
  lane: Lane,
): { ordinal: number; last: number; after: Chain } | undefined {
  if (!predecessor || Buffer.compare(predecessor.id, id) !== 0) return undefined
  return {
    ordinal: predecessor.ordinal,
    last: predecessor.last[lane],
    after: predecessor.chain[lane],
  }
}

/**
 * A predecessor that was delivered may be forgotten here. Its heir knows its name and where it ended, which
 * is enough to declare what a collector asks for of it.
 */
export function revive({ predecessor }: Incarnation): {
  incarnation: Incarnation
  ends: Record<Lane, Position>
  changes: StoreChange[]
} {
  if (!predecessor) throw new TypeError('only a predecessor is asked for')
  const { ordinal, id } = predecessor
  const incarnation = { ordinal, id, boot: new Uint8Array(16), predecessor: undefined }
  const ends = positionsOf(predecessor)
  const changes = lanes.map((lane) => putPosition(positionKey(ordinal, lane), ends[lane]))
  return { incarnation, ends, changes: [putIncarnation(incarnation), ...changes] }
}
