import type { Clock, Random } from '../../shared/ports.ts'
import { Backoff } from './backoff.ts'
import { explainReason } from './explain.ts'
import { protocolFailure } from './failure.ts'
import mqttPacket from './mqtt-packet.ts'
import { covers, levelsOf } from './topic-filter.ts'

/** Filters in one SUBSCRIBE or UNSUBSCRIBE, at most, and their length, bytes. */
const maxFilters = 100
const maxFilterBytes = 64 * 1024

/** How long the broker may still have queued what it queued twice before it answered an UNSUBSCRIBE, ms. */
const queuedMs = 1_000

export interface SubscriptionsOptions {
  wanted: readonly string[]
  version5: boolean
  clock: Clock
  random: Random
  retry: { base: number; max: number }
  /** Sends a packet and expects an answer. */
  ask(packet: Uint8Array): void
  granted(filters: readonly string[]): void
  refused(filter: string, reason: string): void
  /** QoS 0 is all that the broker gives. */
  degraded(filter: string): void
}

/**
 * Brings the filters of the broker's session to what is wanted, on one connection. One packet is under way
 * at a time; what is refused is asked for again, later and later.
 */
export class Subscriptions {
  readonly #options: SubscriptionsOptions
  readonly #backoff: Backoff
  readonly #granted = new Set<string>()
  #joining: string[] = []
  #leaving: string[] = []
  #refused: string[] = []
  /** Filters that give way, and those that come for them, level by level. */
  #overlap: { old: string[][]; joining: string[][] } | undefined
  /** From then on, monotonic clock, no twins come any more. */
  #apartMs = Infinity
  #asked: { verb: 'subscribe' | 'unsubscribe'; packetId: number; filters: string[] } | undefined
  /** Ids from the top; those of our own publications start at 1. */
  #lastId = 65_535
  #cancelRetry = () => {}

  constructor(options: SubscriptionsOptions) {
    this.#options = options
    this.#backoff = new Backoff({ ...options.retry, clock: options.clock, random: options.random })
  }

  /**
   * With MQTT 3.1.1 only what the session lacks: at every SUBSCRIBE the broker sends its retained copies
   * again. With MQTT 5 everything: Retain Handling 1 spares the copies where the subscription is there,
   * and a broker that has forgotten one has it again.
   *
   * @param subscribed what the session has, as far as is known
   */
  start(subscribed: readonly string[]): void {
    const { wanted, version5 } = this.#options
    for (const filter of subscribed) this.#granted.add(filter)
    this.#leaving = subscribed.filter((filter) => !wanted.includes(filter))
    this.#joining = wanted.filter((filter) => version5 || !this.#granted.has(filter))
    if (this.#leaving.length > 0 && this.#joining.length > 0)
      this.#overlap = { old: this.#leaving.map(levelsOf), joining: this.#joining.map(levelsOf) }
    this.#step()
  }

  /** Asks for these again, although the session should have them. */
  renew(filters: readonly string[]): void {
    this.#joining.push(...filters.filter((filter) => !this.#joining.includes(filter)))
    this.#step()
  }

  /** Whether a topic may come twice now: the session has an old filter that takes it, and a new one. */
  twins(topic: string): boolean {
    if (!this.#overlap || this.#options.clock.monotonicMs() >= this.#apartMs) return false
    const parts = topic.split('/')
    const { old, joining } = this.#overlap
    return [old, joining].every((filters) => filters.some((levels) => covers(levels, parts)))
  }

  /** True while a SUBSCRIBE or UNSUBSCRIBE has no answer. */
  get waiting(): boolean {
    return this.#asked !== undefined
  }

  /** @throws SourceFailure when the answer does not fit the question */
  answered(
    verb: 'subscribe' | 'unsubscribe',
    packetId: number | undefined,
    codes: readonly number[],
  ): void {
    const asked = this.#asked
    if (asked?.verb !== verb || asked.packetId !== packetId)
      throw protocolFailure(`an answer to a ${verb} that was not sent`)
    if (verb === 'subscribe' && codes.length !== asked.filters.length)
      throw protocolFailure(`${codes.length} answers to ${asked.filters.length} subscriptions`)
    this.#asked = undefined
    if (verb === 'subscribe')
      for (const [i, filter] of asked.filters.entries()) this.#judge(filter, codes[i]!)
    else {
      for (const filter of asked.filters) this.#granted.delete(filter)
      if (this.#leaving.length === 0) this.#apartMs = this.#options.clock.monotonicMs() + queuedMs
    }
    this.#options.granted([...this.#granted])
    this.#step()
  }

  #judge(filter: string, code: number): void {
    const { granted, refused, degraded, version5 } = { ...this.#options, granted: this.#granted }
    if (code < 128) {
      granted.add(filter)
      if (code === 0) degraded(filter)
      return
    }
    granted.delete(filter)
    this.#refused.push(filter)
    const what = 'not authorised, or not possible: check what the broker lets this user read'
    refused(filter, version5 ? explainReason(code) : `${what} (code ${code})`)
  }

  #step(): void {
    if (this.#asked) return
    // What is left first would be lost until its successor is granted; what both take comes as twins.
    if (this.#joining.length > 0) this.#ask('subscribe', take(this.#joining))
    else if (this.#leaving.length > 0) this.#ask('unsubscribe', take(this.#leaving))
    else if (this.#refused.length > 0) {
      this.#cancelRetry()
      this.#cancelRetry = this.#options.clock.timer(this.#backoff.nextDelayMs(), () => {
        const again = this.#refused
        this.#refused = []
        this.renew(again)
      })
    }
  }

  #ask(verb: 'subscribe' | 'unsubscribe', filters: string[]): void {
    const { version5, ask } = this.#options
    const messageId = this.#lastId
    this.#lastId = messageId > 60_001 ? messageId - 1 : 65_535
    this.#asked = { verb, packetId: messageId, filters }
    const settings = { protocolVersion: version5 ? 5 : 4 }
    ask(
      verb === 'unsubscribe'
        ? mqttPacket.generate({ cmd: verb, messageId, unsubscriptions: filters }, settings)
        : mqttPacket.generate(
            {
              cmd: verb,
              messageId,
              subscriptions: filters.map((topic) => ({
                topic,
                qos: 1,
                nl: false,
                rap: false,
                rh: 1,
              })),
            },
            settings,
          ),
    )
  }

  close(): void {
    this.#cancelRetry()
  }
}

/** Takes as many filters off the front as go into one packet; at least one. */
function take(filters: string[]): string[] {
  let count = 0
  for (let bytes = 0; count < Math.min(filters.length, maxFilters); count++) {
    bytes += Buffer.byteLength(filters[count]!) + 3
    if (bytes > maxFilterBytes && count > 0) break
  }
  return filters.splice(0, count)
}
