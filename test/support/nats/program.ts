import { execFile } from 'node:child_process'
import { access, mkdir, readFile, rename } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { absent } from '../needs.ts'

const run = promisify(execFile)
const folder = fileURLToPath(new URL('.', import.meta.url))
const modulePath = 'github.com/nats-io/nats-server/v2'

/** Where the compiler puts it: kept, since it takes a minute. */
export async function natsServerPath(): Promise<string> {
  const mod = await readFile(join(folder, 'go.mod'), 'utf8')
  const version = new RegExp(`${modulePath} (v\\S+)`).exec(mod)![1]!
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  return join(cache, 'headgate-tests', `nats-server-${version}`)
}

/**
 * A nats-server of the version in go.mod, built from source that go.sum vouches for unless it was before.
 *
 * @returns undefined when it cannot be had and the test was skipped
 */
export async function natsServer(t: Pick<TestContext, 'skip'>): Promise<string | undefined> {
  const path = await natsServerPath()
  try {
    await access(path)
    return path
  } catch {
    // Not built yet.
  }
  const aside = `${path}.${process.pid}`
  try {
    await mkdir(join(path, '..'), { recursive: true })
    const args = ['build', '-mod=readonly', '-trimpath', '-o', aside, modulePath]
    await run('go', args, { cwd: folder, env: { ...process.env, CGO_ENABLED: '0' } })
    await rename(aside, path)
    return path
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no go on PATH' : String(error)
    absent(t, `needs nats-server, which is built here once Go 1.26 or newer is installed: ${why}`)
    return undefined
  }
}
