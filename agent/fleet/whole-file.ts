import type { Disk } from '../../shared/ports.ts'

/** Larger files are none of ours. */
const maxFileBytes = 4 * 1024 * 1024

/** Writes a file whole: after a power cut it is there as it was, or as it is now. */
export async function writeWhole(
  disk: Disk,
  directory: string,
  name: string,
  content: unknown,
): Promise<void> {
  const path = `${directory}/${name}`
  const unfinished = `${path}.new`
  await disk.remove(unfinished)
  const file = await disk.open(unfinished, 'create')
  try {
    await file.write([new TextEncoder().encode(`${JSON.stringify(content)}\n`)], 0)
    await file.sync()
  } finally {
    await file.close()
  }
  await disk.rename(unfinished, path)
  await disk.syncDirectory(directory)
}

/** A JSON file; undefined where there is none, or it cannot be read. */
export async function readWhole(disk: Disk, path: string): Promise<unknown> {
  try {
    const file = await disk.open(path, 'read')
    try {
      const size = await file.size()
      if (size > maxFileBytes) return undefined
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(await file.read(0, size)))
    } finally {
      await file.close()
    }
  } catch {
    return undefined
  }
}
