import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import type { ClientAnswer, ClientLink } from '../client.ts'

export interface HttpLinkOptions {
  /** The collector's address; a path in front of `/v1` is kept. */
  url: string
  /** As `headgate collector token` made it. */
  token?: string | undefined
  /** PEM: the authority of the collector's certificate, and one's own certificate with its key. */
  tls?: { ca: string; cert: string; key: string } | undefined
}

/** The way to a collector over HTTP or HTTPS. */
export function httpLink({ url, token, tls }: HttpLinkOptions): ClientLink {
  const base = url.replace(/\/+$/, '')
  const request = base.startsWith('https:') ? httpsRequest : httpRequest
  const options = tls && { ...tls, allowPartialTrustChain: true }
  const authorization = token && { authorization: `Bearer ${token}` }
  return {
    ask({ method, path, headers, body }, signal) {
      return new Promise<ClientAnswer>((resolve, reject) => {
        const asked: ClientRequest = request(
          base + path,
          {
            ...options,
            method,
            headers: { ...headers, ...authorization },
            signal,
          } as RequestOptions,
          (answer: IncomingMessage) =>
            resolve({ status: answer.statusCode ?? 0, body: whole(answer) }),
        )
        asked.on('error', reject)
        asked.end(body)
      })
    },
  }
}

/** A body that ends without its end throws. */
async function* whole(answer: IncomingMessage): AsyncGenerator<Uint8Array> {
  for await (const chunk of answer) yield chunk as Uint8Array
  if (!answer.complete) throw new Error('the connection was lost')
}
