import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { LogRecord } from '../../fanout/record.ts'
import { rowOf } from '../columns.ts'
import { answerFailure, HttpOutput, readSecret, reasonOf } from '../http/http-output.ts'
import { type LineProtocolConfig, measurementOf } from '../line-protocol.ts'
import { NameTemplate } from '../name-template.ts'
import type { Refusal, Refuse, Sink, SinkContext, Slice } from '../sink.ts'
import { type LineOptions, lineOf, NotExpressible } from './line.ts'

const compress = promisify(gzip)

interface Point {
  record: LogRecord
  line: string
}

/**
 * Writes points. A point that comes twice takes its own place, so a repeat changes nothing. What the server
 * refuses is halved until the bad point is alone; the others are written.
 */
export class LineProtocol implements Sink {
  readonly #config: LineProtocolConfig
  readonly #options: LineOptions
  readonly #http: HttpOutput

  static async open(config: LineProtocolConfig, context: SinkContext): Promise<Sink> {
    return new LineProtocol(config, context)
  }

  private constructor(config: LineProtocolConfig, { stream }: SinkContext) {
    const { url, ca, timeout, org, bucket, measurement, tags, fields } = config
    this.#config = config
    const name = new NameTemplate(measurementOf(measurement, stream))
    this.#options = { stream, measurement: name, tags, fields }
    const address = new URL(url)
    address.pathname = `${address.pathname.replace(/\/+$/, '')}/api/v2/write`
    address.searchParams.set('precision', 'ns')
    if (org !== undefined) address.searchParams.set('org', org)
    if (bucket !== undefined) address.searchParams.set('bucket', bucket)
    this.#http = new HttpOutput({ url: address.href, ca, timeoutMs: timeout })
  }

  async write({ records }: Slice, refuse: Refuse, signal: AbortSignal): Promise<'durable'> {
    const { maxBytes, maxRecords } = this.#config
    const refusals: Refusal[] = []
    let points: Point[] = []
    let bytes = 0
    const send = async () => {
      if (points.length > 0) await this.#post(points, refusals, signal)
      points = []
      bytes = 0
    }
    for (const record of records) {
      const line = this.#line(record, refusals)
      if (line === undefined) continue
      const length = Buffer.byteLength(line) + 1
      if (bytes + length > maxBytes || points.length === maxRecords) await send()
      points.push({ record, line })
      bytes += length
    }
    await send()
    if (refusals.length > 0) await refuse(refusals)
    return 'durable'
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http[Symbol.asyncDispose]()
  }

  #line(record: LogRecord, refusals: Refusal[]): string | undefined {
    try {
      return lineOf(rowOf(record), this.#options)
    } catch (error) {
      if (!(error instanceof NotExpressible)) throw error
      refusals.push({ record, reason: `line protocol cannot say it: ${error.message}` })
      return undefined
    }
  }

  async #post(points: readonly Point[], refusals: Refusal[], signal: AbortSignal): Promise<void> {
    const { gzip, tokenFile, tokenScheme } = this.#config
    const text = `${points.map(({ line }) => line).join('\n')}\n`
    const headers = {
      'content-type': 'text/plain; charset=utf-8',
      ...(gzip && { 'content-encoding': 'gzip' }),
      ...(tokenFile && { authorization: `${tokenScheme} ${readSecret(tokenFile)}` }),
    }
    const answer = await this.#http.post(headers, gzip ? await compress(text) : text, signal)
    const { status, body } = answer
    if (status >= 200 && status < 300) return
    // These are about what was sent. Of a request that is refused in part the rest may be there already.
    if (status !== 400 && status !== 413 && status !== 422) throw answerFailure(answer)
    if (points.length === 1) {
      refusals.push({ record: points[0]!.record, reason: `${status} ${reasonOf(body)}` })
      return
    }
    const middle = points.length >> 1
    await this.#post(points.slice(0, middle), refusals, signal)
    await this.#post(points.slice(middle), refusals, signal)
  }
}
