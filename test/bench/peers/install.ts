import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { natsServer as builtNatsServer } from '../../support/nats/program.ts'

const nodeRedVersion = '5.0.7'
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'headgate-bench')
const run = promisify(execFile)

/** Where a peer is installed, or why it is not. */
export type Installed =
  | { path: string; missing?: undefined }
  | { path?: undefined; missing: string }

/** Node-RED's `red.js`; taken from npm once, beside the package, not into it. */
export async function nodeRed(say: (line: string) => void): Promise<Installed> {
  const folder = join(cache, `node-red-${nodeRedVersion}`)
  const path = join(folder, 'node_modules/node-red/red.js')
  if (existsSync(path)) return { path }
  say(`installing Node-RED ${nodeRedVersion} into ${folder}`)
  const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--ignore-scripts']
  try {
    await run('npm', [...args, `node-red@${nodeRedVersion}`], { timeout: 300_000 })
    return { path }
  } catch (error) {
    return { missing: `Node-RED could not be installed from npm: ${firstLine(error)}` }
  }
}

/** The nats-server that the contract tests use, built once by Go. */
export async function natsServer(): Promise<Installed> {
  let missing = 'nats-server could not be built'
  try {
    const path = await builtNatsServer({
      skip: (why) => {
        missing = String(why)
      },
    })
    return path ? { path } : { missing }
  } catch (error) {
    return { missing: `${missing}: ${firstLine(error)}` }
  }
}

function firstLine(error: unknown): string {
  return String((error as Error).message).split('\n', 1)[0]!
}
