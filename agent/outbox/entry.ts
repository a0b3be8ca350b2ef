import crc32c from 'crc-32/crc32c.js'
import { type Chain, chainFromBytes, chainToBytes } from '../../shared/chain.ts'

/** A stored run of consecutive sequences: an item as it will be sent, and what the outbox must know of it. */
export interface Entry {
  kind: 'readings' | 'records' | 'gap'
  /** Sequences covered. */
  count: number
  /** Of those, the readings that count as `buffered` in the ledger: not derived ones, records or gaps. */
  received: number
  /** Running hash before the first and behind the last of them. */
  before: Chain
  after: Chain
  /** Wall time of the commit, ms. */
  committedMs: number
  /** Encoded by `encodeItem`. */
  item: Uint8Array
}

/*
 *   0        1      2          4        8       16         24      32      40            48
 *   version  kind   reserved   crc32c   count   received   before  after   committedMs   item …
 *   u8       u8     u16        u32      f64     f64        8 bytes 8 bytes f64
 *
 * The checksum covers the key and everything behind itself, so that an entry found under another key is
 * as bad as a flipped bit. Numbers are big-endian; counts are f64 because a gap may outgrow 32 bits.
 */
const headBytes = 48
const version = 1
const kinds = ['readings', 'records', 'gap'] as const

export function encodeEntry(key: Uint8Array, entry: Entry): Uint8Array {
  const bytes = new Uint8Array(headBytes + entry.item.length)
  const view = new DataView(bytes.buffer)
  bytes[0] = version
  bytes[1] = kinds.indexOf(entry.kind)
  view.setFloat64(8, entry.count)
  view.setFloat64(16, entry.received)
  bytes.set(chainToBytes(entry.before), 24)
  bytes.set(chainToBytes(entry.after), 32)
  view.setFloat64(40, entry.committedMs)
  bytes.set(entry.item, headBytes)
  view.setUint32(4, checksum(key, bytes))
  return bytes
}

/** Undefined when the checksum or the layout does not hold. */
export function decodeEntry(key: Uint8Array, bytes: Uint8Array): Entry | undefined {
  const kind = kinds[bytes[1] ?? 255]
  if (bytes.length < headBytes || bytes[0] !== version || !kind) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.getUint32(4) !== checksum(key, bytes)) return undefined
  const count = view.getFloat64(8)
  if (!(count >= 1)) return undefined
  return {
    kind,
    count,
    received: view.getFloat64(16),
    before: chainFromBytes(bytes.subarray(24, 32)),
    after: chainFromBytes(bytes.subarray(32, 40)),
    committedMs: view.getFloat64(40),
    item: bytes.subarray(headBytes),
  }
}

function checksum(key: Uint8Array, bytes: Uint8Array): number {
  return crc32c.buf(bytes.subarray(8), crc32c.buf(key, crc32c.buf(bytes.subarray(0, 4)))) >>> 0
}

/** Seals a small value of the outbox's own (totals, an incarnation): JSON behind a CRC-32C. */
export function seal(key: Uint8Array, content: unknown): Uint8Array {
  return sealBytes(key, new TextEncoder().encode(JSON.stringify(content)))
}

/** Puts a CRC-32C over key and content in front: LevelDB hands damaged values out without a word. */
export function sealBytes(key: Uint8Array, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + content.length)
  bytes.set(content, 4)
  new DataView(bytes.buffer).setUint32(0, crc32c.buf(content, crc32c.buf(key)) >>> 0)
  return bytes
}

/** Undefined when the checksum does not hold. */
export function unseal<Content>(key: Uint8Array, bytes: Uint8Array): Content | undefined {
  const text = unsealBytes(key, bytes)
  return text && (JSON.parse(new TextDecoder().decode(text)) as Content)
}

/** Undefined when the checksum does not hold. */
export function unsealBytes(key: Uint8Array, bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < 4) return undefined
  const content = bytes.subarray(4)
  const stored = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0)
  return stored === crc32c.buf(content, crc32c.buf(key)) >>> 0 ? content : undefined
}
