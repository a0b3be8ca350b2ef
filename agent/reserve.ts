import { open, rm, stat } from 'node:fs/promises'
import type { Reserve } from './agent.ts'

const chunk = new Uint8Array(1024 * 1024)

/**
 * Disk space kept aside in a file of zeros. A full disk would not even let LevelDB open, so nothing could
 * be delivered and deleted either: the file goes, and comes back before anything new is taken.
 */
export function openReserve(file: string, bytes: number): Reserve {
  return {
    release: () => rm(file, { force: true }),
    async restore() {
      if (bytes === 0 || (await sizeOf(file)) === bytes) return true
      try {
        await fill(file, bytes)
        return true
      } catch (error) {
        await rm(file, { force: true })
        if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return false
        throw error
      }
    },
  }
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  )
}

async function fill(file: string, bytes: number): Promise<void> {
  await using handle = await open(file, 'w', 0o600)
  for (let at = 0; at < bytes; at += chunk.length)
    await handle.write(chunk, 0, Math.min(chunk.length, bytes - at))
  await handle.datasync()
}
