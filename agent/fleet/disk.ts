import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Disk, DiskFile } from '../../shared/ports.ts'

/** A folder of small files that only this user may read. */
export function privateDisk(root: string): Disk {
  return {
    list: async (directory) => (await readdir(join(root, directory)).catch(() => [])).sort(),
    async makeDirectory(directory) {
      await mkdir(join(root, directory), { recursive: true, mode: 0o700 })
    },
    async open(path, mode) {
      const flags = { read: 'r', write: 'r+', create: 'wx+' }[mode]
      return new PrivateFile(await open(join(root, path), flags, 0o600))
    },
    rename: (from, to) => rename(join(root, from), join(root, to)),
    remove: (path) => rm(join(root, path), { force: true }),
    async syncDirectory(directory) {
      await using handle = await open(join(root, directory), 'r')
      await handle.sync()
    },
  }
}

class PrivateFile implements DiskFile {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  size = async () => (await this.#handle.stat()).size

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length)
    let filled = 0
    for (;;) {
      const { bytesRead } = await this.#handle.read(bytes, filled, length - filled, offset + filled)
      filled += bytesRead
      if (bytesRead === 0 || filled === length) return bytes.subarray(0, filled)
    }
  }

  async write(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    const bytes = Buffer.concat(chunks)
    let written = 0
    while (written < bytes.length)
      written += (
        await this.#handle.write(bytes, written, bytes.length - written, offset + written)
      ).bytesWritten
  }

  async writeSynced(chunks: readonly Uint8Array[], offset: number): Promise<void> {
    await this.write(chunks, offset)
    await this.sync()
  }

  sync = () => this.#handle.datasync()
  truncate = (size: number) => this.#handle.truncate(size)
  close = () => this.#handle.close()
}
