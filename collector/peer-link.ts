import { timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Agent, request } from 'undici'
import { WireFailure, type WireFailureCode, wireFailures } from '../shared/batch.ts'
import { chainFromBytes, chainToBytes } from '../shared/chain.ts'
import { UserError } from '../shared/failure.ts'
import type { Clock, Random } from '../shared/ports.ts'
import { Authority } from './fleet/authority.ts'
import { type AppendAnswer, type Entry, type Held, LogFailure } from './log/engine.ts'
import { elsewhere, type PeerAbout, type PeerHandlers, type Peers } from './log/kafka/peers.ts'

export interface PeerOptions {
  host: string
  /** 0 takes a free one. */
  port: number
  /** `host:port` under which the others reach it, where that is another. */
  announce?: string | undefined
  maxBodyBytes: number
  /** How long another may be silent before it is given up. */
  silenceMs?: number
  clock: Clock
  random: Random
}

const lifetimeMs = 10 * 365 * 86_400_000
/** An owner that is at it says so this often: it may take long to find that it cannot write. */
const signEveryMs = 1_000
/** One that has said nothing for so long is cut off, or gone: somebody else will own what it owned. */
const usualSilenceMs = 5_000
const bodyMs = 30_000
const tokenBytes = 32
/** Of a request about notes; a group with all the consumers that it may have takes a tenth of it. */
const maxNoteBytes = 1024 * 1024
const maxConnections = 1000
/** Connections to one other collector: as many batches are on their way to it at once. */
const connections = 64
const commonName = 'collector:peer'
/** In every certificate, whatever address it is reached by. */
const serverName = 'peer.headgate.internal'
const elsewhereStatus = 421

/**
 * Collectors ask each other over HTTPS. Each start makes a certificate and a token, which the others learn
 * through the group: whoever may read the group may ask.
 */
export async function openPeers(options: PeerOptions, handlers: PeerHandlers): Promise<Peers> {
  const { host, port, clock, random, maxBodyBytes, silenceMs = usualSilenceMs } = options
  const token = Buffer.from(random.bytes(tokenBytes)).toString('base64url')
  const nowMs = clock.wallMs()
  // Its key is used once: nobody else can ever show a certificate of this authority.
  const { authority } = await Authority.create('headgate peer', nowMs)
  const own = await authority.make({ commonName, lifetimeMs, nowMs, names: [serverName] })
  const server = createServer(
    {
      cert: own.pem,
      key: own.keyPem,
      minVersion: 'TLSv1.3',
      maxHeaderSize: 8 * 1024,
      requestTimeout: bodyMs,
      keepAliveTimeout: 2 * bodyMs,
    },
    (incoming, response) => {
      response.on('error', () => {})
      void answer({ incoming, response, token, handlers, maxBodyBytes, clock })
    },
  )
  server.maxConnections = maxConnections
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new UserError(`log.kafka.peer: cannot listen on ${host}:${port} (${cause.code})`, {
          cause,
        }),
      ),
    )
    server.listen(port, host, resolve)
  })
  const { port: taken } = server.address() as AddressInfo
  const name = host.includes(':') ? `[${host}]` : host
  const about = {
    url: `https://${options.announce ?? `${name}:${taken}`}`,
    certificate: authority.certificatePem,
    token,
  }
  const agents = new Map<string, Agent>()
  const ask = async (peer: PeerAbout, path: string, headers: object, body: Uint8Array) => {
    let dispatcher = agents.get(peer.certificate)
    if (!dispatcher) {
      const connect = { ca: peer.certificate, servername: serverName, timeout: silenceMs }
      dispatcher = new Agent({ connections, connect })
      agents.set(peer.certificate, dispatcher)
    }
    const { body: answered } = await request(`${peer.url}${path}`, {
      dispatcher,
      method: 'POST',
      headers: { authorization: `Bearer ${peer.token}`, ...headers },
      body,
      headersTimeout: silenceMs,
      bodyTimeout: silenceMs,
    })
    const { status, ...document } = JSON.parse(await answered.text())
    if (status === elsewhereStatus) return elsewhere
    if (status === 200) return document
    if (document.code in wireFailures)
      throw new WireFailure(document.code as WireFailureCode, document.message)
    throw new LogFailure('LOG_DISK', `the owner: ${document.message}`)
  }
  return {
    about,
    async append(peer, { body, encoding, arrivedMs }: Entry) {
      const headers = { 'content-encoding': encoding, 'headgate-arrived': String(arrivedMs) }
      const found = await ask(peer, '/append', headers, body)
      return found === elsewhere ? elsewhere : readAnswer(found)
    },
    async held(peer, agent, incarnation, lane) {
      const question = { agent, incarnation: hex(incarnation), lane }
      const found = await ask(peer, '/held', {}, Buffer.from(JSON.stringify(question)))
      return found === elsewhere ? elsewhere : readHeld(found)
    },
    async notes(peer, request) {
      return ask(peer, '/notes', {}, Buffer.from(JSON.stringify(request)))
    },
    async close() {
      await Promise.all([...agents.values()].map((agent) => agent.destroy()))
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

/** Answers with a document that has its status in it: white space goes before, for as long as it takes. */
async function answer({
  incoming,
  response,
  token,
  handlers,
  maxBodyBytes,
  clock,
}: {
  incoming: IncomingMessage
  response: ServerResponse
  token: string
  handlers: PeerHandlers
  maxBodyBytes: number
  clock: Clock
}): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/json' })
  let cancel = () => {}
  const sign = () => {
    cancel = clock.timer(signEveryMs, () => {
      response.write(' ')
      sign()
    })
  }
  sign()
  response.on('close', () => cancel())
  const send = (status: number, document: object) => {
    cancel()
    response.end(JSON.stringify({ status, ...document }))
  }
  const expected = Buffer.from(`Bearer ${token}`)
  const given = Buffer.from(incoming.headers.authorization ?? '')
  if (given.length !== expected.length || !timingSafeEqual(given, expected))
    return void send(401, { code: 'token', message: 'this is for the other collectors' })
  try {
    const body = await readAll(incoming, incoming.url === '/notes' ? maxNoteBytes : maxBodyBytes)
    if (incoming.url === '/append') {
      const { 'content-encoding': encoding = '', 'headgate-arrived': arrived } = incoming.headers
      const found = await handlers.append(body, encoding, Number(arrived))
      return void (found === elsewhere ? send(elsewhereStatus, {}) : send(200, writeAnswer(found)))
    }
    if (incoming.url === '/notes') {
      const found = await handlers.notes(JSON.parse(Buffer.from(body).toString()))
      return void (found === elsewhere ? send(elsewhereStatus, {}) : send(200, found))
    }
    if (incoming.url !== '/held') return void send(404, { code: 'path', message: 'nothing here' })
    const { agent, incarnation, lane } = JSON.parse(Buffer.from(body).toString())
    const found = await handlers.held(String(agent), bytesOf(incarnation), String(lane))
    return void (found === elsewhere ? send(elsewhereStatus, {}) : send(200, writeHeld(found)))
  } catch (error) {
    const { code = 'internal', message } = error as { code?: string; message: string }
    send(503, { code, message })
  }
}

async function readAll(incoming: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of incoming) {
    length += chunk.length
    if (length > maxBytes) throw new WireFailure('WIRE_TOO_LARGE', `over ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function writeHeld({ held, chain }: Held) {
  return { held, chain: hex(chainToBytes(chain)) }
}

function readHeld({ held, chain }: ReturnType<typeof writeHeld>): Held {
  return { held, chain: chainFromBytes(bytesOf(chain)) }
}

function writeAnswer(given: AppendAnswer) {
  const { chain, ...rest } = given
  const incarnation = given.code === 'hole' ? hex(given.incarnation) : undefined
  return { ...rest, chain: hex(chainToBytes(chain)), incarnation }
}

function readAnswer({ chain, incarnation, ...rest }: ReturnType<typeof writeAnswer>): AppendAnswer {
  return {
    ...rest,
    chain: chainFromBytes(bytesOf(chain)),
    ...(incarnation !== undefined && { incarnation: bytesOf(incarnation) }),
  } as AppendAnswer
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'))
}
