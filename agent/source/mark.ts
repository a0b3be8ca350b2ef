/** That a message's readings are committed: it is known again by its packet id and content. */
export interface Mark {
  packetId: number
  /** Hash of topic and payload, signed. */
  high: number
  low: number
  /** Readings that it gave. */
  readings: number
  /** It came with DUP. */
  duplicate: boolean
  /** It was the same as its topic's message before: the content says little about which one it is. */
  steady: boolean
}

const version = 1
const hasReadings = 1
const hasTraits = 2
const isDuplicate = 1
const isSteady = 2
/** Longest list that is believed: a connection has no more packet ids. */
const maxMarks = 1 << 20

/**
 * Marks as they are stored, little-endian; column by column, since hashes are most of it:
 *
 *     version 1 | flags 1 | 0 0 | count 4 | readings 4, of each message unless flag 1 is set
 *     count × (high 4, low 4) | flag 1: count × readings 4 | count × packet id 2 | flag 2: count × traits 1
 */
export function encodeMarks(marks: readonly Mark[]): Uint8Array {
  const count = marks.length
  const readings = marks[0]?.readings ?? 0
  const flags =
    (marks.every((mark) => mark.readings === readings) ? 0 : hasReadings) |
    (marks.some(({ duplicate, steady }) => duplicate || steady) ? hasTraits : 0)
  const bytes = new Uint8Array(size(count, flags))
  const view = new DataView(bytes.buffer)
  bytes[0] = version
  bytes[1] = flags
  view.setUint32(4, count, true)
  view.setUint32(8, readings, true)
  let at = 12
  for (const { high, low } of marks) {
    view.setInt32(at, high, true)
    view.setInt32(at + 4, low, true)
    at += 8
  }
  if (flags & hasReadings)
    for (const mark of marks) {
      view.setUint32(at, mark.readings, true)
      at += 4
    }
  for (const { packetId } of marks) {
    view.setUint16(at, packetId, true)
    at += 2
  }
  if (flags & hasTraits)
    for (const { duplicate, steady } of marks)
      bytes[at++] = (duplicate ? isDuplicate : 0) | (steady ? isSteady : 0)
  return bytes
}

/** Undefined when the bytes are none of ours. */
export function decodeMarks(bytes: Uint8Array): Mark[] | undefined {
  if (bytes.length < 12 || bytes[0] !== version) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const flags = bytes[1]!
  const count = view.getUint32(4, true)
  if (count > maxMarks || bytes.length !== size(count, flags)) return undefined
  const readingsAt = 12 + 8 * count
  const idsAt = readingsAt + (flags & hasReadings ? 4 * count : 0)
  const traitsAt = idsAt + 2 * count
  return Array.from({ length: count }, (_, i) => {
    const traits = flags & hasTraits ? bytes[traitsAt + i]! : 0
    return {
      packetId: view.getUint16(idsAt + 2 * i, true),
      high: view.getInt32(12 + 8 * i, true),
      low: view.getInt32(16 + 8 * i, true),
      readings: view.getUint32(flags & hasReadings ? readingsAt + 4 * i : 8, true),
      duplicate: (traits & isDuplicate) !== 0,
      steady: (traits & isSteady) !== 0,
    }
  })
}

function size(count: number, flags: number): number {
  return 12 + count * (10 + (flags & hasReadings ? 4 : 0) + (flags & hasTraits ? 1 : 0))
}
