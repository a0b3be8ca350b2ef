import { readFileSync } from 'node:fs'
import { Pool } from 'undici'
import type { HttpAnswer, HttpLink } from '../../shared/ports.ts'

/** Bytes of an answer's body that are read; a collector's are far smaller. */
const maxAnswerBytes = 64 * 1024

/** Talks to a collector with undici over a kept-alive connection. */
export function openHttpLink(options: { url: string; ca?: string | undefined }): HttpLink {
  const url = new URL(options.url)
  const base = url.pathname.replace(/\/+$/, '')
  const pool = new Pool(url.origin, {
    connections: 2,
    connect: { timeout: 10_000, ...(options.ca && { ca: readFileSync(options.ca) }) },
  })
  return {
    async post({ path, headers, body, timeoutMs }, signal): Promise<HttpAnswer> {
      const response = await pool.request({
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
    close: () => pool.destroy(),
  }
}
