import { readFileSync } from 'node:fs'
import { type Dispatcher, Pool, ProxyAgent } from 'undici'
import { UserError } from '../../shared/failure.ts'
import type { HttpAnswer, HttpLink } from '../../shared/ports.ts'

/** Bytes of an answer's body that are read; a collector's are far smaller. */
const maxAnswerBytes = 64 * 1024

interface HttpLinkOptions {
  url: string
  /** File of the authority that vouches for the collector. */
  ca?: string | undefined
  proxy?: string | undefined
}

/**
 * Talks to a collector with undici over kept-alive connections.
 *
 * @throws UserError when the authority's file cannot be read
 */
export function openHttpLink(options: HttpLinkOptions): HttpLink {
  const { origin, pathname } = new URL(options.url)
  const base = pathname.replace(/\/+$/, '')
  const dispatcher = openDispatcher(origin, options)
  return {
    async post({ path, headers, body, timeoutMs }, signal): Promise<HttpAnswer> {
      const response = await dispatcher.request({
        origin,
        method: 'POST',
        path: base + path,
        headers,
        body,
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      })
      const chunks: Buffer[] = []
      let length = 0
      for await (const chunk of response.body) {
        chunks.push(chunk)
        length += chunk.length
        if (length > maxAnswerBytes) break
      }
      const plain = Object.entries(response.headers).map(([name, value]) => [name, String(value)])
      return {
        status: response.statusCode,
        headers: Object.fromEntries(plain),
        body: Buffer.concat(chunks).subarray(0, maxAnswerBytes),
      }
    },
    close: () => dispatcher.destroy(),
  }
}

function openDispatcher(origin: string, { ca: file, proxy }: HttpLinkOptions): Dispatcher {
  const tls = file === undefined ? {} : { ca: readAuthority(file) }
  return proxy === undefined
    ? new Pool(origin, { connections: 2, connect: { timeout: 10_000, ...tls } })
    : new ProxyAgent({ uri: proxy, requestTls: tls, connections: 2 })
}

function readAuthority(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`uplink.ca: ${file} cannot be read (${code})`, { cause })
  }
}
