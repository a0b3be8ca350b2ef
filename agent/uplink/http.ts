import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Dispatcher, Pool, ProxyAgent } from 'undici'
import { UserError } from '../../shared/failure.ts'
import type { HttpLink } from '../../shared/ports.ts'
import { proxyFor } from '../../shared/proxy.ts'
import { identityTls } from '../enrol/identity.ts'
import { exchange } from './exchange.ts'

interface HttpLinkOptions {
  url: string
  /** File of the authority that vouches for the collector. */
  ca?: string | undefined
  proxy?: string | undefined
  /** File of the token that a collector behind a proxy asks for. */
  tokenFile?: string | undefined
  /** Folder with the gateway's certificate, once it has one. */
  identity?: string | undefined
}

/**
 * Talks to a collector with undici over kept-alive connections.
 *
 * @throws UserError when a file that is named cannot be read
 */
export function openHttpLink(options: HttpLinkOptions): HttpLink {
  const { origin, pathname } = new URL(options.url)
  const base = pathname.replace(/\/+$/, '')
  const credentials = new Credentials(options)
  const authorization = credentials.authorization()
  let dispatcher = openDispatcher(origin, credentials.read(), options.proxy)
  return {
    async post({ path, headers, body, timeoutMs }, signal) {
      if (credentials.haveChanged) {
        const old = dispatcher
        dispatcher = openDispatcher(origin, credentials.read(), options.proxy)
        old.close().catch(() => {}) // Once it has answered what is under way.
      }
      return exchange(
        dispatcher,
        {
          origin,
          method: 'POST',
          path: base + path,
          headers: { ...headers, ...authorization },
          body,
        },
        { timeoutMs, signal },
      )
    },
    close: () => dispatcher.destroy(),
  }
}

/** What a connection believes and shows, PEM. */
export interface TlsFiles {
  ca?: Buffer | string
  cert?: Buffer
  key?: Buffer
  rejectUnauthorized?: boolean
}

const connectTimeoutMs = 10_000
const connections = 2

/**
 * Kept-alive connections to a collector, through a proxy where one is configured or the environment asks
 * for one.
 */
export function openDispatcher(origin: string, tls: TlsFiles, configured?: string): Dispatcher {
  const proxy = configured ?? proxyFor(origin, process.env)
  // An authority that is itself signed by another one is believed as it stands.
  const options = tls.ca === undefined ? tls : { ...tls, allowPartialTrustChain: true }
  return proxy === undefined
    ? new Pool(origin, { connections, connect: { timeout: connectTimeoutMs, ...options } })
    : new ProxyAgent({ uri: proxy, requestTls: options, connections })
}

/** The gateway's certificate comes with enrolment and is replaced by renewal, while the link is open. */
class Credentials {
  readonly #options: HttpLinkOptions
  /** When the certificate's file was last written; undefined while there is none. */
  #writtenMs: number | undefined

  constructor(options: HttpLinkOptions) {
    this.#options = options
    this.#writtenMs = this.#lookMs()
  }

  /** Whether they are others than those read last. */
  get haveChanged(): boolean {
    const writtenMs = this.#lookMs()
    const changed = writtenMs !== this.#writtenMs
    this.#writtenMs = writtenMs
    return changed
  }

  read(): TlsFiles {
    const { url, ca, identity } = this.#options
    const own = identity && url.startsWith('https:') ? identityTls(identity) : undefined
    return ca === undefined ? { ...own } : { ...own, ca: readNamed('uplink.ca', ca) }
  }

  /** Header of a collector that asks for a token. */
  authorization(): Record<string, string> {
    const { tokenFile } = this.#options
    if (tokenFile === undefined) return {}
    return { authorization: `Bearer ${readNamed('uplink.tokenFile', tokenFile).toString().trim()}` }
  }

  #lookMs(): number | undefined {
    const { identity } = this.#options
    if (identity === undefined) return undefined
    return statSync(join(identity, 'certificate.pem'), { throwIfNoEntry: false })?.mtimeMs
  }
}

function readNamed(name: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new UserError(`${name}: ${file} cannot be read (${code})`, { cause })
  }
}
