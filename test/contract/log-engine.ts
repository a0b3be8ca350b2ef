import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { readEntry } from '../../collector/ingest/entry.ts'
import type {
  Entry,
  LogEngine,
  LogItem,
  ReadRequest,
  StoredBatch,
} from '../../collector/log/engine.ts'
import type { Gap } from '../../shared/batch.ts'
import { chainStart } from '../../shared/chain.ts'
import type { Stream } from '../../shared/reading.ts'
import { incarnation, TestAgent, type TestBatch } from '../support/batches.ts'
import { reading } from '../support/readings.ts'

/** Storage of one test's own, on which the engine is opened, closed and opened again. */
export interface EngineStorage {
  open(): Promise<LogEngine>
}

export function entryOf(batch: TestBatch, arrivedMs = 1_767_225_600_000): Entry {
  const limits = { maxBodyBytes: 2 ** 20, maxInflatedBytes: 2 ** 23 }
  return readEntry(batch.body(), 'gzip', { ...limits, arrivedMs })
}

/** Reads to the end what is there. */
export async function readAll(log: LogEngine, request: ReadRequest): Promise<LogItem[]> {
  const items: LogItem[] = []
  for await (const item of log.read(request)) items.push(item)
  return items
}

async function batchesOf(log: LogEngine, request: ReadRequest): Promise<StoredBatch[]> {
  return (await readAll(log, request)).filter((item) => item.type === 'batch')
}

async function offsetsOf(log: LogEngine, stream: Stream): Promise<[number, number][]> {
  const batches = await batchesOf(log, { stream })
  return batches.map(({ feeds }) => [feeds[stream].first, feeds[stream].count])
}

/** What every log engine does, whatever it is made of. */
export function logEngineContract(
  name: string,
  storageOf: (t: TestContext) => Promise<EngineStorage>,
): void {
  const check = (title: string, body: (storage: EngineStorage) => Promise<void>) =>
    test(`${name}: ${title}`, async (t) => body(await storageOf(t)))

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
        partition: 0,
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
    assert.deepEqual(await offsetsOf(log, 'readings'), [[0, 10]])
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
    assert.deepEqual(await offsetsOf(log, 'readings'), [[0, 5]])
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
    assert.deepEqual(await offsetsOf(log, 'readings'), [[0, 5]])
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
    assert.deepEqual(await offsetsOf(log, 'gaps'), [[0, 1]])
    assert.deepEqual(await offsetsOf(log, 'readings'), [[0, 2]])
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
    let offset = 0
    for (const { agent, first, last, feeds } of await batchesOf(log, { stream: 'readings' })) {
      assert.equal(first, next.get(agent) ?? 1)
      next.set(agent, last + 1)
      assert.equal(feeds.readings.first, offset)
      offset += feeds.readings.count
    }
    assert.equal(offset, 400)
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
    assert.deepEqual(await offsetsOf(log, 'readings'), [
      [0, 7],
      [7, 1],
    ])
  })

  check('a reader begins and ends at any offset', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    for (let i = 0; i < 10; i++) await log.append(entryOf(agent.readings(10)))
    const firstsOf = async (fromOffset?: number, toOffset?: number) =>
      (await batchesOf(log, { stream: 'readings', fromOffset, toOffset })).map(
        ({ feeds }) => feeds.readings.first,
      )
    assert.deepEqual(await firstsOf(), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert.deepEqual(await firstsOf(75), [70, 80, 90])
    assert.deepEqual(await firstsOf(35, 50), [30, 40])
    assert.deepEqual(await firstsOf(35, 51), [30, 40, 50])
    assert.deepEqual(await firstsOf(100), [])
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
    const tail = log.read({ stream: 'readings', follow: true, signal: stop.signal })
    const items = tail[Symbol.asyncIterator]()
    const next = async () => {
      const { value, done } = await items.next()
      return done ? undefined : (value as StoredBatch).feeds.readings.first
    }
    assert.equal(await next(), 0)
    const waiting = next()
    await log.append(entryOf(agent.readings(2)))
    assert.equal(await waiting, 2)
    await log.append(entryOf(agent.readings(2)))
    assert.equal(await next(), 4)
    const last = next()
    stop.abort()
    assert.equal(await last, undefined)
  })

  check('readers that stop keep nobody from appending', async ({ open }) => {
    await using log = await open()
    const agent = new TestAgent()
    await log.append(entryOf(agent.readings(2)))
    const stopped = Array.from({ length: 50 }, () =>
      log.read({ stream: 'readings', follow: true })[Symbol.asyncIterator](),
    )
    for (const reader of stopped) await reader.next()
    for (let i = 0; i < 20; i++) await log.append(entryOf(agent.readings(2)))
    assert.equal((await log.statistics()).readings.records, 42)
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
    assert.deepEqual(readings, {
      records: 7,
      batches: 2,
      bytes: one.body.length + two.body.length,
      first: 0,
      next: 7,
      fromMs: one.feeds.readings.fromMs,
      toMs: two.feeds.readings.toMs,
    })
    assert.equal(ledger.records, 1)
    assert.deepEqual([alerts.records, alerts.fromMs, alerts.next], [0, undefined, 0])
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

  check('a closed engine finishes what it took and takes nothing more', async ({ open }) => {
    const log = await open()
    const agent = new TestAgent()
    const taken = [log.append(entryOf(agent.readings(1))), log.append(entryOf(agent.readings(1)))]
    await Promise.all([log.close(), log.close()])
    for (const answer of await Promise.all(taken)) assert.equal(answer.code, 'accepted')
    await assert.rejects(log.append(entryOf(agent.readings(1))), { code: 'LOG_CLOSED' })
  })
}
