import { constants, type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Disk, DiskFile } from '../../../shared/ports.ts'

/** The machine's own disk below a folder. */
export function nodeDisk(root: string): Disk {
  return {
    async list(directory) {
      try {
        return (await readdir(join(root, directory))).sort()
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
        throw error
      }
    },
    async makeDirectory(directory) {
      await mkdir(join(root, directory), { recursive: true })
    },
    async open(path, mode) {
      const flags = { read: 'r', write: 'r+', create: 'wx+' }[mode]
      const place = join(root, path)
      return new NodeFile(await open(place, flags, 0o640), place)
    },
    rename: (from, to) => rename(join(root, from), join(root, to)),
    remove: (path) => rm(join(root, path), { force: true }),
    async syncDirectory(directory) {
      const handle = await open(join(root, directory), 'r')
      try {
        await handle.sync()
      } finally {
        await handle.close()
      }
    },
  }
}

/** With these each write is durable, in one call. Elsewhere the flag promises less than a sync. */
const syncedFlags = process.platform === 'linux' ? constants.O_RDWR | constants.O_DSYNC : undefined

class NodeFile implements DiskFile {
  readonly #handle: FileHandle
  readonly #path: string
  /**
   * The same file, opened so that what is written has been synced. Linux tells each descriptor once of a failed
   * write-back: a sync of the other one takes no failure away from a group.
   */
  #synced: FileHandle | undefined

  constructor(handle: FileHandle, path: string) {
    this.#handle = handle
    this.#path = path
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafeSlow(length)
    let filled = 0
    while (filled < length) {
      const { bytesRead } = await this.#handle.read(bytes, filled, length - filled, offset + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return bytes.subarray(0, filled)
  }

  write(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    return writeAll(this.#handle, chunks, offset)
  }

  async writeSynced(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    if (syncedFlags === undefined) {
      await this.write(chunks, offset)
      return this.sync()
    }
    this.#synced ??= await open(this.#path, syncedFlags)
    await writeAll(this.#synced, chunks, offset)
  }

  sync(): Promise<void> {
    return this.#handle.datasync()
  }

  truncate(size: number): Promise<void> {
    return this.#handle.truncate(size)
  }

  async close(): Promise<void> {
    try {
      await this.#synced?.close()
    } finally {
      await this.#handle.close()
    }
  }
}

async function writeAll(
  handle: FileHandle,
  chunks: readonly Uint8Array[],
  offset: number,
): Promise<void> {
  let position = offset
  // A vectored write takes at most 1,024 chunks (IOV_MAX), and may write less than it was given.
  for (let from = 0; from < chunks.length; from += 1024) {
    const some = chunks.slice(from, from + 1024).filter((chunk) => chunk.length > 0)
    let { bytesWritten } = await handle.writev(some, position)
    position += bytesWritten
    for (const chunk of some) {
      if (bytesWritten >= chunk.length) {
        bytesWritten -= chunk.length
        continue
      }
      position += await writeRest(handle, chunk.subarray(bytesWritten), position)
      bytesWritten = 0
    }
  }
}

async function writeRest(handle: FileHandle, chunk: Uint8Array, position: number): Promise<number> {
  let written = 0
  while (written < chunk.length)
    written += (await handle.write(chunk, written, chunk.length - written, position + written))
      .bytesWritten
  return written
}
