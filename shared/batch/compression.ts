import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { WireFailure } from './failure.ts'

/** Content encodings, the preferred one first. */
export const encodings = ['zstd', 'gzip', 'identity'] as const
export type Encoding = (typeof encodings)[number]

const defaultLevel = { zstd: 4, gzip: 6 } as const
/** A frame that asks for a larger window is refused: it decides how much memory inflating takes. */
const maxWindowLog = 23

/**
 * @param level 1 to 19 for zstd (default 4), 1 to 9 for gzip (default 6)
 */
export function compress(
  chunks: readonly Uint8Array[],
  encoding: Encoding,
  level?: number,
): Uint8Array {
  const whole = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
  switch (encoding) {
    case 'identity':
      return whole
    case 'gzip':
      return gzipSync(whole, { level: level ?? defaultLevel.gzip })
    case 'zstd':
      return zstdCompressSync(whole, {
        params: { [constants.ZSTD_c_compressionLevel]: level ?? defaultLevel.zstd },
      })
  }
}

/**
 * Stops as soon as more than `maxBytes` come out, so that a small body cannot fill the memory.
 *
 * @throws WireFailure 'WIRE_TOO_LARGE', or 'WIRE_COMPRESSION' for bytes that do not inflate
 */
export function inflate(bytes: Uint8Array, encoding: Encoding, maxBytes: number): Uint8Array {
  if (encoding === 'identity') {
    if (bytes.length > maxBytes) throw tooLarge(maxBytes)
    return bytes
  }
  try {
    return encoding === 'gzip'
      ? gunzipSync(bytes, { maxOutputLength: maxBytes })
      : zstdDecompressSync(bytes, {
          maxOutputLength: maxBytes,
          params: { [constants.ZSTD_d_windowLogMax]: maxWindowLog },
        })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes)
    throw new WireFailure('WIRE_COMPRESSION', (cause as Error).message, { cause })
  }
}

function tooLarge(maxBytes: number): WireFailure {
  return new WireFailure('WIRE_TOO_LARGE', `over ${maxBytes} bytes inflated`)
}
