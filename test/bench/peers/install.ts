import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findProgram } from '../harness/find.ts'

const nodeRedVersion = '5.0.7'
const natsVersion = 'v2.10.29'
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

/** An installed nats-server (Debian has one), or the pinned one, built once by Go. */
export async function natsServer(say: (line: string) => void): Promise<Installed> {
  const installed = findProgram('nats-server')
  if (installed) return { path: installed }
  const folder = join(cache, `nats-${natsVersion}`)
  const path = join(folder, 'nats-server')
  if (existsSync(path)) return { path }
  if (!findProgram('go')) return { missing: 'needs nats-server: apt-get install nats-server' }
  say(`building nats-server ${natsVersion} into ${folder}`)
  try {
    await run('go', ['install', `github.com/nats-io/nats-server/v2@${natsVersion}`], {
      timeout: 600_000,
      env: { ...process.env, GOBIN: folder },
    })
    return { path }
  } catch (error) {
    return { missing: `nats-server could not be built: ${firstLine(error)}` }
  }
}

function firstLine(error: unknown): string {
  return String((error as Error).message).split('\n', 1)[0]!
}
