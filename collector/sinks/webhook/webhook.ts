import { createHash } from 'node:crypto'
import type { Stream } from '../../../shared/reading.ts'
import type { LogRecord } from '../../fanout/record.ts'
import { rowOf } from '../columns.ts'
import { answerFailure, HttpOutput, readSecret, reasonOf } from '../http/http-output.ts'
import { rowJson, timestampText } from '../row-json.ts'
import { type Refuse, type Sink, type SinkContext, SinkFailure, type Slice } from '../sink.ts'
import type { WebhookConfig } from '../webhook.ts'
import { Cuts } from './cuts.ts'
import { parseSecrets, signedHeaders } from './signature.ts'

/** How long the rest of a request that was cut before is waited for; it is in the log already. */
const holdMs = 10_000

/** Somebody has taken the receiver away: it is asked again, since only a person can tell for how long. */
const goneRetryMs = 3_600_000

/** Consecutive records of one partition that go in one request. */
interface Part {
  from: number
  to: number
  records: readonly LogRecord[]
}

/**
 * Signed batches by POST. A repeat has the webhook-id of the first try, over restarts too: the id is made of
 * the offsets, and where a request was cut is remembered before it goes out.
 */
export class Webhook implements Sink {
  readonly holdMs = holdMs
  readonly #config: WebhookConfig
  readonly #context: SinkContext
  readonly #http: HttpOutput
  readonly #cuts: Cuts
  /** By partition what has come of a request that is to be cut as before, and has not come whole. */
  readonly #begun = new Map<number, Slice>()
  #refuse: Refuse = async () => {}

  static async open(config: WebhookConfig, context: SinkContext): Promise<Sink> {
    return new Webhook(config, context, new Cuts(context.kept))
  }

  private constructor(config: WebhookConfig, context: SinkContext, cuts: Cuts) {
    this.#config = config
    this.#context = context
    this.#cuts = cuts
    this.#http = new HttpOutput({ url: config.url, ca: config.ca, timeoutMs: config.timeout })
  }

  async write(slice: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable' | 'held'> {
    this.#refuse = refuse
    if (slice.again) {
      for (const part of this.#divide(slice)) await this.#post(slice, part, refuse, signal)
      return this.#begun.size > 0 ? 'held' : 'durable'
    }
    const { partition } = slice
    const begun = this.#begun.get(partition)
    const whole = begun
      ? { ...slice, from: begun.from, records: [...begun.records, ...slice.records] }
      : slice
    const before = this.#cuts.at(partition, whole.from)
    if (before && whole.to < before.at(-1)!) {
      this.#begun.set(partition, whole)
      return 'held'
    }
    await this.#send(whole, before ?? [whole.from], refuse, signal)
    return this.#begun.size > 0 ? 'held' : 'durable'
  }

  /** Only when the log no longer has what it had: what came goes out, cut as it may. */
  async flush(signal: AbortSignal): Promise<void> {
    for (const slice of [...this.#begun.values()])
      await this.#send(slice, [slice.from], this.#refuse, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http[Symbol.asyncDispose]()
  }

  /** @param before where it was cut before, from its beginning; a beginning alone where it was not */
  async #send(
    slice: Slice,
    before: readonly number[],
    refuse: Refuse,
    signal: AbortSignal,
  ): Promise<void> {
    const parts: Part[] = []
    for (const [at, to] of before.slice(1).entries()) parts.push(partOf(slice, before[at]!, to))
    parts.push(...this.#divide(partOf(slice, before.at(-1)!, slice.to)))
    const last = parts.at(-1)
    if (last && parts.some(({ records }) => records.length > 0)) {
      const cut = [...parts.map(({ from }) => from), last.to]
      if (cut.join() !== before.join()) await this.#cuts.keep(slice.partition, cut)
      for (const part of parts) await this.#post(slice, part, refuse, signal)
    }
    this.#begun.delete(slice.partition)
  }

  #divide({ records, from, to }: Part): Part[] {
    const { maxRecords } = this.#config
    const parts: Part[] = []
    for (let at = 0; at < records.length; at += maxRecords) {
      const some = records.slice(at, at + maxRecords)
      const next = records[at + maxRecords]
      parts.push({ from: at === 0 ? from : some[0]!.offset, to: next?.offset ?? to, records: some })
    }
    return parts
  }

  async #post(slice: Slice, part: Part, refuse: Refuse, signal: AbortSignal): Promise<void> {
    if (part.records.length === 0) return
    const { stream, partition, again } = slice
    const body = bodyOf(stream, part.records)
    const { origin, name } = this.#context
    const identity = [origin, name, stream, partition, part.from, part.to, again ? 'again' : 'once']
    const id = `msg_${createHash('sha256').update(identity.join('/')).digest('base64url').slice(0, 32)}`
    const timestampS = Math.floor(this.#context.clock.wallMs() / 1000)
    const headers = {
      'content-type': 'application/json',
      ...signedHeaders(id, timestampS, body, this.#keys()),
    }
    const answer = await this.#http.post(headers, body, signal)
    const { status } = answer
    if (status >= 200 && status < 300) return
    if (status === 410)
      throw new SinkFailure('SINK_REFUSED', `410: ${this.#config.url} is gone for good`, {
        retryAfterMs: goneRetryMs,
      })
    // No other answer is about what was sent: with a wrong secret many receivers say 400.
    if (status !== 413 && status !== 422) throw answerFailure(answer)
    if (part.records.length === 1)
      return refuse([{ record: part.records[0]!, reason: `${status} ${reasonOf(answer.body)}` }])
    const middle = part.records.length >> 1
    const { offset } = part.records[middle]!
    const [left, right] = [part.records.slice(0, middle), part.records.slice(middle)]
    await this.#post(slice, { from: part.from, to: offset, records: left }, refuse, signal)
    await this.#post(slice, { from: offset, to: part.to, records: right }, refuse, signal)
  }

  #keys(): Buffer[] {
    const { secretFile } = this.#config
    try {
      return parseSecrets(readSecret(secretFile))
    } catch (cause) {
      if (cause instanceof SinkFailure) throw cause
      const { message } = cause as RangeError
      throw new SinkFailure('SINK_REFUSED', `${secretFile}: ${message}`, { cause })
    }
  }
}

function partOf({ records }: Slice, from: number, to: number): Part {
  return { from, to, records: records.filter(({ offset }) => offset >= from && offset < to) }
}

/** The same for the same records, whenever it is made. */
function bodyOf(stream: Stream, records: readonly LogRecord[]): string {
  const rows = records.map(rowOf)
  const timestamp = timestampText(rows.at(-1)!.arrived)
  const texts = rows.map((row) => rowJson(row)).join(',')
  return `{"type":"headgate.${stream}","timestamp":"${timestamp}","data":{"records":[${texts}]}}`
}
