import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { UserError } from '../failure.ts'
import { locked } from './lockfile.ts'
import { root } from './paths.ts'
import type { Target } from './target.ts'
import { needTool, runTool } from './tool.ts'

/** npm leaves this folder alone and `npm ci` removes it. */
const cache = join(root, 'node_modules', '.cache', 'headgate')

/**
 * Path of the pinned Node for a target. The one for this machine is installed already; npm does not install
 * another machine's, so that is fetched once and checked against the lockfile.
 *
 * @param scratch folder for what is unpacked
 */
export async function nodeBinary({ arch }: Target, scratch: string): Promise<string> {
  const name = `node-linux-${arch}`
  const installed = join(root, 'node_modules', name, 'bin', 'node')
  if (existsSync(installed)) return installed
  const { version, integrity } = locked(`node_modules/${name}`)
  const archive = join(cache, `${name}-${version}.tgz`)
  if (!existsSync(archive) || integrityOf(archive) !== integrity) {
    mkdirSync(cache, { recursive: true })
    await runTool(needTool('npm'), ['pack', `${name}@${version}`, '--pack-destination', scratch])
    const fetched = join(scratch, `${name}-${version}.tgz`)
    if (integrityOf(fetched) !== integrity)
      throw new UserError(`${name}@${version} is not what package-lock.json says: do not use it`)
    renameSync(fetched, archive)
  }
  await runTool(needTool('tar'), ['-xzf', archive, '-C', scratch, 'package/bin/node'])
  const binary = join(scratch, name)
  renameSync(join(scratch, 'package', 'bin', 'node'), binary)
  return binary
}

function integrityOf(file: string): string {
  return `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`
}
