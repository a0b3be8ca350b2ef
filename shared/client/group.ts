import type { LogClient } from '../client.ts'
import { sleep } from '../clock.ts'
import type { Clock } from '../ports.ts'
import type { Stream } from '../reading.ts'
import { systemClock } from '../system.ts'
import { ClientFailure } from './failure.ts'
import { behind, decoded, type Lost, type StreamBatch, type StreamPassage } from './stream.ts'

export interface ConsumerOptions {
  client: LogClient
  group: string
  stream: Stream
  /** One name for each consumer of a group; it keeps it over its restarts. */
  consumer: string
  /** Time after which others take over what a consumer holds that is not heard; 30 s by default. */
  leaseMs?: number
  /** How often is looked for more at the end; 500 ms by default. */
  pollMs?: number
  /** Where a group begins that there is not yet. */
  from?: 'beginning' | 'end'
  clock?: Clock
}

interface Leased {
  session: string | undefined
  partitions: { partition: number; next: number }[]
}

/**
 * One consumer of a group. Each batch is given by at least one consumer of the group, in order within its
 * partition; what was not committed when a consumer ends is given again, by another or by the next of its name.
 */
export class GroupConsumer {
  readonly #options: Required<Omit<ConsumerOptions, 'client'>>
  readonly #client: LogClient
  readonly #path: string
  #session: string | undefined
  /** By partition that it holds, what it gives next. */
  #next = new Map<number, number>()

  constructor({ client, ...options }: ConsumerOptions) {
    this.#client = client
    this.#options = {
      leaseMs: 30_000,
      pollMs: 500,
      from: 'beginning',
      clock: systemClock,
      ...options,
    }
    const { group, stream } = options
    this.#path = `/v1/groups/${encodeURIComponent(group)}/${stream}`
  }

  /**
   * What the consumer's partitions bring, for ever; its leases are renewed meanwhile, also while the caller works.
   *
   * @throws ClientFailure when the collector refuses; `CLIENT_REFUSED` that answers `taken` when another
   *   consumer of this name has taken its place
   */
  batches(signal: AbortSignal): AsyncGenerator<StreamBatch | Lost> {
    return decoded(this.passages(signal))
  }

  /** As `batches`, not inflated. */
  async *passages(signal: AbortSignal): AsyncGenerator<StreamPassage> {
    const { clock, leaseMs, pollMs } = this.#options
    const ended = new AbortController()
    const until = AbortSignal.any([signal, ended.signal])
    await this.#lease(until)
    const renewing = this.#renew(leaseMs / 3, until)
    // Told where it is waited for; until then it must not end the process.
    renewing.catch(() => ended.abort())
    try {
      while (!until.aborted) {
        let isIdle = true
        for (const [partition] of [...this.#next])
          for await (const batch of this.#read(partition, until)) {
            isIdle = false
            yield batch
          }
        if (isIdle) await sleep(clock, pollMs, until).catch(() => {})
      }
      if (!signal.aborted) await renewing
    } finally {
      ended.abort()
    }
  }

  /**
   * Says that all of a partition is done with, up to and with this batch. Resolves once that survives a power cut.
   *
   * @returns false when the partition is not this consumer's any more: somebody reads it again
   */
  async commit(batch: StreamBatch | StreamPassage, signal?: AbortSignal): Promise<boolean> {
    const body = { session: this.#session, next: { [batch.partition]: behind(batch) } }
    try {
      await this.#client.persist(
        () => this.#client.post(`${this.#path}/commit`, body, signal),
        signal,
      )
      return true
    } catch (error) {
      if ((error as ClientFailure).answer.code !== 'lost') throw error
      this.#next.delete(batch.partition)
      return false
    }
  }

  /** Gives back what it holds, at once. */
  async leave(): Promise<void> {
    if (this.#session) await this.#client.post(`${this.#path}/leave`, { session: this.#session })
    this.#session = undefined
    this.#next.clear()
  }

  /** To the end of what a partition has, as long as it is held; what fails for now is read later. */
  async *#read(partition: number, signal: AbortSignal): AsyncGenerator<StreamPassage> {
    const { stream } = this.#options
    const from = { offset: this.#next.get(partition) ?? 0 }
    try {
      for await (const passage of this.#client.passages({ stream, partition, from, signal })) {
        if (!this.#next.has(partition)) return
        // It begins in the middle of a batch only where somebody has set the cursor so.
        this.#next.set(partition, behind(passage))
        yield passage
        if (!this.#next.has(partition)) return
      }
    } catch (error) {
      if (!(error instanceof ClientFailure && error.retry)) throw error
    }
  }

  async #renew(everyMs: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.#options.clock, everyMs, signal).catch(() => {})
      if (!signal.aborted) await this.#lease(signal)
    }
  }

  async #lease(signal: AbortSignal): Promise<void> {
    const { consumer, leaseMs, from } = this.#options
    const body = { consumer, leaseMs, from, ...(this.#session && { session: this.#session }) }
    const { session, partitions } = (await this.#client
      .persist(() => this.#client.post(`${this.#path}/lease`, body, signal), signal)
      .catch((error: ClientFailure) => {
        if (error.answer.code !== 'ended') throw error
        // It was not heard for too long: others have what it had.
        this.#session = undefined
        this.#next.clear()
        return { session: undefined, partitions: [] }
      })) as Leased
    if (!session) return this.#lease(signal)
    this.#session = session
    const held = new Map(partitions.map(({ partition, next }) => [partition, next]))
    for (const partition of this.#next.keys())
      if (!held.has(partition)) this.#next.delete(partition)
    for (const [partition, next] of held)
      if (!this.#next.has(partition)) this.#next.set(partition, next)
  }
}
