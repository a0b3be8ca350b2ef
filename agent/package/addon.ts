import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { getAsset, getRawAsset } from 'node:sea'
import { UserError } from '../../shared/failure.ts'
import binding from './binding.cjs'

/** Name of the native part among the executable's assets, and of its file beside a packaged executable. */
const addonName = 'classic-level.node'

/**
 * Loads classic-level's native part once. The kernel maps programs from files only, so the copy that
 * travels in the executable is written to a private folder, checked, mapped and unlinked; where a package
 * has put the file beside the executable, that one is taken.
 *
 * @param data the agent's data folder, where other folders do not do
 * @throws UserError when no folder allows it
 */
export function loadAddon(data: string): void {
  if (binding.db_init) return
  const bytes = new Uint8Array(getRawAsset(addonName))
  const sha256 = getAsset(`${addonName}.sha256`, 'utf8')
  if (hash(bytes) !== sha256)
    throw new UserError(`${process.execPath} is damaged: copy it again and compare its checksum`)
  const refusals: string[] = []
  const beside = dirname(process.execPath)
  const ways = [
    () => load(join(beside, addonName), sha256),
    ...[tmpdir(), data, '/run/headgate', '/var/lib/headgate', beside].map(
      (folder) => () => loadCopy(folder, bytes, sha256),
    ),
  ]
  for (const way of ways)
    try {
      Object.assign(binding, way())
      return
    } catch (error) {
      refusals.push((error as Error).message.split('\n')[0]!)
    }
  throw new UserError(
    "LevelDB's native part cannot be loaded from any folder (full, read-only or mounted noexec): set TMPDIR " +
      `to one that programs can be run from\n  ${refusals.join('\n  ')}`,
  )
}

function loadCopy(folder: string, bytes: Uint8Array, sha256: string): object {
  const directory = mkdtempSync(join(folder, 'headgate-'))
  try {
    const file = join(directory, addonName)
    writeFileSync(file, bytes, { mode: 0o400, flag: 'wx' })
    return load(file, sha256)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function load(file: string, sha256: string): object {
  if (hash(readFileSync(file)) !== sha256)
    throw new Error(`${file}: not the one that belongs to this version`)
  const loaded = { exports: {} }
  process.dlopen(loaded, file)
  return loaded.exports
}

function hash(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
