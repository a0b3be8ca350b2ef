import crc32c from 'crc-32/crc32c.js'

/*
 * LevelDB's own files, read without LevelDB. Source: doc/log_format.md, doc/table_format.md and
 * db/write_batch.cc of google/leveldb.
 *
 * A log is blocks of 32 KiB; in them records
 *
 *   0        4       6      7
 *   crc32c   length  type   payload …      type: 1 whole, 2 first, 3 middle, 4 last piece
 *
 * and a payload is a write batch: sequence u64, count u32, then per change a tag (1 put, 0 delete), the key
 * and, for a put, the value, both with a varint length in front. Numbers are little-endian.
 */
const blockBytes = 32 * 1024
const recordHeadBytes = 7

/** A change as LevelDB stored it; `sequence` orders changes over all files. */
export interface RawChange {
  sequence: number
  key: Uint8Array
  /** Undefined for a deletion. */
  value: Uint8Array | undefined
}

export interface RawFile {
  changes: RawChange[]
  /**
   * Something that was written whole does not check out. A record that merely stops, as power cuts leave
   * it, is no damage: its write was never acknowledged.
   */
  damaged: boolean
}

/** Reads a log, and of damaged records what still parses: whoever takes it must check it for himself. */
export function readLog(bytes: Uint8Array): RawFile {
  const changes: RawChange[] = []
  let damaged = false
  let pieces: Uint8Array[] | undefined
  for (let at = 0; at + recordHeadBytes <= bytes.length; ) {
    const left = blockBytes - (at % blockBytes)
    if (left < recordHeadBytes) {
      at += left
      continue
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset + at)
    const length = view.getUint16(4, true)
    const type = bytes[at + 6]!
    const end = at + recordHeadBytes + length
    if (type === 0 && length === 0 && isZero(bytes.subarray(at, at + left))) {
      at += left // Space that was set aside and never written.
      continue
    }
    if (recordHeadBytes + length > left || type < 1 || type > 4) {
      damaged ||= !torn(bytes, at)
      pieces = undefined
      at += left
      continue
    }
    if (end > bytes.length) break
    const payload = bytes.subarray(at + recordHeadBytes, end)
    if (unmask(view.getUint32(0, true)) !== crc32c.buf(bytes.subarray(at + 6, end)) >>> 0) {
      if (torn(bytes, at)) break
      damaged = true
    }
    if (type === 1 || type === 2) pieces = [payload]
    else pieces?.push(payload)
    if (pieces && (type === 1 || type === 4)) {
      damaged = !readWriteBatch(join(pieces), changes) || damaged
      pieces = undefined
    }
    at = end
  }
  return { changes, damaged }
}

/** Everything from here on is what an interrupted write leaves: a sector of zeros, or the end. */
function torn(bytes: Uint8Array, from: number): boolean {
  const firstSector = Math.ceil(from / 512) * 512
  for (let at = firstSector; at + 512 <= bytes.length; at += 512)
    if (isZero(bytes.subarray(at, at + 512))) return true
  return false
}

/** False when it does not parse to its end. */
function readWriteBatch(bytes: Uint8Array, into: RawChange[]): boolean {
  if (bytes.length < 12) return false
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const first = Number(view.getBigUint64(0, true))
  const count = view.getUint32(8, true)
  const reader = new Reader(bytes, 12)
  for (let i = 0; i < count; i++) {
    const tag = reader.byte()
    const key = reader.sized()
    const value = tag === 1 ? reader.sized() : undefined
    if (!key || (tag !== 0 && tag !== 1) || (tag === 1 && !value)) return false
    into.push({ sequence: first + i, key, value })
  }
  return reader.done
}

const footerBytes = 48
const tableMagic = 0xdb4775248b80fb57n

/**
 * Reads a table written without compression: data blocks found through the index at its end, each with a
 * checksum. Damaged blocks are left out; without an index there is nothing.
 */
export function readTable(bytes: Uint8Array): RawFile {
  const changes: RawChange[] = []
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (bytes.length < footerBytes || view.getBigUint64(bytes.length - 8, true) !== tableMagic)
    return { changes, damaged: true }
  const footer = new Reader(bytes, bytes.length - footerBytes)
  footer.varint() // Metaindex: filters, of which there are none.
  footer.varint()
  const index = readBlock(bytes, footer.varint(), footer.varint())
  if (!index) return { changes, damaged: true }
  let damaged = false
  for (const { value } of index) {
    const handle = new Reader(value, 0)
    const block = readBlock(bytes, handle.varint(), handle.varint())
    if (!block) {
      damaged = true
      continue
    }
    for (const { key, value } of block) {
      if (key.length < 8) {
        damaged = true
        continue
      }
      const tail = new DataView(key.buffer, key.byteOffset + key.length - 8, 8).getBigUint64(
        0,
        true,
      )
      changes.push({
        sequence: Number(tail >> 8n),
        key: key.subarray(0, -8),
        value: (tail & 0xffn) === 1n ? value : undefined,
      })
    }
  }
  return { changes, damaged }
}

/** Entries of a block; undefined when it is damaged or compressed. */
function readBlock(
  bytes: Uint8Array,
  offset: number | undefined,
  length: number | undefined,
): { key: Uint8Array; value: Uint8Array }[] | undefined {
  if (offset === undefined || length === undefined || offset + length + 5 > bytes.length)
    return undefined
  const end = offset + length
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (unmask(view.getUint32(end + 1, true)) !== crc32c.buf(bytes.subarray(offset, end + 1)) >>> 0)
    return undefined
  if (bytes[end] !== 0 || length < 4) return undefined
  const restarts = view.getUint32(end - 4, true)
  const entriesEnd = length - 4 - 4 * restarts
  if (entriesEnd < 0) return undefined
  const block = bytes.subarray(offset, offset + entriesEnd)
  const reader = new Reader(block, 0)
  const entries = []
  let before = new Uint8Array(0)
  while (!reader.done) {
    const shared = reader.varint()
    const rest = reader.varint()
    const size = reader.varint()
    const delta = reader.take(rest)
    const value = reader.take(size)
    if (shared === undefined || shared > before.length || !delta || !value) return undefined
    const key = new Uint8Array(shared + delta.length)
    key.set(before.subarray(0, shared))
    key.set(delta, shared)
    entries.push({ key, value })
    before = key
  }
  return entries
}

/** LevelDB stores checksums rotated and shifted, so that data with checksums in it can be checksummed. */
function unmask(stored: number): number {
  const rotated = (stored - 0xa282ead8) >>> 0
  return ((rotated >>> 17) | (rotated << 15)) >>> 0
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

function join(pieces: readonly Uint8Array[]): Uint8Array {
  return pieces.length === 1 ? pieces[0]! : new Uint8Array(Buffer.concat(pieces))
}

/** Reads forward; everything is undefined beyond the end. */
class Reader {
  readonly #bytes: Uint8Array
  #at: number

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length
  }

  byte(): number | undefined {
    return this.#bytes[this.#at++]
  }

  /** At most 2^53. */
  varint(): number | undefined {
    let value = 0
    for (let scale = 1; scale < 2 ** 53; scale *= 128) {
      const byte = this.byte()
      if (byte === undefined) return undefined
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
    return undefined
  }

  take(length: number | undefined): Uint8Array | undefined {
    if (length === undefined || this.#at + length > this.#bytes.length) return undefined
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  sized(): Uint8Array | undefined {
    return this.take(this.varint())
  }
}
