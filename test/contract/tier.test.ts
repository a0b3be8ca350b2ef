import assert from 'node:assert/strict'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { nodeDisk } from '../../collector/log/embedded/disk.ts'
import { EmbeddedLog } from '../../collector/log/embedded/embedded.ts'
import type { LogItem, StoredBatch } from '../../collector/log/engine.ts'
import { FolderStore } from '../../collector/log/tier/folder-store.ts'
import { S3Store } from '../../collector/log/tier/s3-store.ts'
import type { TierStore } from '../../collector/log/tier/store.ts'
import { systemRandom } from '../../shared/system.ts'
import { TestAgent } from '../support/batches.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { readings } from '../support/readings.ts'
import { silentLog } from '../support/silent-log.ts'
import { Swift } from '../support/swift.ts'
import { temporaryDirectory } from '../support/temporary.ts'
import { entryOf, readAll } from './log-engine.ts'

/** Between two batches; the log looks after itself every minute. */
const stepMs = 120_000
const total = 60

/** A log that keeps a few small segments on its disk, and the rest in the tier. */
class Tiered {
  readonly clock = new ManualClock()
  readonly agent = new TestAgent()
  readonly disk: ReturnType<typeof nodeDisk>
  readonly store: TierStore

  constructor(directory: string, store: TierStore) {
    this.disk = nodeDisk(directory)
    this.store = store
  }

  open(tierAgeMs?: number): Promise<EmbeddedLog> {
    return EmbeddedLog.open({
      disk: this.disk,
      clock: this.clock,
      random: systemRandom,
      logger: silentLog,
      segmentBytes: 4000,
      groupBytes: 2 ** 20,
      retention: { bytes: 12_000, ageMs: undefined },
      tier: { store: this.store, ageMs: tierAgeMs },
    })
  }

  /** Batches of one reading, a step apart. */
  async fill(log: EmbeddedLog, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const one = readings(1, this.agent.next)
      const batch = this.agent.batch([{ kind: 'readings', readings: one }])
      const answer = await log.append(entryOf(batch, this.clock.wallMs()))
      assert.equal(answer.code, 'accepted')
      await this.clock.advance(stepMs)
      // What is copied and removed must not hang on how fast the tier is.
      await log.retain()
    }
  }

  async localSegments(): Promise<string[]> {
    return (await this.disk.list('log/0')).filter((name) => name.endsWith('.segment'))
  }
}

const firstsOf = (items: LogItem[]) =>
  items.map((item) => (item.type === 'batch' ? item.first : `lost ${item.first}-${item.last}`))
const upTo = (last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i)

async function stores(t: TestContext): Promise<Record<string, TierStore>> {
  const folder = new FolderStore(nodeDisk(await temporaryDirectory(t)))
  const swift = await Swift.start(t)
  if (!swift) return { folder }
  await swift.bucket('lake')
  const s3 = await S3Store.open({
    ...swift,
    ...swiftPlace(swift),
    bucket: 'lake',
    prefix: 'plant-1',
  })
  const forger = { ...swift.credentials, secretAccessKey: 'wrong' }
  const forged = await S3Store.open({
    ...swiftPlace(swift),
    credentials: forger,
    bucket: 'lake',
    prefix: '',
  })
  await assert.rejects(forged.get('x'), { name: 'SignatureDoesNotMatch' })
  return { folder, s3 }
}

function swiftPlace({ endpoint, region, credentials }: Swift) {
  return { endpoint, region, credentials }
}

test('readers go on in the tier without noticing, and what was deleted there is told', async (t) => {
  for (const [name, store] of Object.entries(await stores(t))) {
    const tiered = new Tiered(await temporaryDirectory(t), store)
    {
      await using log = await tiered.open()
      await tiered.fill(log, total)
    }
    const local = (await tiered.localSegments()).length
    assert.ok(local <= 3, `${name}: ${local} segments are left on the disk`)
    const log = await tiered.open()
    assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings' })), upTo(total), name)
    const part = await readAll(log, { stream: 'readings', fromOffset: 5, toOffset: 9 })
    assert.deepEqual(firstsOf(part), [6, 7, 8, 9])
    assert.equal((await log.statistics()).readings.records, total)
    const stop = new AbortController()
    const tail = log.read({ stream: 'readings', follow: true, signal: stop.signal })
    const followed: number[] = []
    const following = (async () => {
      for await (const item of tail) {
        followed.push((item as StoredBatch).first)
        if (followed.length === total + 1) stop.abort()
      }
    })()
    await tiered.fill(log, 1)
    await following
    assert.deepEqual(followed, upTo(total + 1), name)

    const manifest = new TextDecoder().decode((await store.get('partition=0/manifest.json'))!)
    const { segments } = JSON.parse(manifest)
    assert.ok(segments.length > local)
    assert.match(segments[0].path, /^partition=0\/date=2026-01-01\/0+1\.segment$/)
    assert.equal(segments[0].sha256.length, 64)
    assert.ok(await store.get(segments[0].path))
    await log.close()
    await assertDeletes(tiered, name)
  }
})

/** What is too old goes from the tier, which says so: it is not called lost. */
async function assertDeletes(tiered: Tiered, name: string): Promise<void> {
  await using log = await tiered.open(30 * stepMs)
  await log.retain()
  const found = firstsOf(await readAll(log, { stream: 'readings' }))
  assert.ok(found.length < 50 && found.length >= 30, `${name}: ${found.length}`)
  assert.deepEqual(found, upTo(total + 1, total + 2 - found.length))
  const bytes = await tiered.store.get('partition=0/manifest.json')
  const { segments, removed } = JSON.parse(new TextDecoder().decode(bytes))
  assert.equal(removed[0].first, 1)
  assert.equal(removed.at(-1).last, segments[0].number - 1)
  assert.match(removed[0].reason, /older than 2026-01-0/)
  assert.equal(
    await tiered.store.get('partition=0/date=2026-01-01/000000000001.segment'),
    undefined,
  )
}

/** A tier that is away while `isDown`. */
class Fickle implements TierStore {
  isDown = false
  readonly #real: TierStore

  constructor(real: TierStore) {
    this.#real = real
  }

  put: TierStore['put'] = (path, object) => this.#reached().then((real) => real.put(path, object))
  get: TierStore['get'] = (path) => this.#reached().then((real) => real.get(path))
  range: TierStore['range'] = (path, offset, length) =>
    this.#reached().then((real) => real.range(path, offset, length))
  remove: TierStore['remove'] = (path) => this.#reached().then((real) => real.remove(path))

  async #reached(): Promise<TierStore> {
    if (this.isDown) throw new Error('down')
    return this.#real
  }
}

test('a log that starts while the tier is away gives its readers no part for all of it', async (t) => {
  const store = new Fickle(new FolderStore(nodeDisk(await temporaryDirectory(t))))
  const tiered = new Tiered(await temporaryDirectory(t), store)
  {
    await using log = await tiered.open()
    await tiered.fill(log, total)
  }
  store.isDown = true
  await using log = await tiered.open()
  const away = { code: 'LOG_DISK', message: /the tier cannot be read: Error: down/ }
  await assert.rejects(readAll(log, { stream: 'readings' }), away)
  assert.equal((await log.statistics()).readings.records, total)
  const near = (await log.statistics()).readings.next - 1
  assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings', fromOffset: near })), [total])
  store.isDown = false
  assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings' })), upTo(total))
})

test('a folder that is not mounted is not taken for a new tier', async (t) => {
  const mounted = new FolderStore(nodeDisk(await temporaryDirectory(t)))
  const bare = new FolderStore(nodeDisk(await temporaryDirectory(t)))
  const place = await temporaryDirectory(t)
  const tiered = new Tiered(place, mounted)
  {
    await using log = await tiered.open()
    await tiered.fill(log, total)
  }
  const manifest = await mounted.get('partition=0/manifest.json')
  const unmounted = Object.assign(new Tiered(place, bare), { agent: tiered.agent })
  {
    await using log = await unmounted.open()
    await unmounted.fill(log, total)
    await assert.rejects(readAll(log, { stream: 'readings' }), /is gone from the tier/)
  }
  assert.equal(await bare.get('partition=0/manifest.json'), undefined)
  assert.ok((await unmounted.localSegments()).length > 5)
  assert.deepEqual(await mounted.get('partition=0/manifest.json'), manifest)
  await using log = await tiered.open()
  await log.retain()
  assert.ok((await tiered.localSegments()).length <= 5)
  assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings' })), upTo(2 * total))
})

test('while the tier cannot be reached nothing leaves the disk, and batches are taken', async (t) => {
  const folder = join(await temporaryDirectory(t), 'share')
  const real = new FolderStore(nodeDisk(folder))
  const store = new Fickle(real)
  store.isDown = true
  const tiered = new Tiered(await temporaryDirectory(t), store)
  await using log = await tiered.open()
  await tiered.fill(log, total)
  assert.ok((await tiered.localSegments()).length > 5)
  assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings' })), upTo(total))
  await assert.rejects(access(folder))

  store.isDown = false
  await log.retain()
  assert.ok((await tiered.localSegments()).length <= 5)
  assert.deepEqual(firstsOf(await readAll(log, { stream: 'readings' })), upTo(total))
})
