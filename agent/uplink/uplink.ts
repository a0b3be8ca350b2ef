import { z } from 'zod'
import { compress, encodeBatch, mergeItems } from '../../shared/batch.ts'
import { sameChain } from '../../shared/chain.ts'
import { duration, filePath, size } from '../../shared/config.ts'
import type { Logger } from '../../shared/log.ts'
import type { Clock, HttpLink, Random } from '../../shared/ports.ts'
import { type Lane, lanes } from '../../shared/reading.ts'
import type { Cut, CutLimits, Outbox } from '../outbox/outbox.ts'
import { chooseLane, type Outcome, readAnswer, retryDelayMs } from './policy.ts'

export const uplinkSchema = z.strictObject({
  /** The collector's address, http or https; a path in front of `/v1/batches` is kept. */
  url: z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' }),
  /** PEM file with the authority that signed the collector's certificate. */
  ca: filePath().optional(),
  /** A proxy on the way to the collector, `http://[user:password@]host:port`; it is asked to CONNECT. */
  proxy: z
    .url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' })
    .optional(),
  /** File with the token that a collector behind a proxy asks for; a fleet's collector needs none. */
  tokenFile: filePath().optional(),
  retry: z
    .strictObject({
      base: duration({ min: '10ms', max: '10m' }).prefault('20s'),
      max: duration({ min: '10ms', max: '1h' }).prefault('60s'),
    })
    .prefault({}),
  batch: z
    .strictObject({
      maxReadings: z.int().min(1).max(50_000).default(10_000),
      maxBytes: size({ min: '1KiB', max: '1MiB' }).prefault('256KiB'),
      maxAge: duration({ min: '0ms', max: '1h' }).prefault('1s'),
    })
    .prefault({}),
  /** Time from the first byte sent to the last byte of the answer. */
  timeout: duration({ min: '1s', max: '10m' }).prefault('30s'),
  compression: z.enum(['zstd', 'gzip', 'none']).default('zstd'),
})
export type UplinkConfig = z.infer<typeof uplinkSchema>

/** Entries with fewer sequences than this are encoded anew as one, once, when a batch closes. */
const mergeBelow = 500
/** A smaller body goes as it is: to set up a compressor costs more than the some hundred bytes that it saves. */
const worthCompressing = 512
/** The ledger travels this often. */
const ledgerEveryMs = 10_000
/** Readings set aside without one being accepted in between, after which the uplink waits. */
const maxRefusedInRow = 16

export type UplinkState =
  | { phase: 'idle' }
  | { phase: 'sending'; lane: Lane; first: number; last: number; attempt: number }
  | { phase: 'waiting'; attempt: number; untilMonotonicMs: number; reason: string }

export interface UplinkStatus {
  state: UplinkState
  /** Wall time of the last durable answer, ms. */
  lastAnsweredMs: number | undefined
  lastFailure: string | undefined
  batches: number
  /** Bytes of request bodies, answered or not. */
  wireBytes: number
  retries: number
  duplicates: number
  holes: number
  forks: number
  refused: number
  released: number
}

export interface UplinkOptions {
  outbox: Outbox
  link: HttpLink
  clock: Clock
  random: Random
  log: Logger
  agent: string
  config: UplinkConfig
  /**
   * What was received before this is in the outbox, or gone from it, as far as it will ever be, wall clock, ms;
   * undefined while nobody knows.
   */
  decidedMs?: () => number | undefined
}

/** A batch that is closed: what it covers and its items, merged, ready for a header. */
interface Prepared {
  cut: Cut
  items: Uint8Array[]
}

/**
 * Carries the outbox to the collector, one batch at a time, and deletes only what the collector holds
 * durably. It decides nothing about readings: what an answer means is in `policy.ts`, what happens to
 * sequences in the outbox.
 */
export class Uplink {
  readonly #options: UplinkOptions
  readonly #prepared: Partial<Record<Lane, Prepared>> = {}
  /** Sequences a batch may have, per lane: halved where the collector refuses or the link is too slow. */
  readonly #maxCount: Record<Lane, number>
  /** What the link was too slow for, per lane, and a little more with each batch that gets through. */
  readonly #ceiling: Record<Lane, number>
  readonly #passedOver: Record<Lane, number> = { urgent: 0, bulk: 0, quarantine: 0 }
  readonly #status: UplinkStatus = {
    state: { phase: 'idle' },
    lastAnsweredMs: undefined,
    lastFailure: undefined,
    batches: 0,
    wireBytes: 0,
    retries: 0,
    duplicates: 0,
    holes: 0,
    forks: 0,
    refused: 0,
    released: 0,
  }
  #encoding: 'zstd' | 'gzip' | 'identity'
  /** Smaller bodies go as they are, unless a collector wants none such. */
  #worthCompressing = worthCompressing
  /** Bytes of bodies sent, answered or not, since the outbox last counted them. */
  #wireBytes = 0
  #attempt = 0
  #refusedInRow = 0
  #ledgerSentMs = Number.NEGATIVE_INFINITY
  #flushing = false
  #finishing = false
  #wake: (() => void) | undefined
  /** When it wakes by itself, monotonic clock, ms. */
  #wakesMs = Number.POSITIVE_INFINITY

  constructor(options: UplinkOptions) {
    this.#options = options
    const { maxReadings } = options.config.batch
    this.#maxCount = { urgent: maxReadings, bulk: maxReadings, quarantine: maxReadings }
    this.#ceiling = { ...this.#maxCount }
    this.#encoding = options.config.compression === 'none' ? 'identity' : options.config.compression
  }

  get status(): Readonly<UplinkStatus> {
    return this.#status
  }

  /** Sends what waits without regard to age, and tries again at once if it waits for a retry. */
  flush(): void {
    this.#flushing = true
    this.#wake?.()
  }

  /** Ends `run` once the batch on its way is answered; what waits is left to another uplink. */
  finish(): void {
    this.#finishing = true
    this.#wake?.()
  }

  /**
   * Runs until `finish`, or until `signal` aborts: a batch on its way is then given up, to be sent again after
   * the next start.
   *
   * @throws OutboxFailure when the outbox fails
   */
  async run(signal: AbortSignal): Promise<void> {
    const stopListening = this.#options.outbox.onCommit(() => this.#committed())
    const stop = () => this.#wake?.()
    signal.addEventListener('abort', stop)
    try {
      while (!signal.aborted && !this.#finishing) {
        const lane = this.#nextLane()
        if (!lane) {
          this.#flushing = false
          this.#status.state = { phase: 'idle' }
          await this.#sleep(this.#nextDueMs(), signal)
        } else await this.#deliver(lane, signal)
      }
    } finally {
      stopListening()
      signal.removeEventListener('abort', stop)
    }
  }

  async #deliver(lane: Lane, signal: AbortSignal): Promise<void> {
    const { maxBytes } = this.#options.config.batch
    const prepared =
      this.#prepared[lane] ??
      (await this.#prepare({ maxCount: this.#maxCount[lane], maxBytes }, lane))
    if (!prepared) return
    this.#prepared[lane] = prepared
    const { cut } = prepared
    this.#status.state = {
      phase: 'sending',
      lane,
      first: cut.first,
      last: cut.last,
      attempt: this.#attempt,
    }
    const { outcome, bytes } = await this.#post(prepared, signal)
    if (signal.aborted) return
    this.#status.batches += 1
    this.#status.wireBytes += bytes
    this.#wireBytes += bytes
    const answered = outcome.kind !== 'unknown' && outcome.kind !== 'busy'
    // Only an answer that is the collector's own ends the batch; until then it is sent again as it is.
    if (answered) delete this.#prepared[lane]
    const failure = await this.#settle(cut, outcome)
    if (failure === undefined) {
      if (this.#attempt > 0) this.#options.log.info({ lane }, 'uplink works again')
      this.#attempt = 0
      this.#status.lastFailure = undefined
      this.#status.lastAnsweredMs = this.#options.clock.wallMs()
      for (const other of lanes) this.#passedOver[other] += 1
      this.#passedOver[lane] = 0
    } else await this.#backOff(failure, outcome.kind === 'busy' ? outcome.retryAfterMs : 0, signal)
  }

  /** Does what an outcome asks for. Returns why to wait before the next try, or undefined to go on. */
  async #settle(cut: Cut, outcome: Outcome): Promise<string | undefined> {
    const { outbox, log } = this.#options
    const { lane } = cut
    switch (outcome.kind) {
      case 'accepted':
        if (outcome.held !== cut.last)
          return `accepted up to ${outcome.held} instead of ${cut.last}`
        this.#grow(lane)
        this.#refusedInRow = 0
        await outbox.release(cut, { wireBytes: this.#wireBytes })
        this.#wireBytes = 0
        return undefined
      case 'duplicate':
        this.#status.duplicates += 1
        return this.#releaseHeld(cut, outcome)
      case 'hole': {
        this.#status.holes += 1
        const incarnation = outcome.incarnation ?? cut.incarnation.id
        const count = await outbox.declareReleased(cut, { ...outcome, incarnation })
        if (count === 0)
          return `it asks for sequences behind ${outcome.held} of lane ${lane}, which make no sense here`
        this.#status.released += count
        log.error(
          { lane, held: outcome.held, count },
          'the collector holds less than was delivered (restored or changed?): declared as released',
        )
        return undefined
      }
      case 'fork':
        return this.#fork(cut)
      case 'refused':
        return this.#bisect(cut, outcome.reason)
      case 'encoding': {
        const next = (['zstd', 'gzip', 'identity'] as const).find(
          (name) =>
            name !== this.#encoding && (name === 'identity' || outcome.accepted.includes(name)),
        )
        if (this.#encoding === 'identity' || !next) return 'it takes none of our content encodings'
        this.#encoding = next
        return undefined
      }
      case 'busy':
        return `busy: ${outcome.reason}`
      case 'unknown':
        // A link that cannot carry a batch within the time limit carries a smaller one.
        if (outcome.timedOut && cut.last > cut.first) {
          this.#ceiling[lane] = cut.last - cut.first
          this.#maxCount[lane] = Math.ceil((cut.last - cut.first + 1) / 2)
          delete this.#prepared[lane]
        }
        return outcome.reason
    }
  }

  /** The collector holds a part of the cut, or all and more: releases what it provably holds. */
  async #releaseHeld(
    cut: Cut,
    { held, chain }: { held: number; chain: Cut['after'] },
  ): Promise<string | undefined> {
    const { outbox } = this.#options
    if (held < cut.first) return `duplicate, although it holds only ${held}`
    // The current incarnation cannot be ahead of itself, so another process sends under its name.
    if (outbox.isCurrent(cut.incarnation) && held > outbox.numberedTo(cut.incarnation, cut.lane))
      return this.#fork(cut)
    // Before anything is deleted: it may be another history, as far as it goes.
    const here = await outbox.chainAt(cut, held)
    if (here && !sameChain(here, chain)) return this.#fork(cut)
    const { maxReadings: maxCount, maxBytes } = this.#options.config.batch
    // Step by step, since it may hold far more than one batch of what is still here.
    for (;;) {
      const step = await outbox.cut(cut.lane, { maxCount, maxBytes, last: held })
      // All that is left of a closed incarnation is thereby delivered, if it holds more.
      if (step?.incarnation.ordinal !== cut.incarnation.ordinal) return undefined
      await outbox.release(step.last === held ? { ...step, after: chain } : step)
      if (step.last === held) return undefined
    }
  }

  async #fork(cut: Cut): Promise<undefined> {
    this.#status.forks += 1
    for (const lane of lanes) delete this.#prepared[lane]
    this.#options.log.error(
      { lane: cut.lane, first: cut.first },
      'the collector holds another history of this incarnation (was a snapshot resumed twice?): numbering the rest anew',
    )
    await this.#options.outbox.renumber(cut.incarnation.ordinal)
  }

  /** Halves a refused batch until the one bad sequence stands alone, and sets that one aside. */
  async #bisect(cut: Cut, reason: string): Promise<string | undefined> {
    const { outbox, log } = this.#options
    const single = cut.items.length === 1 ? cut.items[0] : undefined
    if (single?.gap) return `it refuses a gap: ${reason}`
    if (cut.last > cut.first) {
      this.#maxCount[cut.lane] = Math.ceil((cut.last - cut.first + 1) / 2)
      return undefined
    }
    log.error(
      { lane: cut.lane, sequence: cut.first, reason },
      'the collector refuses one reading: set aside',
    )
    this.#status.refused += 1
    await outbox.refuse(cut, reason)
    this.#refusedInRow += 1
    return this.#refusedInRow % maxRefusedInRow === 0
      ? `it refuses everything: ${reason}`
      : undefined
  }

  #grow(lane: Lane): void {
    const { maxReadings } = this.#options.config.batch
    this.#ceiling[lane] = Math.min(maxReadings, Math.ceil(this.#ceiling[lane] * 1.05))
    this.#maxCount[lane] = Math.min(this.#ceiling[lane], this.#maxCount[lane] * 2)
  }

  async #prepare(limits: CutLimits, lane: Lane): Promise<Prepared | undefined> {
    const cut = await this.#options.outbox.cut(lane, limits)
    return cut && { cut, items: merge(cut.items) }
  }

  async #post(
    { cut, items }: Prepared,
    signal: AbortSignal,
  ): Promise<{ outcome: Outcome; bytes: number }> {
    const { agent, clock, link, config, outbox } = this.#options
    const nowMs = clock.monotonicMs()
    const withLedger = nowMs - this.#ledgerSentMs >= ledgerEveryMs
    // Before the time of sending is read: nothing is settled that is yet to come.
    const ledger = withLedger ? { ...outbox.ledger, ...this.#settled(cut) } : undefined
    const chunks = encodeBatch(
      {
        agent,
        incarnation: cut.incarnation.id,
        lane: cut.lane,
        first: cut.first,
        last: cut.last,
        before: cut.before,
        after: cut.after,
        predecessor:
          cut.first === 1
            ? cut.incarnation.predecessor && {
                incarnation: cut.incarnation.predecessor.id,
                last: cut.incarnation.predecessor.last,
              }
            : undefined,
        boot: cut.incarnation.boot,
        sentMs: clock.wallMs(),
        ledger,
      },
      items,
    )
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
    const encoding = length < this.#worthCompressing ? 'identity' : this.#encoding
    const body = compress(chunks, encoding)
    const headers = {
      'content-type': 'application/cbor',
      ...(encoding !== 'identity' && { 'content-encoding': encoding }),
    }
    try {
      const answer = await link.post(
        { path: '/v1/batches', headers, body, timeoutMs: config.timeout },
        signal,
      )
      const outcome = readAnswer(answer)
      if (outcome.kind === 'encoding' && encoding !== this.#encoding) {
        this.#worthCompressing = 0
        const reason = 'it takes no body without a content encoding'
        return { outcome: { kind: 'unknown', reason, timedOut: false }, bytes: body.length }
      }
      if (outcome.kind === 'accepted' && withLedger) this.#ledgerSentMs = nowMs
      return { outcome, bytes: body.length }
    } catch (error) {
      const timedOut = (error as Error).name === 'TimeoutError'
      return {
        outcome: { kind: 'unknown', reason: explain(error, config), timedOut },
        bytes: body.length,
      }
    }
  }

  /**
   * What was received before this is not here any more once the cut is answered for: it was delivered, declared
   * gone, or left out by the filter.
   */
  #settled(cut: Cut): { settledMs?: number } {
    const { outbox, decidedMs } = this.#options
    let settledMs = decidedMs?.()
    if (settledMs === undefined) return {}
    for (const lane of lanes) {
      const { entries, oldestMs = Infinity } = outbox.stock(lane)
      if (lane !== cut.lane) settledMs = Math.min(settledMs, oldestMs)
      // Behind the cut there may be what was committed since it was read: no older than the cut itself.
      else if (entries > cut.entries) settledMs = Math.min(settledMs, cut.nextMs ?? cut.oldestMs)
    }
    return { settledMs: Math.floor(settledMs) }
  }

  async #backOff(reason: string, atLeastMs: number, signal: AbortSignal): Promise<void> {
    const { clock, random, config, log } = this.#options
    this.#attempt += 1
    this.#status.retries += 1
    this.#status.lastFailure = reason
    const delayMs = Math.max(atLeastMs, retryDelayMs(this.#attempt, config.retry, random.uniform()))
    const untilMonotonicMs = clock.monotonicMs() + delayMs
    // The first failure is news; after that once in a while is enough.
    const level = this.#attempt === 1 || this.#attempt % 10 === 0 ? 'warn' : 'debug'
    log[level](
      { attempt: this.#attempt, retryInMs: Math.round(delayMs) },
      `not forwarded, kept: ${reason}`,
    )
    this.#flushing = false
    const goesOn = () => !signal.aborted && !this.#flushing && !this.#finishing
    while (goesOn() && clock.monotonicMs() < untilMonotonicMs) {
      this.#status.state = { phase: 'waiting', attempt: this.#attempt, untilMonotonicMs, reason }
      await this.#sleep(untilMonotonicMs - clock.monotonicMs(), signal)
    }
  }

  /** The lane whose turn it is, of those that are due: full, old enough, urgent, or asked to flush. */
  #nextLane(): Lane | undefined {
    const due = new Set(lanes.filter((lane) => this.#dueInMs(lane) <= 0))
    return chooseLane(due, this.#passedOver)
  }

  #dueInMs(lane: Lane): number {
    const { outbox, clock, config } = this.#options
    const { maxBytes, maxAge } = config.batch
    const stock = outbox.stock(lane)
    if (stock.entries === 0) return Number.POSITIVE_INFINITY
    const full = stock.sequences >= this.#maxCount[lane] || stock.bytes >= maxBytes
    if (full || this.#flushing || lane === 'urgent' || this.#prepared[lane]) return 0
    return maxAge - (clock.monotonicMs() - outbox.waitingSinceMs(lane))
  }

  #nextDueMs(): number {
    return Math.min(...lanes.map((lane) => this.#dueInMs(lane)))
  }

  /** A commit may have made a lane due before what was slept for. In the way of a retry it is of no use. */
  #committed(): void {
    if (!this.#wake || this.#status.state.phase !== 'idle') return
    const dueMs = this.#options.clock.monotonicMs() + this.#nextDueMs()
    // Sums of the same times differ in their last digits.
    if (dueMs < this.#wakesMs - 1) this.#wake()
  }

  /** Until a flush, the signal, what a commit makes due, or `ms` have passed. */
  #sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted || this.#finishing) return resolve()
      const { clock } = this.#options
      this.#wakesMs = clock.monotonicMs() + ms
      const cancel = Number.isFinite(ms) ? clock.timer(ms, () => this.#wake?.()) : () => {}
      this.#wake = () => {
        this.#wake = undefined
        cancel()
        resolve()
      }
    })
  }
}

/** Encodes runs of small items anew as one; large ones go as they are. */
function merge(items: Cut['items']): Uint8Array[] {
  const merged: Uint8Array[] = []
  let small: Uint8Array[] = []
  const flush = () => {
    merged.push(...(small.length > 1 ? mergeItems(small) : small))
    small = []
  }
  for (const { bytes, count } of items) {
    if (count >= mergeBelow) {
      flush()
      merged.push(bytes)
    } else small.push(bytes)
  }
  flush()
  return merged
}

function explain(error: unknown, { url, proxy }: UplinkConfig): string {
  const { name, code, message } = error as { name?: string; code?: string; message?: string }
  if (name === 'TimeoutError') return `the collector at ${url} did not answer in time`
  if (proxy && (code === 'ECONNREFUSED' || code === 'ENOTFOUND'))
    return `the proxy at ${new URL(proxy).host} cannot be reached (${code}): check uplink.proxy`
  if (code === 'ECONNREFUSED')
    return `nothing listens at ${url}: is the collector running, is uplink.url right?`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return `${url}: the name does not resolve: check uplink.url and DNS`
  const tls = tlsAdvice(code ?? '')
  if (tls) return `${url}: ${tls} (${code})`
  return `${url}: ${code ?? ''} ${message ?? String(error)}`.trim()
}

/** What is wrong with a collector's certificate, by the codes of OpenSSL. */
function tlsAdvice(code: string): string | undefined {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return 'its certificate is for another name: use that one in uplink.url'
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
    return "its certificate is not valid now: check it, and this machine's clock"
  if (/SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|CERT_UNTRUSTED/.test(code))
    return 'its certificate is signed by nobody we trust: set uplink.ca to the file of its CA'
  return undefined
}
