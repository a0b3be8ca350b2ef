import { type Chain, chainFromBytes, chainStart, chainToBytes } from '../../shared/chain.ts'
import { type Lane, lanes } from '../../shared/reading.ts'

/** One stretch of numbering: from the first commit after a start to the end of that process. */
export interface Incarnation {
  /** Local, counts up; says which incarnation came before which. */
  ordinal: number
  /** 16 random bytes: the name that travels. */
  id: Uint8Array
  /** Boot of the machine that it began in. */
  boot: Uint8Array
  predecessor: PredecessorEnd | undefined
}

/** Where the incarnation before ended, per lane: its last sequence and the running hash behind it. */
export interface PredecessorEnd {
  ordinal: number
  id: Uint8Array
  last: Record<Lane, number>
  chain: Record<Lane, Chain>
}

/** What the incarnation behind it must say of one that ended there. */
export function predecessorEnd(
  { ordinal, id }: Pick<Incarnation, 'ordinal' | 'id'>,
  end: Record<Lane, Position>,
): PredecessorEnd {
  return {
    ordinal,
    id,
    last: perLane((lane) => end[lane].sequence),
    chain: perLane((lane) => end[lane].chain),
  }
}

export function positionsOf({ last, chain }: PredecessorEnd): Record<Lane, Position> {
  return perLane((lane) => ({ sequence: last[lane], chain: chain[lane] }))
}

/** How far a lane of an incarnation is delivered, or numbered. */
export interface Position {
  sequence: number
  chain: Chain
}

export const startPosition: Position = Object.freeze({ sequence: 0, chain: chainStart })

export function perLane<T>(make: (lane: Lane) => T): Record<Lane, T> {
  return Object.fromEntries(lanes.map((lane) => [lane, make(lane)])) as Record<Lane, T>
}

/** As stored (JSON); bytes as hex. */
export interface StoredIncarnation {
  id: string
  boot: string
  predecessor?: {
    ordinal: number
    id: string
    last: Record<Lane, number>
    chain: Record<Lane, string>
  }
}

export function toStored({ id, boot, predecessor }: Incarnation): StoredIncarnation {
  return {
    id: toHex(id),
    boot: toHex(boot),
    ...(predecessor && {
      predecessor: {
        ordinal: predecessor.ordinal,
        id: toHex(predecessor.id),
        last: predecessor.last,
        chain: perLane((lane) => toHex(chainToBytes(predecessor.chain[lane]))),
      },
    }),
  }
}

export function fromStored(
  ordinal: number,
  { id, boot, predecessor }: StoredIncarnation,
): Incarnation {
  return {
    ordinal,
    id: fromHex(id),
    boot: fromHex(boot),
    predecessor: predecessor && {
      ordinal: predecessor.ordinal,
      id: fromHex(predecessor.id),
      last: predecessor.last,
      chain: perLane((lane) => chainFromBytes(fromHex(predecessor.chain[lane]))),
    },
  }
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}

export function fromHex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'))
}
