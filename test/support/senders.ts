import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { incarnation, TestAgent, type TestBatch } from './batches.ts'
import { post } from './collector.ts'
import type { Seeded } from './seeded.ts'

/** Batches after which an agent starts anew, under a next incarnation. */
const batchesPerLife = 15

/** As an agent, which does not wait for ever either, and then asks whoever it is connected with next. */
const answerMs = 10_000

/** Agents that send one batch after the other, each until it is answered for, whatever happens. */
export class Senders {
  /** Batches answered for. */
  answers = 0
  /** Readings that the answers vouch for. */
  readings = 0
  readonly #random: Seeded
  readonly #urlOf: (agent: number) => string
  readonly #sending: Promise<void>[]
  #isStopping = false

  constructor(random: Seeded, agents: number, urlOf: (agent: number) => string) {
    this.#random = random
    this.#urlOf = urlOf
    this.#sending = Array.from({ length: agents }, (_, i) => this.#send(i))
    for (const sending of this.#sending) sending.catch(() => {})
  }

  /** Resolves after so many more answers; rejects when an agent was told something wrong. */
  async progress(answers: number, withinMs = 120_000): Promise<void> {
    const goal = this.answers + answers
    const endMs = performance.now() + withinMs
    while (this.answers < goal) {
      assert.ok(performance.now() < endMs, `${this.answers} of ${goal} answers in ${withinMs} ms`)
      await Promise.race([pause(20), Promise.race(this.#sending).then(() => pause(20))])
    }
  }

  /** Resolves once all that was begun is answered for. */
  async stop(): Promise<void> {
    this.#isStopping = true
    await Promise.all(this.#sending)
  }

  async #send(index: number): Promise<void> {
    let life = 1
    let agent = this.#agent(index, life, undefined)
    for (let sent = 0; !this.#isStopping; sent++) {
      if (sent > 0 && sent % batchesPerLife === 0) {
        life += 1
        const last = { urgent: 0, bulk: agent.next - 1, quarantine: 0 }
        agent = this.#agent(index, life, { incarnation: agent.incarnation, last })
      }
      const batch = agent.readings(1 + this.#random.below(100))
      await this.#deliver(index, batch)
    }
  }

  #agent(index: number, life: number, predecessor: TestAgent['predecessor']): TestAgent {
    const name = `gw-${index}`
    return new TestAgent({ name, incarnation: incarnation(life), predecessor })
  }

  async #deliver(index: number, batch: TestBatch): Promise<void> {
    const { first, last } = batch.header
    for (;;) {
      const url = this.#urlOf(index)
      const answer = await within(answerMs, post(url, batch.body(), { connection: 'close' }))
      if (answer?.status === 200) {
        assert.equal(answer.body.held, last, JSON.stringify(answer.body))
        this.answers += 1
        this.readings += last - first + 1
        return
      }
      assert.ok(!answer || answer.status === 503, JSON.stringify(answer?.body))
      await pause(100)
    }
  }
}

/** Undefined when it fails, or takes longer; it may go on. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  const over = new AbortController()
  const late = pause(ms, undefined, { signal: over.signal }).catch(() => undefined)
  return Promise.race([work.catch(() => undefined), late]).finally(() => over.abort())
}
