import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { request as requestOverTls } from 'node:https'
import net from 'node:net'
import tls from 'node:tls'
import type WebSocket from 'ws'
import { maxEnvelopeBytes } from '../../shared/fleet/envelope.ts'
import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
import { openDialer } from '../source/dial.ts'
import type { BrokerDialer } from '../source/source.ts'
import type { Membership } from './membership.ts'

/** What the broker may leave unread of ours. */
const maxUnreadBytes = 4 * 1024 * 1024

/**
 * Dials the fleet broker with the gateway's certificate: over TLS (`mqtts:`), or as WebSocket over TLS (`wss:`)
 * through a proxy if need be. Without TLS (`mqtt:`, `ws:`) it shows nothing: for a test bench.
 */
export function openFleetDialer(
  url: string,
  files: Membership['files'],
  proxy: string | undefined,
): BrokerDialer {
  const { protocol } = new URL(url)
  if (protocol === 'mqtt:' || protocol === 'mqtts:')
    return openDialer({
      url,
      tls: { ...(protocol === 'mqtts:' && files), insecure: false },
      passwordFile: undefined,
    })
  return {
    async dial(handlers, signal) {
      const secure = protocol === 'wss:'
      const through = proxy === undefined ? undefined : await tunnel(new URL(proxy), url, signal)
      const [ca, cert, key] = secure
        ? await Promise.all([files.ca, files.cert, files.key].map((file) => readFile(file)))
        : []
      // An authority that is itself signed by another one is believed as it stands.
      const tlsFiles = secure && { ca, cert, key, allowPartialTrustChain: true }
      signal.throwIfAborted()
      const { hostname } = new URL(url)
      const host = hostname.replace(/^\[|\]$/g, '')
      // Only who needs it has it in memory.
      const { WebSocket } = await import('ws')
      const socket = new WebSocket(url, ['mqtt'], {
        ...tlsFiles,
        ...(through && {
          createConnection: () =>
            secure
              ? tls.connect({
                  socket: through,
                  ...tlsFiles,
                  ...(net.isIP(host) ? { host } : { servername: host }),
                })
              : through,
        }),
        perMessageDeflate: false,
        followRedirects: false,
        // A broker that packs its packets together may send several at once.
        maxPayload: 16 * maxEnvelopeBytes,
      })
      return connect(socket, handlers, signal)
    },
  }
}

function connect(
  socket: WebSocket,
  handlers: ConnectionHandlers,
  signal: AbortSignal,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    let connected = false
    let failure: Error | undefined
    const aborted = () => socket.terminate()
    signal.addEventListener('abort', aborted, { once: true })
    socket.binaryType = 'nodebuffer'
    socket.on('open', () => {
      connected = true
      resolve(connectionOf(socket))
    })
    socket.on('message', (bytes: Buffer) => handlers.data(bytes))
    socket.on('error', (error) => {
      failure ??= error
    })
    socket.on('close', () => {
      signal.removeEventListener('abort', aborted)
      if (connected) handlers.closed(failure)
      else reject(failure ?? signal.reason ?? new Error('closed while connecting'))
    })
  })
}

function connectionOf(socket: WebSocket): Connection {
  return {
    write(bytes) {
      if (socket.readyState !== socket.OPEN) return
      socket.send(bytes)
      if (socket.bufferedAmount > maxUnreadBytes) socket.terminate()
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    end: () => socket.close(),
    destroy: () => socket.terminate(),
  }
}

/** A connection to where `url` points, by the proxy's CONNECT. */
async function tunnel(proxy: URL, url: string, signal: AbortSignal): Promise<net.Socket> {
  const { hostname, port, protocol } = new URL(url)
  const target = `${hostname}:${port || (protocol === 'wss:' ? 443 : 80)}`
  const user = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
  const host = proxy.hostname.replace(/^\[|\]$/g, '')
  const secure = proxy.protocol === 'https:'
  const outgoing = (secure ? requestOverTls : request)({
    host,
    port: Number(proxy.port) || (secure ? 443 : 80),
    // Otherwise it would be taken from the header `host`, which names where the tunnel goes.
    ...(secure && { servername: net.isIP(host) ? '' : host }),
    method: 'CONNECT',
    path: target,
    headers: {
      host: target,
      ...(proxy.username && {
        'proxy-authorization': `Basic ${Buffer.from(user).toString('base64')}`,
      }),
    },
    signal,
  })
  outgoing.end()
  const [response, socket] = (await once(outgoing, 'connect', { signal })) as [
    { statusCode: number },
    net.Socket,
  ]
  if (response.statusCode === 200) return socket
  socket.destroy()
  throw new Error(`the proxy at ${proxy.host} answered ${response.statusCode} to CONNECT ${target}`)
}
