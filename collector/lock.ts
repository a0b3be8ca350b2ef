import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { UserError } from '../shared/failure.ts'

const sqliteBusy = 5

/**
 * Keeps a second collector away from a data folder. The lock is the kernel's, on an empty file, so it
 * ends with the process however that ends. Node gives access to such locks through SQLite alone.
 *
 * @throws UserError when another process holds it
 */
export function lockFolder(folder: string): Disposable {
  const file = join(folder, 'collector.lock')
  try {
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    const database = new DatabaseSync(file, { timeout: 0 })
    try {
      // The journal stays in memory: nothing is ever written.
      database.exec('PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE')
    } catch (error) {
      database.close()
      throw error
    }
    return { [Symbol.dispose]: () => database.close() }
  } catch (cause) {
    if ((cause as { errcode?: number }).errcode === sqliteBusy)
      throw new UserError(`${folder}: another collector uses it: stop that one, or set data`, {
        cause,
      })
    throw new UserError(`${folder}: no permission to write in it: change its owner, or set data`, {
      cause,
    })
  }
}
