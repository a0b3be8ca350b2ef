import type { Disk } from '../../../shared/ports.ts'
import { isGone } from '../embedded/folder.ts'
import { replaceFile } from '../embedded/snapshot.ts'
import { piecesOf, type TierObject, type TierStore } from './store.ts'

/** Objects as files of a folder: of another disk, or of a file server. */
export class FolderStore implements TierStore {
  readonly #disk: Disk

  constructor(disk: Disk) {
    this.#disk = disk
  }

  async put(path: string, object: TierObject): Promise<void> {
    const slash = path.lastIndexOf('/')
    const directory = path.slice(0, slash)
    await this.#disk.makeDirectory(directory)
    for (let end = directory.length; end > 0; ) {
      end = Math.max(0, directory.lastIndexOf('/', end - 1))
      await this.#disk.syncDirectory(directory.slice(0, end))
    }
    await replaceFile(this.#disk, directory, path.slice(slash + 1), async (write) => {
      for await (const piece of piecesOf(object)) await write([piece])
    })
  }

  get(path: string): Promise<Uint8Array | undefined> {
    return this.range(path, 0, Number.POSITIVE_INFINITY)
  }

  async range(path: string, offset: number, length: number): Promise<Uint8Array | undefined> {
    if (await isGone(this.#disk, path)) return undefined
    const file = await this.#disk.open(path, 'read')
    try {
      return await file.read(offset, Math.min(length, (await file.size()) - offset))
    } finally {
      await file.close()
    }
  }

  async remove(path: string): Promise<void> {
    if (!(await isGone(this.#disk, path))) await this.#disk.remove(path)
  }
}
