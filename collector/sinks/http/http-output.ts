import { readFileSync } from 'node:fs'
import { Agent, type Dispatcher, ProxyAgent } from 'undici'
import { proxyFor } from '../../../shared/proxy.ts'
import { SinkFailure } from '../sink.ts'

/** Bytes of an answer's body that are read: enough for what is wrong. */
const maxAnswerBytes = 64 * 1024
const maxReasonLength = 500
const maxRetryAfterMs = 3_600_000
const connectTimeoutMs = 10_000

export interface HttpAnswer {
  status: number
  retryAfterMs: number
  /** The first 64 KiB of it, as text. */
  body: string
}

/** Posts to one address. Redirects are answers like any other: what is sent goes where it is configured. */
export class HttpOutput implements AsyncDisposable {
  readonly #url: URL
  readonly #timeoutMs: number
  readonly #dispatcher: Dispatcher

  /**
   * @param ca file of the authority that vouches for the server, PEM
   * @throws SinkFailure when it cannot be read
   */
  constructor(options: { url: string; ca?: string | undefined; timeoutMs: number }) {
    this.#url = new URL(options.url)
    this.#timeoutMs = options.timeoutMs
    // An authority that is itself signed by another one is believed as it stands.
    const tls = options.ca && { ca: readSecret(options.ca), allowPartialTrustChain: true }
    const proxy = proxyFor(options.url, process.env)
    this.#dispatcher = proxy
      ? new ProxyAgent({ uri: proxy, ...(tls && { requestTls: tls }) })
      : new Agent({ connect: { timeout: connectTimeoutMs, ...tls } })
  }

  /** @throws SinkFailure SINK_UNREACHABLE when there is no answer in time */
  async post(
    headers: Record<string, string>,
    body: Uint8Array | string,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    const { origin, pathname, search } = this.#url
    try {
      const response = await this.#dispatcher.request({
        origin,
        path: pathname + search,
        method: 'POST',
        headers: { 'user-agent': 'headgate', ...headers },
        body,
        signal: AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)]),
        headersTimeout: this.#timeoutMs,
        bodyTimeout: this.#timeoutMs,
      })
      const chunks: Buffer[] = []
      let length = 0
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        chunks.push(chunk)
        length += chunk.length
        if (length >= maxAnswerBytes) break
      }
      return {
        status: response.statusCode,
        retryAfterMs: retryAfterMs(String(response.headers['retry-after'] ?? '')),
        body: Buffer.concat(chunks).subarray(0, maxAnswerBytes).toString('utf8'),
      }
    } catch (cause) {
      throw new SinkFailure('SINK_UNREACHABLE', `${origin}: ${(cause as Error).message}`, { cause })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy()
  }
}

/** What an answer that is no success means. */
export function answerFailure({ status, retryAfterMs, body }: HttpAnswer): SinkFailure {
  const detail = `${status} ${reasonOf(body)}`.trimEnd()
  const wait = { retryAfterMs }
  if (status === 429 || status === 503) return new SinkFailure('SINK_BUSY', detail, wait)
  if (status >= 500) return new SinkFailure('SINK_UNREACHABLE', detail, wait)
  return new SinkFailure('SINK_REFUSED', detail, wait)
}

/** What a body says, on one line and not for ever. */
export function reasonOf(body: string): string {
  return body.replaceAll(/\s+/g, ' ').trim().slice(0, maxReasonLength)
}

/** Of a number of seconds; a date is not worth the trouble, since our own delay is of its kind. */
function retryAfterMs(header: string): number {
  return /^\d{1,9}$/.test(header) ? Math.min(Number(header) * 1000, maxRetryAfterMs) : 0
}

/**
 * What a file has in it, less white space at its ends.
 *
 * @throws SinkFailure when it cannot be read: somebody may mend it
 */
export function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new SinkFailure('SINK_REFUSED', `${file} cannot be read (${code})`, { cause })
  }
}
