import { createHash, timingSafeEqual } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { UserError } from '../shared/failure.ts'
import type { Logger } from '../shared/log.ts'
import type { Clock, HttpAnswer } from '../shared/ports.ts'
import { type Stream, streams } from '../shared/reading.ts'
import { Refused } from './fleet/refused.ts'
import type { Admission, Registry } from './fleet/registry.ts'
import { commonNameOf, readCommonName, type Who } from './fleet/who.ts'
import { json } from './ingest/ingest.ts'

/** What a request wants to do. */
export type Action = 'send' | 'read' | 'manage'

/** Somebody who is let in; `who` undefined where the collector is open to everybody. */
export interface Caller {
  who: Who | undefined
  /** Streams that it may read; undefined for all. */
  streams?: ReadonlySet<Stream> | undefined
}

/** Says who is behind a request. */
export interface Auth extends AsyncDisposable {
  /** @returns an answer instead, where it is nobody */
  identify(request: IncomingMessage): Caller | HttpAnswer
}

const may: Record<Who['role'], readonly Action[]> = {
  agent: ['send'],
  reader: ['read'],
  manager: ['read', 'manage'],
  collector: [],
}

/**
 * @param scope what of it alone is allowed, where it is asked for more than that
 * @returns undefined when it is allowed
 */
export function forbid({ who }: Caller, action: Action, scope?: string): HttpAnswer | undefined {
  if (!who || (may[who.role].includes(action) && scope === undefined)) return undefined
  const name = commonNameOf(who)
  return scope === undefined
    ? json(403, { code: 'role', message: `${name} may not ${action} here` })
    : json(403, { code: 'scope', message: `${name} may ${action} ${scope}` })
}

/** Whoever comes, where nobody is asked. */
export const anybody: Caller = { who: undefined }

export const openAuth: Auth = {
  identify: () => anybody,
  [Symbol.asyncDispose]: async () => {},
}

/** Client certificates. What was found out about a connection holds for it; whether it still counts is asked each time. */
export class CertificateAuth implements Auth {
  readonly #registry: Registry
  readonly #clock: Clock
  readonly #admissions = new WeakMap<Socket, Admission>()
  /** Open connections, by common name. */
  readonly #sockets = new Map<string, Set<Socket>>()

  constructor(registry: Registry, clock: Clock) {
    this.#registry = registry
    this.#clock = clock
  }

  identify({ socket }: IncomingMessage): Caller | HttpAnswer {
    const known = this.#admissions.get(socket)
    try {
      if (!known) return { who: this.#admit(socket).who }
      if (known.notAfterMs <= this.#clock.wallMs()) throw new Refused('expired')
      const refusal = this.#registry.standing(known)
      if (refusal) throw new Refused(refusal)
      return { who: known.who }
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      // A new connection may show a newer certificate.
      return json(
        error.status,
        { code: error.code, message: error.message },
        { connection: 'close' },
      )
    }
  }

  /** Ends all connections of a common name. */
  drop(commonName: string): void {
    for (const socket of this.#sockets.get(commonName) ?? []) socket.destroy()
  }

  #admit(socket: Socket): Admission {
    const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
    if (!certificate) throw new Refused('foreign', 'show a client certificate')
    const admission = this.#registry.admit(certificate)
    this.#admissions.set(socket, admission)
    const { commonName } = admission
    let sockets = this.#sockets.get(commonName)
    if (!sockets) {
      sockets = new Set()
      this.#sockets.set(commonName, sockets)
    }
    sockets.add(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#sockets.get(commonName) === sockets)
        this.#sockets.delete(commonName)
    })
    return admission
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The file of tokens is looked at for changes this often, so a line taken out ends its use. */
const rereadEveryMs = 5_000

/**
 * Bearer tokens, `<common name>.<secret>`, for a collector behind a proxy that ends TLS. The file has the
 * hash of each: a line `<common name> <SHA-256 of the token, hexadecimal>`, for a reader maybe with the
 * streams behind it that it may read, `readings,alerts`.
 */
export class TokenAuth implements Auth {
  readonly #file: string
  readonly #clock: Clock
  readonly #logger: Logger
  #tokens: ReadonlyMap<string, Known>
  #changedMs: number
  #cancel: () => void = () => {}

  /** @throws UserError when the file cannot be read or has a wrong line */
  static async open(file: string, clock: Clock, logger: Logger): Promise<TokenAuth> {
    const { mtimeMs } = await stat(file).catch((cause) => {
      throw new UserError(`auth.tokens: ${file}: cannot be read (${cause.code})`, { cause })
    })
    const auth = new TokenAuth(file, clock, logger, await readTokens(file), mtimeMs)
    auth.#rereadLater()
    return auth
  }

  private constructor(
    file: string,
    clock: Clock,
    logger: Logger,
    tokens: ReadonlyMap<string, Known>,
    changedMs: number,
  ) {
    this.#file = file
    this.#clock = clock
    this.#logger = logger
    this.#tokens = tokens
    this.#changedMs = changedMs
  }

  identify(request: IncomingMessage): Caller | HttpAnswer {
    const [, token = ''] =
      /^Bearer ([!-~]{1,512})$/i.exec(request.headers.authorization ?? '') ?? []
    const name = token.slice(0, token.lastIndexOf('.'))
    const who = readCommonName(name)
    const given = hashToken(token)
    // A hash that fits nothing, so that an unknown name takes as long as a wrong secret.
    const { hash = Buffer.alloc(given.length), streams } = this.#tokens.get(name) ?? {}
    if (timingSafeEqual(given, hash) && who) return { who, streams }
    return json(
      401,
      { code: 'token', message: 'send a token that is known here' },
      { 'www-authenticate': 'Bearer' },
    )
  }

  #rereadLater(): void {
    this.#cancel = this.#clock.timer(rereadEveryMs, () => {
      void this.#reread().finally(() => this.#rereadLater())
    })
  }

  async #reread(): Promise<void> {
    try {
      const { mtimeMs } = await stat(this.#file)
      if (mtimeMs === this.#changedMs) return
      this.#tokens = await readTokens(this.#file)
      this.#changedMs = mtimeMs
    } catch (err) {
      this.#logger.error({ err }, 'the tokens cannot be read: the last ones go on to count')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancel()
  }
}

export function hashToken(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}

interface Known {
  hash: Buffer
  streams: ReadonlySet<Stream> | undefined
}

/** @returns undefined when it names another stream than there are, or none */
export function readScope(text: string): Set<Stream> | undefined {
  const names = text.split(',')
  const found = streams.filter((stream) => names.includes(stream))
  return found.length > 0 && found.length === new Set(names).size ? new Set(found) : undefined
}

async function readTokens(file: string): Promise<Map<string, Known>> {
  const tokens = new Map<string, Known>()
  for (const [index, line] of (await readFile(file, 'utf8')).split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const [name = '', hash = '', scope, ...rest] = line.trim().split(/\s+/)
    const who = readCommonName(name)
    const scoped = scope === undefined ? undefined : readScope(scope)
    const isScopeGood = scope === undefined || (scoped && who?.role === 'reader')
    if (!who || !/^[0-9a-f]{64}$/.test(hash) || !isScopeGood || rest.length > 0)
      throw new UserError(
        `auth.tokens: ${file}: line ${index + 1}: expected a name and the SHA-256 of its token, for a reader maybe streams`,
      )
    tokens.set(name, { hash: Buffer.from(hash, 'hex'), streams: scoped })
  }
  return tokens
}
