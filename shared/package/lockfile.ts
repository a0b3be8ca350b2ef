import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './paths.ts'

export interface LockedPackage {
  version: string
  /** `sha512-` and base64, as npm writes it. */
  integrity: string
}

const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, LockedPackage>
}

/** @param folder as the lockfile names it: `node_modules/…` */
export function locked(folder: string): LockedPackage {
  const entry = packages[folder]
  if (!entry) throw new RangeError(`package-lock.json has no ${folder}`)
  return entry
}
