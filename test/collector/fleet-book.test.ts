import assert from 'node:assert/strict'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { FleetBook } from '../../collector/fleet/book.ts'
import type { Fact } from '../../collector/fleet/facts.ts'
import { Journal } from '../../collector/fleet/journal.ts'
import type { RolloutPlan } from '../../collector/fleet/rollout.ts'
import { FleetState } from '../../collector/fleet/state.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { silentLog } from '../support/silent-log.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const dayMs = 86_400_000
const agents = Array.from({ length: 5 }, (_, i) => `gw-${i}`)
const factsPerCheckpoint = 20

/** A fleet's years: it enrols, and then has a rollout a week and new certificates every other month. */
function* years(weeks: number): Generator<{ by: string; fact: Fact; atMs: number }> {
  let atMs = Date.UTC(2026, 0, 1)
  const facts: Fact[] = []
  const said = function* () {
    for (const fact of facts.splice(0)) yield { by: 'manager:alice', fact, atMs }
  }
  for (const agent of agents) {
    const hash = `token of ${agent}`
    const expiresMs = atMs + dayMs
    facts.push({ act: 'invite', agent, labels: { site: 'north' }, hash, expiresMs })
    const [serial, notAfterMs] = [`${agent}-0`, atMs + 90 * dayMs]
    facts.push({ act: 'enrol', agent, hash, key: `key of ${agent}`, serial, notAfterMs })
    facts.push({ act: 'confirm', agent, hash })
  }
  yield* said()
  for (let week = 1; week <= weeks; week++) {
    atMs += 7 * dayMs
    const [id, version, digest] = [`r${week}`, week, `digest ${week}`]
    const plan = { group: 'site=north', version, digest, versions: [version] }
    facts.push({ act: 'rollout', id, plan: plan as unknown as RolloutPlan })
    facts.push({ act: 'desire', version, digest, agents, group: 'site=north', rollout: id })
    for (const agent of agents) facts.push({ act: 'outcome', agent, version, state: 'good' })
    facts.push({ act: 'finish', id })
    if (week % 8 === 0)
      for (const agent of agents)
        facts.push({
          act: 'renew',
          agent,
          serial: `${agent}-${week}`,
          notAfterMs: atMs + 90 * dayMs,
        })
    yield* said()
  }
}

class Shelf {
  readonly folder: string
  disk: MemoryDisk
  nowMs = 0

  constructor(folder: string, disk = new MemoryDisk()) {
    this.folder = folder
    this.disk = disk
  }

  get path(): string {
    return join(this.folder, 'audit.jsonl')
  }

  open(): Promise<FleetBook> {
    const { folder, disk } = this
    const nowMs = () => this.nowMs
    return FleetBook.open({ folder, disk, nowMs, logger: silentLog, factsPerCheckpoint })
  }

  /** Writes facts down one by one. */
  async write(book: FleetBook, facts: Iterable<{ by: string; fact: Fact; atMs: number }>) {
    for (const { by, fact, atMs } of facts) {
      this.nowMs = atMs
      await book.record(by, fact).durable
    }
  }

  /** What the journal alone comes to. */
  async sum(): Promise<FleetState['sum']> {
    const state = new FleetState()
    const journal = await Journal.open<Fact>(
      this.path,
      () => 0,
      (entry) => state.apply(entry),
    )
    await journal[Symbol.asyncDispose]()
    return state.sum
  }

  /** It comes to the same with checkpoints as without, and goes on from there. */
  async assertSound(what: string): Promise<void> {
    const expected = await this.sum()
    {
      await using book = await this.open()
      assert.deepEqual(book.state.sum, expected, what)
      await book.record('manager:alice', { act: 'revoke', name: 'gw-1' }).durable
      assert.notDeepEqual(book.state.sum, expected)
    }
    assert.deepEqual((await this.open().then(closed)).state.sum, await this.sum(), `after ${what}`)
  }
}

async function closed(book: FleetBook): Promise<FleetBook> {
  await book[Symbol.asyncDispose]()
  return book
}

async function shelf(t: TestContext, weeks = 20): Promise<Shelf> {
  const made = new Shelf(await temporaryDirectory(t))
  await using book = await made.open()
  await made.write(book, years(weeks))
  return made
}

/** Beside each other: the disk as it is, and a copy of the journal. */
async function copyOf(t: TestContext, { disk, path }: Shelf): Promise<Shelf> {
  const image = disk.powerCut((_, { synced }) => synced)
  const copy = new Shelf(await temporaryDirectory(t), image)
  await copyFile(path, copy.path)
  return copy
}

test('a start reads what came after the newest checkpoint, and comes to the same', async (t) => {
  const { disk, path, ...made } = await shelf(t)
  const again = new Shelf(made.folder, disk)
  const expected = await again.sum()
  const names = await disk.list('checkpoints')
  assert.equal(names.length, 2, names.join())
  // What lies before is not read: it is gone here, and its room is a hole.
  const bytes = await readFile(path)
  const covered = Number(names[1]!.slice(0, 16))
  let offset = 0
  for (let n = 0; n < covered; n++) offset = bytes.indexOf('\n', offset) + 1
  await writeFile(path, bytes.fill(0, 0, offset))
  await using book = await again.open()
  assert.deepEqual(book.state.sum, expected)
  const left = book.journal.length - covered
  assert.ok(covered > 0 && left <= factsPerCheckpoint + 2, `${left} facts since ${covered}`)
})

test('what a state holds does not grow with the years', () => {
  // Two years and four: by then all that is looked back on is full.
  const sizes = [104, 208].map((weeks) => {
    const state = new FleetState()
    for (const { atMs, ...said } of years(weeks))
      state.apply({ n: 0, at: new Date(atMs).toISOString(), ...said })
    const { rollouts, members } = state.sum
    const { certificates, outcomes } = members.get('gw-1')!
    assert.equal(certificates.at(-1)!.serial, `gw-1-${weeks}`)
    return [rollouts.size, outcomes.size, certificates.length]
  })
  assert.deepEqual(sizes[1], sizes[0])
})

test('a power cut at any step of a checkpoint leaves a state that the journal comes to', async (t) => {
  const base = await shelf(t)
  const weeks = [...years(26)].slice([...years(20)].length)
  for (const survives of ['synced', 'bytes'] as const) {
    let cuts = 0
    for (let isOver = false; !isOver; cuts++) {
      const cut = await copyOf(t, base)
      let image: MemoryDisk | undefined
      let calls = 0
      cut.disk.before = (call, path) => {
        if (call === 'read' || call === 'list' || calls++ < cuts) return
        image ??= cut.disk.powerCut((_, stored) => stored[survives])
        throw new Error(`the power is gone at ${call} ${path}`)
      }
      {
        await using book = await cut.open()
        await cut.write(book, weeks)
      }
      isOver = image === undefined
      cut.disk = image ?? cut.disk
      cut.disk.before = () => {}
      await cut.assertSound(`${survives} at disk call ${cuts}`)
    }
    assert.ok(cuts > 10, `${cuts} cuts`)
  }
})

test('whatever a power cut leaves of the journal, a checkpoint that it does not name counts for nothing', async (t) => {
  const base = await shelf(t)
  const bytes = await readFile(base.path)
  const lines = bytes.toString().split('\n').length - 1
  const named = bytes
    .toString()
    .split('\n')
    .flatMap((line, n) => (line.includes('"checkpoint"') ? [n] : []))
  assert.ok(named.length > 5)
  for (let kept = named.at(-3)!; kept <= lines; kept++) {
    const cut = await copyOf(t, base)
    let offset = 0
    for (let n = 0; n < kept; n++) offset = bytes.indexOf('\n', offset) + 1
    for (const torn of [0, 40]) {
      await writeFile(cut.path, bytes.subarray(0, offset + torn))
      await cut.assertSound(`${kept} lines and ${torn} bytes`)
    }
  }
})

test('a checkpoint that was changed is not believed', async (t) => {
  const base = await shelf(t)
  for (const [i, name] of (await base.disk.list('checkpoints')).entries())
    for (const change of [
      (bytes: Buffer) => bytes.write('site', bytes.indexOf('north')),
      (bytes: Buffer) => bytes.fill(0, 0, 10),
    ]) {
      const changed = await copyOf(t, base)
      const path = `checkpoints/${name}`
      const bytes = changed.disk.bytesOf(path)
      change(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length))
      await changed.assertSound(`checkpoint ${i}`)
    }
})

test('a journal that was put back from an older copy is gone on with, and gets checkpoints again', async (t) => {
  const base = await shelf(t)
  const bytes = await readFile(base.path)
  await writeFile(base.path, bytes.subarray(0, bytes.indexOf('\n', bytes.length >> 2) + 1))
  await base.assertSound('an older copy')
  {
    await using book = await base.open()
    await base.write(book, [...years(30)].slice(-80))
  }
  const last = (await readFile(base.path, 'utf8')).trimEnd().split('\n').length
  const newest = (await base.disk.list('checkpoints')).map((name) => Number(name.slice(0, 16)))
  assert.ok(
    newest.every((n) => n <= last),
    `${newest} of ${last}`,
  )
})
