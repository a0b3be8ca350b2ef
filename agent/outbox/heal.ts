import { mkdir, readdir, readFile, rename, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { UserError } from '../../shared/failure.ts'
import type { Store } from '../../shared/ports.ts'
import { decodeEntry, unseal } from './entry.ts'
import { OutboxFailure } from './failure.ts'
import { parseEntryKey, parseTailKey } from './key.ts'
import { openLevel } from './level.ts'
import { type RawChange, readLog, readTable } from './leveldb-files.ts'

/** What was found in a damaged store, and where its files are now. */
export interface Healed {
  store: Store
  /** One line each for what a person should know; empty when nothing was wrong. */
  report: string[]
}

/**
 * Opens a store on whatever is there. LevelDB drops damaged records without a word, refuses to open at
 * others, and makes a new, empty store where its CURRENT file is missing. So its files are looked at first:
 * where something is wrong they are set aside whole, and what our own checksums vouch for is carried over
 * into a new store. What that leaves out is declared by the recovery, which looks for holes.
 *
 * @param aside folder for damaged stores
 * @param stamp names this one, such as a time
 * @throws UserError, OutboxFailure as `openLevel`
 */
export async function openHealed(directory: string, aside: string, stamp: string): Promise<Healed> {
  const found = await openSound(directory)
  if ('store' in found) return { ...found, report: [] }
  return salvage(directory, aside, stamp, found.damage).catch(explain)
}

/**
 * As `openHealed`, for who only wants to look: where something is wrong nothing is touched, and `damage`
 * says what. (LevelDB itself, let at damaged files, drops what it cannot read, for good.)
 */
export async function openSound(directory: string): Promise<{ store: Store } | { damage: string }> {
  const damage = (await locked(directory)) ? undefined : await suspect(directory).catch(explain)
  if (damage !== undefined) return { damage }
  try {
    return { store: await openLevel(directory) }
  } catch (error) {
    if (!(error instanceof OutboxFailure) || !error.corrupt) throw error
    return { damage: error.message }
  }
}

/** Whether there is a store in the folder, or what is left of one. */
export async function holdsStore(directory: string): Promise<boolean> {
  return (await filesOf(directory).catch(explain)).some(
    (name) => isData(name) || name === 'CURRENT' || name.startsWith('MANIFEST-'),
  )
}

/** An error of the file system as what can be done about it. */
function explain(error: unknown): never {
  const { code, path, message } = error as NodeJS.ErrnoException
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
    throw new UserError(`${path}: no permission (${code}): run it as the agent's user`, {
      cause: error,
    })
  if (code === undefined || error instanceof OutboxFailure) throw error
  throw new OutboxFailure('OUTBOX_OPEN_FAILED', message, { cause: error })
}

/** Why LevelDB should not be let at these files, or undefined. */
async function suspect(directory: string): Promise<string | undefined> {
  const names = await filesOf(directory)
  const data = names.filter(isData)
  if (data.length === 0) return undefined
  if (!names.includes('CURRENT')) return 'CURRENT is missing'
  const current = (await readFile(join(directory, 'CURRENT'), 'latin1')).trim()
  if (!/^MANIFEST-\d+$/.test(current) || !names.includes(current))
    return 'CURRENT names no manifest'
  for (const name of data.filter((name) => name.endsWith('.log')))
    if (readLog(await readFile(join(directory, name))).damaged) return `${name} is damaged`
  return undefined
}

/**
 * Another process has the store open: its files are then not to be looked at, and LevelDB will say so. The
 * lock is a POSIX one on the file LOCK, which Linux lists by inode.
 */
async function locked(directory: string): Promise<boolean> {
  try {
    const { ino } = await stat(join(directory, 'LOCK'))
    const locks = await readFile('/proc/locks', 'utf8')
    return locks.split('\n').some((line) => / WRITE /.test(line) && line.includes(`:${ino} `))
  } catch {
    return false
  }
}

async function salvage(
  directory: string,
  aside: string,
  stamp: string,
  why: string,
): Promise<Healed> {
  const kept = join(aside, `${stamp}-${basename(directory)}`)
  await mkdir(aside, { recursive: true })
  await rename(directory, kept)
  const changes = new Map<string, RawChange>()
  let unreadable = 0
  for (const name of (await filesOf(kept)).filter(isData)) {
    const bytes = await readFile(join(kept, name))
    const file = name.endsWith('.log') ? readLog(bytes) : readTable(bytes)
    if (file.damaged) unreadable += 1
    for (const change of file.changes) {
      const key = Buffer.from(change.key).toString('latin1')
      const before = changes.get(key)
      if (!before || before.sequence <= change.sequence) changes.set(key, change)
    }
  }
  const store = await openLevel(directory)
  let carried = 0
  let left = 0
  for (const { key, value } of changes.values()) {
    if (!value) continue
    if (!vouched(key, value)) {
      left += 1
      // The place of a damaged entry is kept, so that the recovery declares it, also at the end of a lane.
      if (!parseEntryKey(key)) continue
    } else carried += 1
    await store.write([{ key, value }], { sync: false })
  }
  await store.write([], { sync: true })
  return {
    store,
    report: [
      `the outbox was damaged (${why}): its files are in ${kept}`,
      `${carried} entries carried over, ${left} damaged, ${unreadable} files not whole`,
    ],
  }
}

/** Our own checksum over key and value holds. State of the stages has none; they check what they read. */
function vouched(key: Uint8Array, value: Uint8Array): boolean {
  if (parseEntryKey(key) || parseTailKey(key) !== undefined)
    return decodeEntry(key, value) !== undefined
  if (key[0] === 0x73) return true
  return unseal(key, value) !== undefined
}

function isData(name: string): boolean {
  return /^\d+\.(log|ldb|sst)$/.test(name)
}

/** Empty for a folder that is not there. @throws OutboxFailure when it may not be read */
async function filesOf(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort()
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw new OutboxFailure('OUTBOX_OPEN_FAILED', directory, { cause })
  }
}
