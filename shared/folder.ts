import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/**
 * Makes a folder and those above it. Node's own `recursive` never comes to an end where a file system, such
 * as /proc, says of a new name that the folder above it does not exist.
 *
 * @returns the first one that was made, or undefined when all were there
 * @throws what the system says: ENOTDIR where a file is in the way, EROFS, EACCES …
 */
export async function makeFolder(path: string): Promise<string | undefined> {
  const folder = resolve(path)
  const found = await stat(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (found?.isDirectory()) return undefined
  if (found) throw Object.assign(new Error(`ENOTDIR: ${folder}`), { code: 'ENOTDIR' })
  const first = await makeFolder(dirname(folder))
  try {
    await mkdir(folder)
  } catch (error) {
    // Somebody else may have been quicker.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return first ?? folder
}
