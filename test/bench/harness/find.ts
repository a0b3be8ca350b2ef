import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Path of an installed program; undefined where there is none. */
export function findProgram(name: string): string | undefined {
  // Daemons live in directories that are not on every user's PATH.
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  return directories
    .map((directory) => join(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}
