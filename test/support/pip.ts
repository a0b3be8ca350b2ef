import { execFile } from 'node:child_process'
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { promisify } from 'node:util'
import { absent } from './needs.ts'

const run = promisify(execFile)
export const python = '/usr/bin/python3'

/**
 * Folder with the Python packages of a requirements.txt that has their hashes, for `PYTHONPATH`; made once
 * for each version of the first.
 *
 * @returns undefined when they cannot be had and the test was skipped
 */
export async function pipFolder(
  t: Pick<TestContext, 'skip'>,
  requirements: string,
): Promise<string | undefined> {
  const [, name, version] = /^([\w-]+)==(\S+)/m.exec(await readFile(requirements, 'utf8'))!
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const folder = join(cache, 'headgate-tests', `${name}-${version}`)
  const isThere = await access(folder).then(
    () => true,
    () => false,
  )
  if (isThere) return folder
  const aside = `${folder}.${process.pid}`
  try {
    await mkdir(join(folder, '..'), { recursive: true })
    const args = ['-m', 'pip', 'install', '--quiet', '--require-hashes', '--only-binary', ':all:']
    await run(python, [...args, '--target', aside, '-r', requirements])
    // Another test file may have been faster.
    await rename(aside, folder).catch(() => rm(aside, { recursive: true }))
    return folder
  } catch (error) {
    await rm(aside, { recursive: true, force: true })
    absent(t, `needs ${name}, which pip installs: apt-get install python3-pip: ${error}`)
    return undefined
  }
}
