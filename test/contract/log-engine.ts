import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { completeness } from '../../collector/fanout/completeness.ts'
import { readEntry } from '../../collector/ingest/entry.ts'
import type {
  Entry,
  LogEngine,
  LogItem,
  ReadRequest,
  StoredBatch,
} from '../../collector/log/engine.ts'
import type { Gap, Item } from '../../shared/batch.ts'
import { chainStart } from '../../shared/chain.ts'
import type { AdmittedReading, Stream } from '../../shared/reading.ts'
import { incarnation, TestAgent, type TestBatch, unreadable } from '../support/batches.ts'
import { reading } from '../support/readings.ts'
import { notesContract } from './notes.ts'

/** Storage of one test's own, on which the engine is opened, closed and opened again. */
export interface EngineStorage {
  open(options?: StorageOptions): Promise<LogEngine>
  /** Several engines may be open on it at once, as those of several collectors. */
  shared: boolean
}

export interface StorageOptions {
  /** Default: everything is kept. */
  retentionBytes?: number
}

export function entryOf(batch: TestBatch, arrivedMs = 1_767_225_600_000): Entry {
  const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 2 ** 23 }
  return readEntry(batch.body(), 'gzip', { ...limits, arrivedMs })
}

/** A batch that is none, once its columns are looked at. */
export function unreadableEntry(batch: TestBatch): Entry {
  const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 2 ** 23 }
  return readEntry(unreadable(batch), 'identity', { ...limits, arrivedMs: 1_767_225_600_000 })
}

/** Reads to the end what is there, one partition after the other unless it names one. */
export async function readAll(
  log: Pick<LogEngine, 'partitions' | 'read'>,
  request: ReadRequest,
): Promise<LogItem[]> {
  const items: LogItem[] = []
  const wanted =
    request.partition === undefined ? [...Array(log.partitions).keys()] : [request.partition]
  for (const partition of wanted)
    for await (const item of log.read({ ...request, partition })) items.push(item)
  return items
}

async function batchesOf(log: LogEngine, request: ReadRequest): Promise<StoredBatch[]> {
  return (await readAll(log, request)).filter((item) => item.type === 'batch')
}

/** Records that each batch of a stream brought; their offsets grow and do not overlap. */
async function countsOf(log: LogEngine, stream: Stream): Promise<number[]> {
  const next = new Map<number, number>()
  return (await batchesOf(log, { stream })).map(({ partition, feeds }) => {
    const { first, count } = feeds[stream]
    assert.ok(first >= (next.get(partition) ?? 0), `offset ${first} was there before`)
    next.set(partition, first + count)
    return count
  })
}

/** The partition that has whatever is in the log. */
async function partitionIn(log: LogEngine): Promise<number> {
  const [batch] = await batchesOf(log, { stream: 'readings' })
  return batch!.partition
}

/** Readings that hardly compress. */
function noise(count: number): AdmittedReading[] {
  return Array.from({ length: count }, (_, i) =>
    reading({ value: Math.sin(i * 1e6 + count) * 1e9 }),
  )
}

/**
 * What every log engine does, whatever it is made of.
 *
 * @param storageOf undefined where the engine cannot be had and the test was skipped
 */
export function logEngineContract(
  name: string,
  storageOf: (t: TestContext) => Promise<EngineStorage | undefined>,
): void {
  const check = (title: string, body: (storage: EngineStorage) => Promise<void>) =>
    test(`${name}: ${title}`, async (t) => {
      const storage = await storageOf(t)
      if (storage) await body(storage)
    })

  check('a batch is accepted in sequence and read back as it came', async ({ open }) => {
    await using log = await open()
    const batch = new TestAgent().readings(3)
    const entry = entryOf(batch)
    const answer = await log.append(entry)
    assert.deepEqual(answer, {
      code: 'accepted',
      held: 3,
      chain: batch.header.after,
      alarms: [],
    })
    const [stored] = await batchesOf(log, { stream: 'readings' })
    assert.deepEqual(stored!.body, entry.body)
    assert.equal(stored!.encoding, 'gzip')
    assert.equal(stored!.arrivedMs, entry.arrivedMs)
    const { agent, lane, first, last, before, after } = batch.header
    const { body: _, feeds: __, ...rest } = stored!
    assert.deepEqual(
      { ...rest, incarnation: new Uint8Array(rest.incarnation) },
      {
        type: 'batch',
        partition: stored!.partition,
        agent,
        incarnation: incarnation(1),
        lane,
        first,
        last,
        before,
        after,
        predecessor: undefined,
        arrivedMs: entry.arrivedMs,
        encoding: 'gzip',
      },
    )
  })

  check('it can be told whether an hour of a device is whole', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const minute = 60_000
    const fromMs = Date.UTC(2026, 0, 31, 8)
    const stateAfter = async (item: Item, minutes: number) => {
      const sentMs = fromMs + minutes * minute
      const changes = { sentMs, ledger: { received: 1, settledMs: sentMs } }
      assert.equal(
        (await log.append(entryOf(agent.batch([item], changes), sentMs))).code,
        'accepted',
      )
      return completeness(log, { device: 'pump-1', fromMs, toMs: fromMs + 60 * minute })
    }
    const at = (minutes: number): Item => ({
      kind: 'readings',
      readings: [reading({ device: 'pump-1', timeMs: fromMs + minutes * minute })],
    })
    assert.equal((await stateAfter(at(10), 30)).state, 'not_yet')
    const whole = await stateAfter(at(50), 61)
    assert.deepEqual([whole.state, whole.readings], ['complete', 2])
    const gap: Item = {
      kind: 'gap',
      count: 3,
      reason: 'evicted',
      after: chainStart,
      series: [{ device: 'pump-1', metric: 'temperature', count: 3 }],
      fromMs: fromMs + 20 * minute,
      toMs: fromMs + 30 * minute,
      atLeast: false,
    }
    const lost = await stateAfter(gap, 62)
    assert.deepEqual(
      [lost.state, lost.missing.map(({ reason }) => reason)],
      ['incomplete', ['evicted']],
    )
  })

  check('what turns out to be no batch is refused, alone and among others', async ({ open }) => {
    const log = await open()
    const one = new TestAgent()
    await log.append(entryOf(one.readings(3)))
    const next = one.readings(3)
    await assert.rejects(log.append(unreadableEntry(next)), { code: 'WIRE_INVALID' })
    const other = new TestAgent({ name: 'gw-002' }).readings(2)
    const answers = await Promise.allSettled([
      log.append(entryOf(other)),
      log.append(unreadableEntry(next)),
      log.append(entryOf(next)),
    ])
    assert.deepEqual(
      answers.map((answer) =>
        answer.status === 'fulfilled' ? answer.value.code : answer.reason.code,
      ),
      ['accepted', 'WIRE_INVALID', 'accepted'],
    )
    await log.close()
    await using after = await open()
    assert.deepEqual((await countsOf(after, 'readings')).sort(), [2, 3, 3])
  })

  check('a repeat is a duplicate, whatever its bounds, and appends nothing', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const whole = agent.readings(10)
    await log.append(entryOf(whole))

    assert.equal((await log.append(entryOf(whole))).code, 'duplicate')
    const part = new TestAgent().readings(4)
    assert.equal((await log.append(entryOf(part))).code, 'duplicate')
    const over = new TestAgent().readings(12)
    const answer = await log.append(entryOf(over))
    assert.deepEqual(answer, { code: 'duplicate', held: 10, chain: whole.header.after })
    assert.deepEqual(await countsOf(log, 'readings'), [10])
  })

  check('a batch beyond what is held is answered with the hole', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const first = agent.readings(5)
    agent.readings(5)
    const third = agent.readings(5)
    const hole = { code: 'hole', incarnation: incarnation(1), lane: 'bulk' }
    assert.deepEqual(await log.append(entryOf(third)), { ...hole, held: 0, chain: chainStart })
    await log.append(entryOf(first))
    assert.deepEqual(await log.append(entryOf(third)), {
      ...hole,
      held: 5,
      chain: first.header.after,
    })
    assert.deepEqual(await countsOf(log, 'readings'), [5])
  })

  check('two histories under one incarnation are a fork', async ({ open }) => {
    await using log = await open()
    const one = new TestAgent()
    const other = new TestAgent()
    await log.append(entryOf(one.readings(5)))
    other.batch([{ kind: 'readings', readings: Array.from({ length: 5 }, () => reading()) }])
    assert.equal((await log.append(entryOf(other.readings(5)))).code, 'fork')

    const same = new TestAgent()
    const otherEnd = same.batch([
      { kind: 'readings', readings: Array.from({ length: 5 }, () => reading()) },
    ])
    const answer = await log.append(entryOf(otherEnd))
    assert.deepEqual(answer, { code: 'fork', held: 5, chain: one.chain })
    assert.deepEqual(await countsOf(log, 'readings'), [5])
  })

  check('a successor waits until what its predecessor numbered is held', async ({ open }) => {
    await using log = await open()
    const before = new TestAgent()
    const sent = before.readings(5)
    const late = before.readings(5)
    await log.append(entryOf(sent))
    const predecessor = {
      incarnation: incarnation(1),
      last: { urgent: 0, bulk: 10, quarantine: 0 },
    }
    const after = new TestAgent({ incarnation: incarnation(2), predecessor })
    const first = after.readings(3)
    assert.deepEqual(await log.append(entryOf(first)), {
      code: 'hole',
      incarnation: incarnation(1),
      lane: 'bulk',
      held: 5,
      chain: sent.header.after,
    })

    // Other lanes do not wait for it.
    const urgent = new TestAgent({ incarnation: incarnation(2), predecessor, lane: 'urgent' })
    assert.equal((await log.append(entryOf(urgent.readings(1)))).code, 'accepted')

    await log.append(entryOf(late))
    assert.equal((await log.append(entryOf(first))).code, 'accepted')
    // Everything of a closed incarnation is delivered: what comes again is a repeat.
    assert.equal((await log.append(entryOf(late))).code, 'duplicate')
  })

  check('a declared gap fills its sequences and is a record of its own', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const gap: Gap = {
      count: 1000,
      reason: 'released',
      after: { high: 7, low: 7 },
      series: [],
      fromMs: undefined,
      toMs: undefined,
      atLeast: false,
    }
    const batch = agent.batch([
      { kind: 'gap', ...gap },
      { kind: 'readings', readings: [reading(), reading()] },
    ])
    const answer = await log.append(entryOf(batch))
    assert.equal(answer.held, 1002)
    assert.deepEqual(await countsOf(log, 'gaps'), [1])
    assert.deepEqual(await countsOf(log, 'readings'), [2])
  })

  check('many agents at once are each kept in their order', async ({ open }) => {
    await using log = await open()
    const agents = Array.from({ length: 20 }, (_, i) => new TestAgent({ name: `gw-${i}` }))
    await Promise.all(
      agents.map(async (agent) => {
        for (let i = 0; i < 10; i++) await log.append(entryOf(agent.readings(2)))
      }),
    )
    const next = new Map<string, number>()
    for (const { agent, first, last } of await batchesOf(log, { stream: 'readings' })) {
      assert.equal(first, next.get(agent) ?? 1)
      next.set(agent, last + 1)
    }
    assert.deepEqual([...next.values()], Array(20).fill(21))
    assert.deepEqual(await countsOf(log, 'readings'), Array(200).fill(2))
  })

  check('a lane that is appended to without waiting keeps its order', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const batches = Array.from({ length: 30 }, () => agent.readings(2))
    const answers = await Promise.all(batches.map((batch) => log.append(entryOf(batch))))
    assert.deepEqual(
      answers.map(({ code, held }) => [code, held]),
      batches.map(({ header }) => ['accepted', header.last]),
    )
  })

  check('what is held is remembered over a restart', async ({ open }) => {
    const agent = new TestAgent()
    const batch = agent.readings(7)
    {
      await using log = await open()
      await log.append(entryOf(batch))
    }
    await using log = await open()
    assert.deepEqual(await log.held('gw-001', incarnation(1), 'bulk'), {
      held: 7,
      chain: batch.header.after,
    })
    assert.deepEqual(await log.held('gw-001', incarnation(2), 'bulk'), {
      held: 0,
      chain: chainStart,
    })
    assert.equal((await log.append(entryOf(batch))).code, 'duplicate')
    assert.equal((await log.append(entryOf(agent.readings(1)))).code, 'accepted')
    assert.deepEqual(await countsOf(log, 'readings'), [7, 1])
  })

  check('a reader begins and ends at any offset', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    for (let i = 0; i < 10; i++) await log.append(entryOf(agent.readings(10)))
    const all = await batchesOf(log, { stream: 'readings' })
    const { partition } = all[0]!
    /** The offset of the n-th reading, from 0. */
    const at = (n: number) => all[Math.floor(n / 10)]!.feeds.readings.first + (n % 10)
    const sequencesOf = async (fromOffset?: number, toOffset?: number) =>
      (await batchesOf(log, { stream: 'readings', partition, fromOffset, toOffset })).map(
        ({ first }) => first,
      )
    assert.deepEqual(await sequencesOf(), [1, 11, 21, 31, 41, 51, 61, 71, 81, 91])
    assert.deepEqual(await sequencesOf(at(75)), [71, 81, 91])
    assert.deepEqual(await sequencesOf(at(35), at(50)), [31, 41])
    assert.deepEqual(await sequencesOf(at(35), at(50) + 1), [31, 41, 51])
    assert.deepEqual(await sequencesOf(at(99) + 1), [])
    const { first, next } = (await log.statistics(partition)).readings
    assert.ok(first <= at(0) && next > at(99))
    assert.deepEqual(await sequencesOf(next), [])
  })

  check('a reader begins and ends at any time', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    // Late ones in between, as after an outage.
    const minutes = [10, 11, 12, 3, 4, 13]
    for (const minute of minutes)
      await log.append(
        entryOf(
          agent.batch([
            { kind: 'readings', readings: [reading({ timeMs: minute * 60_000, value: minute })] },
          ]),
        ),
      )
    const between = async (fromMs: number, toMs: number) =>
      (await batchesOf(log, { stream: 'readings', fromMs, toMs })).map(
        ({ feeds }) => feeds.readings.fromMs / 60_000,
      )
    assert.deepEqual(await between(11 * 60_000, 13 * 60_000), [11, 12])
    assert.deepEqual(await between(0, 11 * 60_000), [10, 3, 4])
    assert.deepEqual(await between(13 * 60_000, 1e15), [13])
  })

  check('a tail gives what is there and then what comes, and ends on demand', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    await log.append(entryOf(agent.readings(2)))
    const stop = new AbortController()
    const partition = await partitionIn(log)
    const tail = log.read({ stream: 'readings', partition, follow: true, signal: stop.signal })
    const items = tail[Symbol.asyncIterator]()
    const next = async () => {
      const { value, done } = await items.next()
      return done ? undefined : (value as StoredBatch).first
    }
    assert.equal(await next(), 1)
    const waiting = next()
    await log.append(entryOf(agent.readings(2)))
    assert.equal(await waiting, 3)
    await log.append(entryOf(agent.readings(2)))
    assert.equal(await next(), 5)
    const last = next()
    stop.abort()
    assert.equal(await last, undefined)
  })

  check('readers that stop keep nobody from appending', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    await log.append(entryOf(agent.readings(2)))
    const stop = new AbortController()
    const partition = await partitionIn(log)
    const tail = { stream: 'readings', partition, follow: true, signal: stop.signal } as const
    const stopped = Array.from({ length: 50 }, () => log.read(tail)[Symbol.asyncIterator]())
    for (const reader of stopped) await reader.next()
    for (let i = 0; i < 20; i++) await log.append(entryOf(agent.readings(2)))
    assert.deepEqual(await countsOf(log, 'readings'), Array(21).fill(2))
    stop.abort()
    for (const reader of stopped) await reader.return?.()
  })

  check('the statistics say what each stream holds', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    const [one, two] = [
      entryOf(agent.readings(3)),
      entryOf(agent.readings(4, { ledger: { received: 7 } })),
    ]
    await log.append(one)
    await log.append(two)
    const { readings, ledger, alerts } = await log.statistics()
    const { first: _, next: __, ...held } = readings
    assert.deepEqual(held, {
      records: 7,
      batches: 2,
      bytes: one.body.length + two.body.length,
      fromMs: one.feeds.readings.fromMs,
      toMs: two.feeds.readings.toMs,
    })
    assert.equal(ledger.records, 1)
    assert.deepEqual([alerts.records, alerts.fromMs], [0, undefined])
  })

  check('a restarted agent drains what it held without an alarm', async ({ open }) => {
    await using log = await open()
    const before = new TestAgent()
    await log.append(entryOf(before.readings(2)))
    const predecessor = {
      incarnation: incarnation(1),
      last: { urgent: 0, bulk: 4, quarantine: 0 },
    }
    const urgent = new TestAgent({ incarnation: incarnation(2), predecessor, lane: 'urgent' })
    const bulk = new TestAgent({ incarnation: incarnation(2), predecessor })
    const alarms = []
    for (const batch of [
      urgent.readings(1),
      before.readings(2),
      bulk.readings(1),
      urgent.readings(1),
    ]) {
      const answer = await log.append(entryOf(batch))
      assert.equal(answer.code, 'accepted')
      if (answer.code === 'accepted') alarms.push(...answer.alarms)
    }
    assert.deepEqual(alarms, [])
  })

  check(
    'two incarnations that both go on raise a clone alarm, and are both heard',
    async ({ open }) => {
      await using log = await open()
      const origin = new TestAgent()
      await log.append(entryOf(origin.readings(2)))
      const predecessor = {
        incarnation: incarnation(1),
        last: { urgent: 0, bulk: 2, quarantine: 0 },
      }
      const one = new TestAgent({ incarnation: incarnation(2), predecessor })
      const two = new TestAgent({ incarnation: incarnation(3), predecessor })
      const alarms = []
      for (const agent of [one, two, one, two]) {
        const answer = await log.append(entryOf(agent.readings(2)))
        assert.equal(answer.code, 'accepted')
        alarms.push(answer.code === 'accepted' && answer.alarms)
      }
      assert.deepEqual(alarms, [[], ['restored'], ['clone'], ['clone']])
    },
  )

  check('a known agent without a predecessor raises an alarm', async ({ open }) => {
    await using log = await open()
    await log.append(entryOf(new TestAgent().readings(2)))
    const wiped = await log.append(
      entryOf(new TestAgent({ incarnation: incarnation(2) }).readings(2)),
    )
    assert.deepEqual(wiped.code === 'accepted' && wiped.alarms, ['unchained'])
  })

  check('what is held of every incarnation is remembered', async ({ open }) => {
    const sent: TestBatch[] = []
    {
      await using log = await open()
      let predecessor: TestAgent['predecessor']
      for (let id = 1; id <= 40; id++) {
        const agent = new TestAgent({ incarnation: incarnation(id), predecessor })
        const batch = agent.readings(id)
        const answer = await log.append(entryOf(batch))
        assert.deepEqual(
          [answer.code, answer.code === 'accepted' && answer.alarms],
          ['accepted', []],
        )
        predecessor = {
          incarnation: agent.incarnation,
          last: { urgent: 0, bulk: id, quarantine: 0 },
        }
        sent.push(batch)
      }
    }
    await using log = await open()
    for (const batch of sent) {
      const { last: held, after: chain } = batch.header
      assert.deepEqual(await log.append(entryOf(batch)), { code: 'duplicate', held, chain })
      assert.deepEqual(await log.held('gw-001', batch.header.incarnation, 'bulk'), { held, chain })
    }
    assert.equal((await countsOf(log, 'readings')).length, 40)
  })

  check('what several writers are given at once is taken once', async ({ open, shared }) => {
    await using one = await open()
    await using two = shared ? await open() : undefined
    const writers = [one, two ?? one]
    const agent = new TestAgent()
    for (let i = 0; i < 20; i++) {
      const batch = agent.readings(1 + i)
      const answers = await Promise.all(writers.map((log) => log.append(entryOf(batch))))
      assert.deepEqual(answers.map(({ code }) => code).sort(), ['accepted', 'duplicate'])
      assert.deepEqual(
        answers.map(({ held }) => held),
        [batch.header.last, batch.header.last],
      )
    }
    assert.deepEqual(
      await countsOf(one, 'readings'),
      Array.from({ length: 20 }, (_, i) => 1 + i),
    )
  })

  check('a lane may come by another writer at any batch', async ({ open, shared }) => {
    await using one = await open()
    await using two = shared ? await open() : undefined
    const writers = [one, two ?? one]
    let agent = new TestAgent()
    for (let i = 1; i <= 12; i++) {
      // A writer that knows the lane only from before would see a hole, or a fork.
      const batch = agent.readings(2)
      assert.equal((await writers[i % 2]!.append(entryOf(batch))).code, 'accepted')
      if (i % 4 > 0) continue
      const last = { urgent: 0, bulk: agent.next - 1, quarantine: 0 }
      const predecessor = { incarnation: agent.incarnation, last }
      agent = new TestAgent({ incarnation: incarnation(1 + i), predecessor })
    }
    assert.deepEqual(await countsOf(one, 'readings'), Array(12).fill(2))
  })

  check('of two histories given to two writers one is taken', async ({ open, shared }) => {
    await using one = await open()
    await using two = shared ? await open() : undefined
    const agent = new TestAgent()
    const twin = new TestAgent()
    twin.batch([{ kind: 'readings', readings: [reading({ value: -1 })] }])
    await one.append(entryOf(agent.readings(1)))
    const answers = await Promise.all([
      one.append(entryOf(agent.readings(5))),
      (two ?? one).append(entryOf(twin.readings(5))),
    ])
    assert.deepEqual(
      answers.map(({ code }) => code),
      ['accepted', 'fork'],
    )
    assert.deepEqual(await countsOf(one, 'readings'), [1, 5])
  })

  check('retention removes the oldest, and what was held stays known', async ({ open }) => {
    const agent = new TestAgent()
    const idle = new TestAgent({ name: 'gw-idle' })
    const sent: TestBatch[] = []
    const only = idle.readings(1)
    {
      await using log = await open({ retentionBytes: 64 * 1024 })
      await log.append(entryOf(only))
      for (let i = 0; i < 100; i++) {
        const batch = agent.batch([{ kind: 'readings', readings: noise(500) }])
        await log.append(entryOf(batch))
        sent.push(batch)
      }
      await log.retain()
      const kept = (await batchesOf(log, { stream: 'readings' })).filter(
        (batch) => batch.agent === 'gw-001',
      )
      const bytes = kept.reduce((sum, { body }) => sum + body.length, 0)
      assert.ok(kept.length > 0 && bytes <= 64 * 1024, `${bytes} bytes are kept`)
      assert.deepEqual(
        kept.map(({ first }) => first),
        sent.slice(-kept.length).map(({ header }) => header.first),
      )
      assert.ok((await readAll(log, { stream: 'readings' })).every(({ type }) => type === 'batch'))
    }
    await using log = await open({ retentionBytes: 64 * 1024 })
    for (const batch of [sent[0]!, sent[50]!, only])
      assert.equal((await log.append(entryOf(batch))).code, 'duplicate')
    assert.equal((await log.append(entryOf(idle.readings(1)))).code, 'accepted')
    assert.equal((await log.append(entryOf(agent.readings(1)))).code, 'accepted')
  })

  notesContract(check)

  check('a closed engine finishes what it took and takes nothing more', async ({ open }) => {
    const log = await open()
    const agent = new TestAgent()
    const taken = [log.append(entryOf(agent.readings(1))), log.append(entryOf(agent.readings(1)))]
    await Promise.all([log.close(), log.close()])
    for (const answer of await Promise.all(taken)) assert.equal(answer.code, 'accepted')
    await assert.rejects(log.append(entryOf(agent.readings(1))), { code: 'LOG_CLOSED' })
  })
}
