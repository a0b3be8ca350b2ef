import { open, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Reserve } from './agent.ts'
import { OutboxFailure } from './outbox/failure.ts'

const chunk = new Uint8Array(1024 * 1024)
/** A small disk is for readings before it is for the reserve. */
const maxShare = 1 / 4
/** The reserve is taken anew only with half as much again free beside it, or the next message fills the disk. */
const headroom = 1.5

/**
 * Disk space kept aside in a file of zeros. A full disk would not even let LevelDB open, so nothing could
 * be delivered and deleted either: the file goes, and comes back before anything new is taken.
 */
export function openReserve(file: string, bytes: number): Reserve {
  return {
    release: () => rm(file, { force: true }),
    async restore() {
      if (bytes === 0) return true
      const { blocks, bavail, bsize } = await statfs(dirname(file))
      const wanted = Math.min(bytes, Math.floor(blocks * bsize * maxShare))
      const size = await sizeOf(file)
      if (size === wanted) return true
      if (bavail * bsize + size < wanted * headroom) return false
      try {
        await fill(file, wanted)
        return true
      } catch (error) {
        await rm(file, { force: true })
        const { code } = error as NodeJS.ErrnoException
        if (code === 'ENOSPC' || code === 'EDQUOT') return false
        throw new OutboxFailure('OUTBOX_WRITE_FAILED', `${file}: ${code}`, { cause: error })
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
