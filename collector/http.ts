import { SSL_OP_NO_TICKET } from 'node:constants'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { UserError } from '../shared/failure.ts'
import type { HttpAnswer } from '../shared/ports.ts'
import { systemClock } from '../shared/system.ts'
import { json, unavailable } from './ingest/ingest.ts'
import { LogFailure } from './log/engine.ts'

export type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
) => Promise<void> | void

export interface HttpOptions {
  host: string
  port: number
  maxConnections: number
  /** Time for a whole request, ms: a sender that is slower is cut off. */
  timeout: number
}

/** PEM. Clients are asked for a certificate that `ca` has signed, and may come without. */
export interface ServerTls {
  cert: string
  key: string
  ca: string
}

/** Takes over a connection that changes its protocol. */
export type Upgrader = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

/** Most time for a request's head. */
const headersTimeoutMs = 10_000
/** Longer than a client keeps an idle connection, so that it is the client that closes it. */
const keepAliveMs = 75_000
/** Time for answers in flight when the server stops. */
const graceMs = 5000

/** A server with limits that listens until it is closed. */
export class HttpServer {
  readonly url: string
  readonly #server: Server | TlsServer

  /** @throws UserError when it cannot listen */
  static async open(options: HttpOptions, handler: Handler, tls?: ServerTls): Promise<HttpServer> {
    const { host, port } = options
    const limits = {
      headersTimeout: Math.min(headersTimeoutMs, options.timeout),
      requestTimeout: options.timeout,
      keepAliveTimeout: keepAliveMs,
      connectionsCheckingInterval: Math.min(1000, options.timeout),
      maxHeaderSize: 8 * 1024,
    }
    const listener = (request: IncomingMessage, response: ServerResponse) => {
      // A reader that goes away in the middle is no news.
      response.on('error', () => {})
      void handle(handler, request, response)
    }
    const server = tls
      ? createTlsServer({ ...limits, ...tlsOptions, ...tls }, listener)
      : createServer(limits, listener)
    server.maxConnections = options.maxConnections
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(cannotListen(host, port, cause)),
      )
      server.listen(port, host, resolve)
    })
    return new HttpServer(server, host)
  }

  private constructor(server: Server | TlsServer, host: string) {
    this.#server = server
    const { port } = server.address() as AddressInfo
    const scheme = 'setSecureContext' in server ? 'https' : 'http'
    this.url = `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`
  }

  /** Without one, whoever asks to change the protocol is left without an answer. */
  onUpgrade(upgrader: Upgrader): void {
    this.#server.on('upgrade', upgrader)
  }

  /** A fresh certificate for connections from now on. */
  setCertificate(tls: ServerTls): void {
    if ('setSecureContext' in this.#server) this.#server.setSecureContext({ ...tlsOptions, ...tls })
  }

  /** Takes no more requests, lets answers in flight finish for a while, then drops what is left. */
  async close(): Promise<void> {
    const server = this.#server
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    // A connection that falls idle later would be kept for the next request, which never comes.
    const sweep = setInterval(() => server.closeIdleConnections(), 20)
    const timeout = setTimeout(() => server.closeAllConnections(), graceMs)
    await closed
    clearInterval(sweep)
    clearTimeout(timeout)
  }
}

/**
 * A certificate is looked at by whoever answers, because gateways that have none yet come here too. Without
 * tickets each connection shows it anew.
 */
const tlsOptions = {
  requestCert: true,
  rejectUnauthorized: false,
  minVersion: 'TLSv1.2',
  handshakeTimeout: headersTimeoutMs,
  secureOptions: SSL_OP_NO_TICKET,
} as const

function cannotListen(host: string, port: number, cause: NodeJS.ErrnoException): UserError {
  const why: Record<string, string> = {
    EADDRINUSE: `port ${port} is taken: stop what uses it, or set http.port (0 takes a free one)`,
    EACCES: `no permission to use port ${port}: set http.port to one above 1023`,
    EADDRNOTAVAIL: `this machine has no address ${host}: set http.host`,
    ENOTFOUND: `${host} has no address: set http.host`,
  }
  const text = why[cause.code ?? ''] ?? `cannot listen on ${host}:${port}: ${cause.code}`
  return new UserError(`http: ${text}`, { cause })
}

async function handle(
  handler: Handler,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  let url: URL
  try {
    url = new URL(request.url ?? '/', 'http://collector')
  } catch {
    return send(response, json(400, { code: 'url', message: 'no such address' }))
  }
  try {
    await handler(request, response, url)
  } catch (error) {
    if (response.headersSent) response.destroy()
    // A cluster that is between two leaders, say, cannot be read for a while.
    else if (error instanceof LogFailure) send(response, unavailable(error))
    else send(response, json(500, { code: 'internal', message: String(error) }))
  }
}

export function send(response: ServerResponse, { status, headers, body }: HttpAnswer): void {
  response.writeHead(status, { ...headers, 'content-length': body.length }).end(body)
}

/**
 * Waits until the peer has taken what was written, or is gone.
 *
 * @returns false when it has not within `patienceMs`
 */
export function drained(
  response: ServerResponse,
  patienceMs = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  return new Promise((resolve) => {
    const isDone = () => response.destroyed || !response.writableNeedDrain
    if (isDone()) return resolve(true)
    const finish = () => {
      cancel()
      response.off('drain', finish)
      response.off('close', finish)
      resolve(isDone())
    }
    const cancel =
      patienceMs === Number.POSITIVE_INFINITY ? () => {} : systemClock.timer(patienceMs, finish)
    response.on('drain', finish)
    response.on('close', finish)
  })
}

/**
 * Reads a body of at most `maxBytes`.
 *
 * @returns undefined when it is larger; the rest is then let through and dropped while the answer goes
 *   out, for as long as the time limit lets it
 * @throws when the sender goes away in the middle
 */
export function readBody(
  request: IncomingMessage,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    const take = (chunk: Buffer) => {
      length += chunk.length
      if (length <= maxBytes) {
        chunks.push(chunk)
        return
      }
      request.off('data', take).resume()
      chunks.length = 0
      resolve(undefined)
    }
    request.on('data', take)
    request.once('end', () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)))
    request.once('error', reject)
    request.once('close', () => {
      // It comes behind every request, and an error that nobody sees costs more than reading the body.
      if (!request.complete) reject(new Error('the sender went away'))
    })
  })
}
