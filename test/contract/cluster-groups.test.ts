import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TestAgent } from '../support/batches.ts'
import { clusterEngines, startCluster } from '../support/cluster.ts'
import { send } from '../support/collector.ts'
import { effort } from '../support/effort.ts'
import { poll } from '../support/poll.ts'

const kills = effort('HEADGATE_GROUP_TAKEOVERS', { quick: 1, inCi: 2, inFull: 40 })
const agents = 6
const batchReadings = 20
const leaseMs = 3_000

interface Leased {
  session: string
  partitions: { partition: number; next: number; first: number; end: number }[]
}

/** Asks until some collector answers. */
async function ask(
  url: string,
  verb: string,
  body: object,
): Promise<{ status: number; body: unknown }> {
  return poll(
    async () => {
      const answer = await fetch(`${url}/v1/groups/etl/readings/${verb}`, {
        method: 'POST',
        headers: { connection: 'close' },
        body: JSON.stringify(body),
      }).catch(() => undefined)
      if (!answer || answer.status === 503) return undefined
      return { status: answer.status, body: await answer.json() }
    },
    `a collector answers ${verb}`,
    60_000,
  )
}

/** Reads what it leases and commits it, by whichever collector answers, as a client would. */
class Reader {
  readonly #url: string
  readonly #name: string
  #session: string | undefined

  constructor(url: string, name: string) {
    this.#url = url
    this.#name = name
  }

  /** Reads what is there; `read` is told of each record, `committed` of each cursor that was answered for. */
  async step(seen: {
    leased(partition: number, next: number): void
    read(partition: number, line: { agent: string; sequence: number }): void
    committed(partition: number, next: number): void
  }): Promise<void> {
    const asked = {
      consumer: this.#name,
      leaseMs,
      ...(this.#session && { session: this.#session }),
    }
    const { status, body } = await ask(this.#url, 'lease', asked)
    if (status === 409) {
      this.#session = undefined
      return
    }
    assert.equal(status, 200, JSON.stringify(body))
    const { session, partitions } = body as Leased
    this.#session = session
    for (const { partition, next, end } of partitions) {
      seen.leased(partition, next)
      if (next >= end) continue
      const query = `partition=${partition}&from=${next}&to=${end}`
      const text = await poll(async () => {
        const headers = { connection: 'close' }
        const address = `${this.#url}/v1/streams/readings/records?${query}`
        const answer = await fetch(address, { headers }).catch(() => undefined)
        return answer?.ok ? answer.text().catch(() => undefined) : undefined
      }, 'the records are read')
      for (const line of text.split('\n').filter((each) => each !== ''))
        seen.read(partition, JSON.parse(line))
      const commit = await ask(this.#url, 'commit', { session, next: { [partition]: end } })
      if (commit.status === 200) seen.committed(partition, end)
      else assert.equal(commit.status, 409, JSON.stringify(commit.body))
    }
  }
}

for (const engine of Object.keys(clusterEngines))
  test(`${engine}: over ${kills} kills of the collector that is asked a group misses nothing, and no cursor that was answered for is lost`, async (t) => {
    const cluster = await startCluster(t, engine)
    if (!cluster) return
    const { clouds, url } = cluster
    const sources = Array.from({ length: agents }, (_, i) => new TestAgent({ name: `gw-${i}` }))
    let sent = 0
    const sendSome = async () => {
      for (const agent of sources) {
        const batch = agent.readings(batchReadings)
        const taken = async () => (await send(url, batch).catch(() => undefined))?.status === 200
        await poll(taken, 'the batch is taken', 60_000)
        sent += batchReadings
      }
    }
    const cursors = new Map<number, number>()
    const distinct = new Set<string>()
    const seen = {
      leased: (partition: number, next: number) => {
        const committed = cursors.get(partition) ?? 0
        assert.ok(
          next >= committed,
          `${partition} is at ${next}, and ${committed} was answered for`,
        )
      },
      read: (_: number, { agent, sequence }: { agent: string; sequence: number }) => {
        if (sequence > 1) assert.ok(distinct.has(`${agent} ${sequence - 1}`), 'in order')
        distinct.add(`${agent} ${sequence}`)
      },
      committed: (partition: number, next: number) => cursors.set(partition, next),
    }
    const readers = [new Reader(url, 'x'), new Reader(url, 'y')]
    const caughtUp = async () => {
      for (const reader of readers) await reader.step(seen)
      return distinct.size === sent
    }
    for (let kill = 0; kill < kills; kill++) {
      await sendSome()
      await poll(caughtUp, 'all is read', 60_000)
      await sendSome()
      const cloud = clouds[kill % clouds.length]!
      const stepping = readers[0]!.step(seen)
      await cloud.kill()
      await stepping
      await sendSome()
      await poll(caughtUp, 'all is read without that collector', 60_000)
      await cloud.start()
    }
    // Leases of a reader that is gone end, and the other has all.
    const last = readers[1]!
    await sendSome()
    await poll(
      async () => {
        await last.step(seen)
        return distinct.size === sent
      },
      'what one had the other has',
      60_000,
    )
    t.diagnostic(`${sent} readings, cursors ${[...cursors.values()].join(', ')}`)
  })
