import { link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { UserError } from '../../shared/failure.ts'
import type { Store, StoreChange } from '../../shared/ports.ts'
import { decodeEntry, unseal } from './entry.ts'
import { OutboxFailure } from './failure.ts'
import { parseEntryKey, parseTailKey } from './key.ts'
import { openLevel } from './level.ts'
import { type RawChange, type RawFile, readLog, readTable } from './leveldb-files.ts'

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
  await finishSalvage(directory).catch(explain)
  const found = await openSound(directory)
  if ('store' in found) return { ...found, report: [] }
  return salvage(directory, aside, stamp, found.damage).catch(explain)
}

/**
 * As `openHealed`, for who only wants to look: where something is wrong nothing is touched, and `damage`
 * says what. (LevelDB itself, let at damaged files, drops what it cannot read, for good.)
 */
export async function openSound(directory: string): Promise<{ store: Store } | { damage: string }> {
  if (await locked(directory)) return { store: await openLevel(directory) } // Which says so.
  const { damage, newest } = await lookAt(directory).catch(explain)
  if (damage !== undefined) return { damage }
  await keepLogs(directory)
  try {
    const store = await openLevel(directory)
    if (newest && !isSame(await store.get(newest.key), newest.value)) {
      await store.close()
      return { damage: 'LevelDB could not read its log and has dropped it' }
    }
    await dropKeptLogs(directory)
    return { store }
  } catch (error) {
    if (!(error instanceof OutboxFailure) || !error.corrupt) throw error
    return { damage: error.message }
  }
}

/**
 * A log that LevelDB cannot read at opening it takes for empty, and deletes: one failing read costs all that
 * was acknowledged since its last table. So its logs get a second name until what they end with has been found
 * in the open store.
 */
async function keepLogs(directory: string): Promise<void> {
  // Where a file system has no hard links the log is watched all the same, and its loss declared.
  for (const name of (await filesOf(directory)).filter((name) => name.endsWith('.log')))
    await link(join(directory, name), join(directory, name + keptSuffix)).catch(() => {})
}

async function dropKeptLogs(directory: string): Promise<void> {
  for (const name of (await filesOf(directory)).filter((name) => name.endsWith(keptSuffix)))
    await unlink(join(directory, name)).catch(() => {})
}

function isSame(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a && b ? Buffer.compare(a, b) === 0 : a === b
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

/** Why LevelDB should not be let at these files, if so; and the last change in its logs. */
async function lookAt(directory: string): Promise<{ damage?: string; newest?: RawChange }> {
  const names = await filesOf(directory)
  const data = names.filter(isData)
  if (data.length === 0) return {}
  if (!names.includes('CURRENT')) return { damage: 'CURRENT is missing' }
  const current = (await readFile(join(directory, 'CURRENT'), 'latin1')).trim()
  if (!/^MANIFEST-\d+$/.test(current) || !names.includes(current))
    return { damage: 'CURRENT names no manifest' }
  let newest: RawChange | undefined
  for (const name of data.filter(isLog)) {
    const { damaged, changes } = readLog(await readFile(join(directory, name)))
    if (damaged) return { damage: `${name} is damaged` }
    for (const change of changes) if (change.sequence >= (newest?.sequence ?? 0)) newest = change
  }
  return newest ? { newest } : {}
}

/**
 * Another process has the store open: its files are then not to be looked at, and LevelDB will say so. The
 * lock is a POSIX one on the file LOCK, which Linux lists by device and inode.
 */
async function locked(directory: string): Promise<boolean> {
  try {
    const { dev, ino } = await stat(join(directory, 'LOCK'))
    const locks = await readFile('/proc/locks', 'utf8')
    return locks.split('\n').some((line) => {
      const [, major, minor, inode] = / POSIX .* WRITE .* (\w+):(\w+):(\d+) /.exec(line) ?? []
      if (Number(inode) !== ino) return false
      const device = { major: Number.parseInt(major!, 16), minor: Number.parseInt(minor!, 16) }
      // Of devices without a number of their own (overlay, btrfs) `stat` may name another one.
      if (device.major === 0 || majorOf(dev) === 0) return true
      return device.major === majorOf(dev) && device.minor === minorOf(dev)
    })
  } catch {
    return false
  }
}

/** Of a device as `stat` says it on Linux: 12 bits of the major number between 8 and 12 of the minor one. */
function majorOf(dev: number): number {
  return Math.floor(dev / 2 ** 8) % 2 ** 12
}

function minorOf(dev: number): number {
  return (dev % 2 ** 8) + (Math.floor(dev / 2 ** 20) % 2 ** 12) * 2 ** 8
}

/**
 * Makes a whole store of what is there, beside it, and puts it in its place. Until then the damaged one stays
 * where it is: whatever ends this in the middle, the next opening begins again, or finishes.
 */
async function salvage(
  directory: string,
  aside: string,
  stamp: string,
  why: string,
): Promise<Healed> {
  const made = directory + madeSuffix
  await rm(made, { recursive: true, force: true })
  const { carried, left, unreadable } = await carryOver(directory, made)
  await mkdir(aside, { recursive: true })
  const kept = await freeName(aside, `${stamp}-${basename(directory)}`)
  await rename(directory, kept)
  await rename(made, directory)
  await syncFolder(dirname(directory))
  const found = await openSound(directory)
  if ('damage' in found) throw new OutboxFailure('OUTBOX_OPEN_FAILED', found.damage)
  return {
    store: found.store,
    report: [
      `the outbox was damaged (${why}): its files are in ${kept}`,
      `${carried} entries carried over, ${left} damaged, ${unreadable} files not whole`,
    ],
  }
}

/** A clock that stands still, or begins anew at each boot, says the same twice. */
async function freeName(folder: string, wanted: string): Promise<string> {
  const taken = await filesOf(folder)
  let name = wanted
  for (let i = 2; taken.includes(name); i++) name = `${wanted}-${i}`
  return join(folder, name)
}

/** Ends what a salvage had begun: its store takes the place of the one that is already set aside. */
async function finishSalvage(directory: string): Promise<void> {
  const made = directory + madeSuffix
  if ((await filesOf(made)).length === 0) return
  if (await holdsStore(directory)) await rm(made, { recursive: true, force: true })
  else await rename(made, directory)
}

/** Makes a store of the last change of each key that checksums vouch for; all of it is synced. */
async function carryOver(
  directory: string,
  made: string,
): Promise<{ carried: number; left: number; unreadable: number }> {
  // Twice through the files, so that no more than one of them is in memory: a store may be large.
  const newest = new Map<string, number>()
  let unreadable = 0
  for await (const { changes, damaged } of rawFiles(directory)) {
    if (damaged) unreadable += 1
    for (const { key, sequence } of changes) {
      const name = nameOf(key)
      if (sequence >= (newest.get(name) ?? 0)) newest.set(name, sequence)
    }
  }
  let carried = 0
  const left = new Map<string, StoreChange>()
  const store = await openLevel(made)
  try {
    for await (const { changes } of rawFiles(directory)) {
      const writes: StoreChange[] = []
      for (const { key, value, sequence } of changes) {
        const name = nameOf(key)
        if (newest.get(name) !== sequence) continue
        // It may stand in two files, and be whole in the other one.
        if (value && !vouched(key, value)) {
          left.set(name, { key: key.slice(), value: value.slice() })
          continue
        }
        newest.delete(name)
        left.delete(name)
        if (!value) continue
        carried += 1
        writes.push({ key, value })
      }
      await store.write(writes, { sync: true })
    }
    // The place of a damaged entry is kept, so that the recovery declares it, also at the end of a lane.
    const places = [...left.values()].filter(({ key }) => parseEntryKey(key))
    await store.write(places, { sync: true })
  } finally {
    await store.close()
  }
  return { carried, left: left.size, unreadable }
}

async function* rawFiles(directory: string): AsyncIterable<RawFile> {
  for (const name of (await filesOf(directory)).filter(isData)) {
    const bytes = await readFile(join(directory, name))
    yield isLog(name) ? readLog(bytes) : readTable(bytes)
  }
}

function nameOf(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1')
}

async function syncFolder(directory: string): Promise<void> {
  const folder = await open(directory)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Our own checksum over key and value holds. State of the stages has none; they check what they read. */
function vouched(key: Uint8Array, value: Uint8Array): boolean {
  if (parseEntryKey(key) || parseTailKey(key) !== undefined)
    return decodeEntry(key, value) !== undefined
  if (key[0] === 0x73) return true
  return unseal(key, value) !== undefined
}

/** Behind a store's name: a whole one, to take its place. */
const madeSuffix = '.healed'
/** Behind a log's name: LevelDB knows nothing of such files. */
const keptSuffix = '.kept'

function isData(name: string): boolean {
  return /^\d+\.(ldb|sst)$/.test(name) || isLog(name)
}

function isLog(name: string): boolean {
  return /^\d+\.log(\.kept)?$/.test(name)
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
