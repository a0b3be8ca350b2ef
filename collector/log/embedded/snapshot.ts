import crc32c from 'crc-32/crc32c.js'
import type { Disk } from '../../../shared/ports.ts'
import { type Stream, streams } from '../../../shared/reading.ts'
import { perStream } from '../engine.ts'
import { type AgentSnapshot, HeldMemory, rowBytes } from '../held.ts'
import { getUint64, setUint64 } from './frame.ts'

/**
 * The memory of what is held, as of a segment's beginning. It may know of later batches too, which does
 * no harm: the log behind it is replayed, and what is known already changes nothing.
 */
export interface Snapshot {
  /** First segment that it does not cover. */
  segment: number
  /** Next offset of each stream when it was made, which may be later. */
  next: Record<Stream, number>
  memory: HeldMemory
}

export function snapshotName(segment: number): string {
  return `${String(segment).padStart(12, '0')}.held`
}

/** @returns undefined for a name that is no snapshot's */
export function snapshotSegment(name: string): number | undefined {
  const match = /^(\d{12})\.held$/.exec(name)
  return match ? Number(match[1]) : undefined
}

const magic = new TextEncoder().encode('HGHELD\x00')
const version = 2
const headBytes = 16 + streams.length * 8
const pieceBytes = 1024 * 1024

/**
 * Writes a snapshot whole or not at all. All numbers are big-endian.
 *
 * ```
 *  0   8  "HGHELD" 0, version: 2
 *  8   8  first segment that it does not cover
 * 16  40  next offset per stream
 *         per agent: length of the name (2), index of the present row (4), number of rows (4), offset of
 *         the newest ledger and 1, or 0 (8; not in version 1), name, rows
 *     4   CRC-32C of everything before
 * ```
 */
export async function writeSnapshot(
  disk: Disk,
  directory: string,
  { segment, next, memory }: Snapshot,
): Promise<void> {
  const head = new Uint8Array(headBytes)
  const view = new DataView(head.buffer)
  head.set(magic)
  head[7] = version
  setUint64(view, 8, segment)
  for (const [i, stream] of streams.entries()) setUint64(view, 16 + i * 8, next[stream])

  await replaceFile(disk, directory, snapshotName(segment), async (write) => {
    let crc = crc32c.buf(head, 0)
    await write([head])
    let piece: Uint8Array[] = []
    let gathered = 0
    for (const agent of memory.snapshot()) {
      const entry = encodeAgent(agent)
      crc = crc32c.buf(entry, crc)
      piece.push(entry)
      gathered += entry.length
      if (gathered < pieceBytes) continue
      await write(piece) // Lets ingest go on meanwhile.
      piece = []
      gathered = 0
    }
    const foot = new Uint8Array(4)
    new DataView(foot.buffer).setInt32(0, crc)
    await write([...piece, foot])
  })
}

function encodeAgent({ agent, current, newestLedger, rows }: AgentSnapshot): Uint8Array {
  const name = new TextEncoder().encode(agent)
  const entry = new Uint8Array(18 + name.length + rows.length)
  const view = new DataView(entry.buffer)
  view.setUint16(0, name.length)
  view.setUint32(2, current)
  view.setUint32(6, rows.length / rowBytes)
  setUint64(view, 10, newestLedger === undefined ? 0 : newestLedger + 1)
  entry.set(name, 18)
  entry.set(rows, 18 + name.length)
  return entry
}

/** @returns undefined when it is damaged, or of a later version */
export async function readSnapshot(
  disk: Disk,
  directory: string,
  segment: number,
): Promise<Snapshot | undefined> {
  const bytes = await readWhole(disk, `${directory}/${snapshotName(segment)}`)
  if (bytes.length < headBytes + 4 || magic.some((byte, i) => bytes[i] !== byte)) return undefined
  if (bytes[7]! > version) return undefined
  const nameAt = bytes[7] === 1 ? 10 : 18
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const end = bytes.length - 4
  if (view.getInt32(end) !== crc32c.buf(bytes.subarray(0, end), 0)) return undefined
  const memory = new HeldMemory()
  for (let at = headBytes; at < end; ) {
    const nameLength = view.getUint16(at)
    const current = view.getUint32(at + 2)
    const rowsLength = view.getUint32(at + 6) * rowBytes
    const rowsAt = at + nameAt + nameLength
    const agent = new TextDecoder().decode(bytes.subarray(at + nameAt, rowsAt))
    const ledger = nameAt === 18 ? getUint64(view, at + 10) : 0
    const newestLedger = ledger > 0 ? ledger - 1 : undefined
    const rows = bytes.slice(rowsAt, rowsAt + rowsLength)
    memory.restore({ agent, current, newestLedger, rows })
    at = rowsAt + rowsLength
  }
  return {
    segment: getUint64(view, 8),
    next: perStream((stream) => getUint64(view, 16 + streams.indexOf(stream) * 8)),
    memory,
  }
}

/** Puts a file in place whole or not at all: written aside, synced, renamed, the name synced. */
export async function replaceFile(
  disk: Disk,
  directory: string,
  name: string,
  fill: (write: (chunks: readonly Uint8Array[]) => Promise<void>) => Promise<void>,
): Promise<void> {
  const aside = `${directory}/${name}.new`
  if ((await disk.list(directory)).includes(`${name}.new`)) await disk.remove(aside)
  const file = await disk.open(aside, 'create')
  try {
    let position = 0
    await fill(async (chunks) => {
      await file.write(chunks, position)
      for (const chunk of chunks) position += chunk.length
    })
    await file.sync()
  } finally {
    await file.close()
  }
  await disk.rename(aside, `${directory}/${name}`)
  await disk.syncDirectory(directory)
}

export async function readWhole(disk: Disk, path: string): Promise<Uint8Array> {
  const file = await disk.open(path, 'read')
  try {
    return await file.read(0, await file.size())
  } finally {
    await file.close()
  }
}
