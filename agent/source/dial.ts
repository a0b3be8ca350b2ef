import { readFile } from 'node:fs/promises'
import net from 'node:net'
import tls from 'node:tls'
import type { Connection, ConnectionHandlers } from '../../shared/ports.ts'
import { brokerAddress, type SourceConfig } from './config.ts'
import { SourceFailure } from './failure.ts'
import type { BrokerDialer } from './link.ts'
import { SocketReader } from './socket-reader.ts'

/** What the broker may leave unread of ours; one that never reads would cost memory without end. */
const maxUnreadBytes = 4 * 1024 * 1024

type DialConfig = Pick<SourceConfig, 'url' | 'tls' | 'passwordFile'>

/** Dials the configured broker over TCP or TLS. Files are read anew each time, so that they can be replaced. */
export function openDialer(config: DialConfig): BrokerDialer {
  return {
    async dial(handlers, signal) {
      const options = await connectOptions(config)
      signal.throwIfAborted()
      return dial(options, handlers, signal)
    },
    async password() {
      if (config.passwordFile === undefined) return undefined
      const content = await readNamed('source.passwordFile', config.passwordFile)
      return content.toString('utf8').split(/\r?\n/, 1)[0]
    },
  }
}

type ConnectOptions =
  | { tls: false; options: net.TcpNetConnectOpts }
  | { tls: true; options: tls.ConnectionOptions }

async function connectOptions({ url, tls: files }: DialConfig): Promise<ConnectOptions> {
  const { host, port, tls } = brokerAddress(url)
  if (!tls) return { tls, options: { host, port } }
  const [ca, cert, key] = await Promise.all(
    (['ca', 'cert', 'key'] as const).map((name) => {
      const file = files[name]
      return file === undefined ? undefined : readNamed(`source.tls.${name}`, file)
    }),
  )
  const servername = files.servername ?? (net.isIP(host) ? undefined : host)
  return {
    tls,
    options: {
      host,
      port,
      // An authority that is itself signed by another one is believed as it stands.
      ...(ca && { ca, allowPartialTrustChain: true }),
      ...(cert && { cert }),
      ...(key && { key }),
      ...(servername !== undefined && { servername }),
      rejectUnauthorized: !files.insecure,
    },
  }
}

async function readNamed(name: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new SourceFailure('SOURCE_FILE', `${name}: ${file} (${code})`, { cause })
  }
}

function dial(
  options: ConnectOptions,
  handlers: ConnectionHandlers,
  signal: AbortSignal,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    let connected = false
    let failure: Error | undefined
    const reader = new SocketReader((bytes) => handlers.data(bytes))
    const socket = makeSocket(options, reader)
    reader.attend(socket)
    const aborted = () => socket.destroy()
    signal.addEventListener('abort', aborted, { once: true })
    socket.once(options.tls ? 'secureConnect' : 'connect', () => {
      connected = true
      resolve(connectionOf(socket, reader))
    })
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

function makeSocket(connect: ConnectOptions, { onread }: SocketReader): net.Socket {
  try {
    const socket = connect.tls
      ? tls.connect({ ...connect.options, onread } as tls.ConnectionOptions)
      : net.connect({ ...connect.options, onread })
    return socket.setNoDelay(true).setKeepAlive(true, 60_000)
  } catch (cause) {
    // A certificate or key that OpenSSL cannot read.
    const { message } = cause as Error
    throw new SourceFailure('SOURCE_FILE', `source.tls: ${message}`, { cause })
  }
}

function connectionOf(socket: net.Socket, reader: SocketReader): Connection {
  return {
    write(bytes) {
      if (!socket.writable) return
      socket.write(bytes)
      if (socket.writableLength > maxUnreadBytes)
        socket.destroy(new Error('the broker does not read what we send'))
    },
    pause: () => reader.pause(),
    resume: () => reader.resume(),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  }
}
