import { execFile } from 'node:child_process'
import { access, mkdir, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { absent } from './needs.ts'

const run = promisify(execFile)

/**
 * Folder with the jars that a pom names, or with what archives have in them, from Maven Central unless they were fetched before: kept, since it
 * takes a minute.
 *
 * @param name of what is wanted, and of the artifact before any _
 * @param goal what is made of the files
 * @returns undefined when they cannot be had and the test was skipped
 */
export async function jarsOf(
  t: Pick<TestContext, 'skip'>,
  pomUrl: URL,
  name: string,
  goal: 'copy' | 'unpack' = 'copy',
): Promise<string | undefined> {
  const pom = fileURLToPath(pomUrl)
  const artifact = new RegExp(
    `<artifactId>${name}(?:_[\\d.]+)?</artifactId>\\s*<version>([\\d.]{3,}(?:Final)?)<`,
  )
  const [, version] = artifact.exec(await readFile(pom, 'utf8'))!
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const folder = join(cache, 'headgate-tests', `${name}-${version}`)
  try {
    await run('java', ['-version'])
    if (await exists(folder)) return folder
    const aside = `${folder}.${process.pid}`
    await mkdir(join(folder, '..'), { recursive: true })
    // The marks of what was unpacked go with it, or it would not be unpacked again.
    const folders = [`-DoutputDirectory=${aside}`, `-DmarkersDirectory=${aside}/markers`]
    const args = [`dependency:${goal}-dependencies`, ...folders]
    await run('mvn', ['--batch-mode', '--quiet', '--strict-checksums', '--file', pom, ...args])
    // Another test file may have been faster.
    await rename(aside, folder).catch(() => rm(aside, { recursive: true }))
    return folder
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'no java or mvn on PATH' : String(error)
    absent(t, `needs ${name}: apt-get install default-jre-headless maven: ${why}`)
    return undefined
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
