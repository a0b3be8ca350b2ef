import { createHash } from 'node:crypto'
import type { DiskFile } from '../../../shared/ports.ts'

const pieceBytes = 1024 * 1024

/** SHA-256 of a file's first bytes, read in pieces so that other work goes on. */
export async function hashFile(file: DiskFile, length: number): Promise<Uint8Array> {
  const hash = createHash('sha256')
  for (let at = 0; at < length; ) {
    const piece = await file.read(at, Math.min(pieceBytes, length - at))
    if (piece.length === 0) throw new RangeError(`the file ends at ${at}, before ${length}`)
    hash.update(piece)
    at += piece.length
  }
  return new Uint8Array(hash.digest())
}
