import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openLevel } from '../../agent/outbox/level.ts'
import type { Store } from '../../shared/ports.ts'
import { CuttableDisk, SmallDisk } from '../support/file-systems.ts'
import { Seeded } from '../support/seeded.ts'
import { Coverage } from './coverage.ts'
import { Process } from './machine.ts'
import { SimulatedStore } from './store.ts'
import { Timeline } from './timeline.ts'

/** A folder with a LevelDB in it, on a disk that can be treated badly: a real one, or what stands for it. */
interface Folder {
  open(): Promise<Store>
  /** From now on nothing more can be written, until there is room again. */
  fill(): Promise<void>
  free(): Promise<void>
  /** With the store closed: flips a byte of a value in a log that others follow in, or in a table. */
  flip(where: 'log' | 'table'): Promise<void>
  /** Power is lost, whatever is open. */
  cut(open: Store): Promise<void>
  /** Runs what uses it. */
  live<Result>(work: () => Promise<Result>): Promise<Result>
}

const folders: Record<
  string,
  (t: TestContext, disk: 'small' | 'cuttable') => Promise<Folder | undefined>
> = { 'the real LevelDB': realFolder, 'the simulated one': async () => simulatedFolder() }

for (const [name, make] of Object.entries(folders)) {
  test(`${name}: behind a failed write others are acknowledged, shown, and lost at reopen`, async (t) => {
    const folder = await make(t, 'small')
    await folder?.live(async () => {
      const store = await folder.open()
      await put(store, 0, 20)
      await folder.fill()
      await assert.rejects(put(store, 20, 10_000))
      await folder.free()
      await put(store, 20_000, 100)
      assert.deepEqual((await numbers(store)).slice(-100), range(20_000, 100), 'shown')
      await store.close()
      const kept = await numbers(await folder.open())
      assert.deepEqual(kept.slice(0, 20), range(0, 20), 'what came before is there')
      const behind = kept.filter((number) => number >= 20_000)
      assert.ok(behind.length < 100, 'acknowledged and lost')
      assert.deepEqual(behind, range(20_100 - behind.length, behind.length), 'from the failure on')
    })
  })

  test(`${name}: a flipped byte in its log drops records in a row, and it opens without a word`, async (t) => {
    const folder = await make(t, 'small')
    await folder?.live(async () => {
      const store = await folder.open()
      await put(store, 0, 300)
      await store.close()
      await folder.flip('log')
      const kept = await numbers(await folder.open())
      const missing = range(0, 300).filter((number) => !kept.includes(number))
      assert.ok(missing.length > 0 && missing.length < 300)
      assert.deepEqual(missing, range(missing[0]!, missing.length), 'in a row')
    })
  })

  test(`${name}: a flipped byte in a table is a flipped byte in a value`, async (t) => {
    const folder = await make(t, 'small')
    await folder?.live(async () => {
      const store = await folder.open()
      await put(store, 0, 10)
      await store.close()
      // At open the log becomes a table.
      await (await folder.open()).close()
      await folder.flip('table')
      const opened = await folder.open()
      assert.deepEqual(await numbers(opened), range(0, 10))
      const damaged: number[] = []
      for (const number of range(0, 10))
        if (!sameBytes(await opened.get(keyOf(number)), sampleOf(number))) damaged.push(number)
      assert.equal(damaged.length, 1)
    })
  })

  test(`${name}: a synced write keeps those before it through a loss of power, of later ones the last go`, async (t) => {
    const folder = await make(t, 'cuttable')
    await folder?.live(async () => {
      const store = await folder.open()
      await put(store, 0, 50, false)
      await put(store, 50, 1)
      await put(store, 51, 50, false)
      await folder.cut(store)
      const kept = await numbers(await folder.open())
      assert.ok(kept.length >= 51)
      assert.deepEqual(kept, range(0, kept.length))
    })
  })

  test(`${name}: a synced write behind a change of log files keeps its own file, of the one before the last may go`, async (t) => {
    const folder = await make(t, 'cuttable')
    await folder?.live(async () => {
      const store = await folder.open()
      // More than one log file takes; the memory that the first one stands for is still on its way to a table.
      for (let first = 0; first < 4_400; first += 50)
        await store.write(
          range(first, 50).map((number) => ({ key: keyOf(number), value: sampleOf(number) })),
          { sync: false },
        )
      await put(store, 4_400, 1)
      await folder.cut(store)
      const kept = new Set(await numbers(await folder.open()))
      const missing = range(0, 4_401).filter((number) => !kept.has(number))
      t.diagnostic(`${missing.length} are lost`)
      assert.ok(kept.has(4_400), 'what was synced is there')
      assert.ok((missing.at(-1) ?? 0) < 4_300, 'and what stands before it in its file')
      if (missing.length > 0)
        assert.deepEqual(missing, range(missing[0]!, missing.length), 'the last of a file')
    })
  })
}

async function realFolder(t: TestContext, kind: 'small' | 'cuttable'): Promise<Folder | undefined> {
  const small = kind === 'small' ? await SmallDisk.make(t, 8) : undefined
  const cuttable = kind === 'cuttable' ? await CuttableDisk.make(t, 16) : undefined
  const disk = small ?? cuttable
  if (!disk) return undefined
  const directory = join(disk.directory, 'store')
  let opened: Store | undefined
  t.after(() => opened?.close())
  return {
    open: async () => {
      opened = await openLevel(directory)
      return opened
    },
    fill: async () => small?.fill(0),
    free: async () => small?.free(),
    flip: async (where) => {
      const wanted = where === 'log' ? '.log' : '.ldb'
      for (const name of await readdir(directory)) {
        if (!name.endsWith(wanted)) continue
        const path = join(directory, name)
        const bytes = await readFile(path)
        const at = bytes.indexOf(sampleOf(5))
        if (at < 0) continue
        bytes[at + 10]! ^= 1
        await writeFile(path, bytes)
        return
      }
      throw new Error(`no ${where} to be damaged`)
    },
    cut: async (store) => {
      await cuttable?.cut(() => {})
      await store.close().catch(() => {})
      await cuttable?.restore()
    },
    live: (work) => work(),
  }
}

function simulatedFolder(): Folder {
  const timeline = new Timeline(new Seeded(1))
  const store = new SimulatedStore({
    seeded: new Seeded(2),
    coverage: new Coverage(),
    writeBufferBytes: 4 * 1024 * 1024,
    written: () => () => {},
    opened: () => {},
  })
  let process = new Process(timeline)
  return {
    open: () => store.open(process),
    fill: async () => {
      store.trouble.full = true
    },
    free: async () => store.heal(),
    flip: async (where) => assert.ok(where === 'log' ? store.flipLog() : store.flipValue()),
    cut: async () => {
      process.end('power cut')
      process = new Process(timeline)
      store.crash()
    },
    live: async (work) => {
      let over = false
      const result = work().finally(() => {
        over = true
      })
      await timeline.run(() => over, 3_600_000, 1_000_000)
      return result
    },
  }
}

/** One write each. */
async function put(store: Store, first: number, count: number, sync = true): Promise<void> {
  for (const number of range(first, count))
    await store.write([{ key: keyOf(number), value: sampleOf(number) }], { sync })
}

async function numbers(store: Store): Promise<number[]> {
  const found: number[] = []
  for await (const { key } of store.read({ gte: keyOf(0), lt: keyOf(99_999) }))
    found.push(Number(Buffer.from(key).toString()))
  return found
}

function keyOf(number: number): Uint8Array {
  return Buffer.from(String(number).padStart(5, '0'))
}

/** Of a size that fills a small disk soon. */
function sampleOf(number: number): Uint8Array {
  return Buffer.alloc(1_000, `value ${number} `)
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i)
}
