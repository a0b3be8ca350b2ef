import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openHealed } from '../../agent/outbox/heal.ts'
import { decodeItem, readingsOf } from '../../shared/batch.ts'
import { imbalance } from '../../shared/ledger.ts'
import { systemClock } from '../../shared/system.ts'
import { needs } from '../support/needs.ts'
import { openOutbox, wholeLane } from '../support/outbox.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const life = fileURLToPath(new URL('../support/outbox-life.ts', import.meta.url))
/** System calls by which LevelDB changes the disk. */
const calls = 'openat,write,fdatasync,fsync,rename,unlink,ftruncate'
/** Lives beside each other: each is mostly the start of a process. */
const atOnce = 2

// SQLite's loop: n = 1, 2, 3 … until a life passes without a failure. strace counts each kind of call apart,
// so that in one life the n-th write fails, and the n-th fdatasync, and what the healing of those asks for.
for (const error of ['EIO', 'ENOSPC'])
  test(`whichever of LevelDB's calls fails with ${error}, what was acknowledged is there, once`, async (t) => {
    const strace = needs(t, 'strace')
    if (!strace) return
    let failures = 0
    let reopened = 0
    for (let n = 1, failed = true; failed; n += atOnce) {
      const lives = await Promise.all(
        Array.from({ length: atOnce }, (_, i) => live(t, strace, `error=${error}:when=${n + i}`)),
      )
      for (const { injected, openings } of lives) {
        if (!injected) failed = false
        else failures += 1
        if (openings > 1) reopened += 1
      }
    }
    t.diagnostic(`${failures} lives with failures; in ${reopened} the store was opened anew`)
    assert.ok(reopened > 10)
  })

async function live(t: Parameters<typeof temporaryDirectory>[0], strace: string, fault: string) {
  const directory = await temporaryDirectory(t)
  const folder = join(directory, 'outbox')
  await mkdir(folder)
  const log = join(directory, 'strace.txt')
  const numbers = Array.from({ length: 40 }, (_, i) => String(i).padStart(6, '0'))
  const files = [
    'CURRENT',
    ...numbers.flatMap((n) => [`${n}.log`, `${n}.ldb`, `${n}.dbtmp`, `MANIFEST-${n}`]),
  ].flatMap((name) => ['-P', join(folder, name)])
  const tracing = ['-f', '-o', log, '-e', `trace=${calls}`, '-e', `inject=${calls}:${fault}`]
  const { stdout } = await promisify(execFile)(
    strace,
    [...tracing, ...files, process.execPath, life, directory],
    // One thread: strace counts the calls of each.
    { env: { ...process.env, UV_THREADPOOL_SIZE: '1' } },
  )
  const { acknowledged, released, openings } = JSON.parse(stdout)
  const { store, report } = await openHealed(folder, join(directory, 'damaged'), 'after')
  await using outbox = await openOutbox('', { store, clock: systemClock })
  const told = `${fault}: ${[...report, ...outbox.damage].join('; ')}`
  const values: number[] = []
  for (;;) {
    const cut = await outbox.cut('bulk', wholeLane)
    if (!cut) break
    for (const { bytes } of cut.items)
      values.push(...readingsOf(decodeItem(bytes)).map(({ value }) => Number(value)))
    await outbox.release(cut)
  }
  const [first = Number.POSITIVE_INFINITY] = values
  // A deletion is not synced, so what was released may be there again.
  const due = (acknowledged as number[]).flatMap((value) =>
    Array.from({ length: 10 }, (_, i) => value + i),
  )
  assert.ok(first <= due[released]!, told)
  const there = new Set(values)
  assert.deepEqual(
    due.filter((value) => value >= first && !there.has(value)),
    [],
    told,
  )
  // A write that failed may be done all the same; in the order of admission it is.
  assert.deepEqual(
    values,
    [...there].sort((a, b) => a - b),
    told,
  )
  assert.equal(imbalance(outbox.ledger), 0, told)
  assert.equal(outbox.ledger.lostCorrupt, 0, told)
  return { injected: /\(INJECTED\)/.test(await readFile(log, 'utf8')), openings }
}
