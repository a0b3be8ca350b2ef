import { rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { UserError } from '../shared/failure.ts'
import { makeFolder } from '../shared/folder.ts'
import type { Logger } from '../shared/log.ts'
import { systemClock, systemRandom } from '../shared/system.ts'
import { type Access, openAccess } from './access.ts'
import { anybody } from './auth.ts'
import { CompletenessService } from './completeness.ts'
import type { CollectorConfig } from './config.ts'
import { GroupsApi } from './groups/api.ts'
import { Groups } from './groups/groups.ts'
import { type Handler, HttpServer, readBody, send } from './http.ts'
import { Ingest, json } from './ingest/ingest.ts'
import { lockFolder } from './lock.ts'
import { nodeDisk } from './log/embedded/disk.ts'
import type { LogEngine } from './log/engine.ts'
import { Metrics } from './metrics.ts'
import { type OpenLog, openLog } from './open-log.ts'
import { openapi } from './openapi.ts'
import { refuse } from './permits.ts'
import { sinkConfigs } from './sinks/config.ts'
import { Sinks } from './sinks/sinks.ts'
import { openStreams, type StreamService } from './streams.ts'

/** Says in the data folder where the running collector is reached. */
const addressFile = 'collector.json'

const retryAfterBusyS = 1

/** A running collector: ingest → log → fanout, behind one HTTP server. */
export class Collector implements AsyncDisposable {
  readonly url: string
  readonly log: LogEngine
  readonly #server: HttpServer
  readonly #access: Access
  readonly #streams: StreamService
  readonly #sinks: Sinks
  readonly #lock: Disposable
  readonly #folder: string
  #closing: Promise<void> | undefined

  /** @throws UserError when the folder or the port cannot be used */
  static async open(config: CollectorConfig, logger: Logger): Promise<Collector> {
    await makeDataFolder(config.data)
    const lock = lockFolder(config.data)
    try {
      const opened = await openLog(config, logger)
      try {
        return await Collector.#serve(config, logger, opened, lock)
      } catch (error) {
        await opened.log.close()
        throw error
      }
    } catch (error) {
      lock[Symbol.dispose]()
      throw error
    }
  }

  static async #serve(
    config: CollectorConfig,
    logger: Logger,
    { log, verify }: OpenLog,
    lock: Disposable,
  ): Promise<Collector> {
    const { maxBody, maxInflated } = config.ingest
    const limits = { maxBodyBytes: maxBody, maxInflatedBytes: maxInflated }
    const ingest = new Ingest({ log, clock: systemClock, logger, ...limits })
    const streams = openStreams(log, logger, verify)
    const whole = new CompletenessService(log)
    const world = { log, notes: log.notes, clock: systemClock, random: systemRandom, logger }
    const groups = new GroupsApi(await Groups.open(world))
    const gate = new Gate(config.ingest)
    const sinks = await openSinks(config, log, logger)
    const metrics = new Metrics({ log, ingest, gate, streams, sinks })
    const access = await openAccess(config, logger)
    const answer: Handler = async (request, response, url) => {
      if (await access.answer(request, response, url)) return
      const isProbe = url.pathname === '/healthz' || url.pathname === '/readyz'
      const caller = isProbe ? anybody : access.auth.identify(request)
      if ('status' in caller) return send(response, caller)
      const isBatch = url.pathname === '/v1/batches'
      const refusal = isProbe ? undefined : refuse(caller, request, url)
      if (refusal) return send(response, refusal)
      if (isBatch) return takeBatch(request, response, ingest, gate, caller.who?.name)
      if (await groups.answer(request, response, url, caller)) return
      if (await sinks.answer(request, response, url)) return
      if (request.method !== 'GET' && request.method !== 'HEAD')
        return send(
          response,
          json(405, { code: 'method', message: 'GET only' }, { allow: 'GET, HEAD' }),
        )
      if (url.pathname === '/healthz') return sendText(response, 200, 'ok\n')
      if (url.pathname === '/readyz')
        return log.state === 'open'
          ? sendText(response, 200, 'ready\n')
          : sendText(response, 503, 'the log cannot write: see the log lines\n')
      if (url.pathname === '/metrics')
        return sendText(response, 200, await metrics.text(), metrics.contentType)
      if (await streams.answer(request, response, url, caller)) return
      if (url.pathname === '/v1/openapi.json') return send(response, json(200, openapi))
      if (await whole.answer(request, response, url)) return
      send(response, json(404, { code: 'path', message: `nothing at ${url.pathname}` }))
    }
    let server: HttpServer
    try {
      server = await HttpServer.open(config.http, answer, access.tls)
    } catch (error) {
      await access[Symbol.asyncDispose]()
      throw error
    }
    const collector = new Collector(config, log, server, access, streams, sinks, lock)
    try {
      await access.start(server)
      const address = JSON.stringify({ url: server.url, pid: process.pid })
      await writeFile(join(config.data, addressFile), `${address}\n`)
      sinks.start()
    } catch (error) {
      await access.stop()
      await server.close()
      await access[Symbol.asyncDispose]()
      throw error
    }
    return collector
  }

  private constructor(
    config: CollectorConfig,
    log: LogEngine,
    server: HttpServer,
    access: Access,
    streams: StreamService,
    sinks: Sinks,
    lock: Disposable,
  ) {
    this.url = server.url
    this.log = log
    this.#server = server
    this.#access = access
    this.#streams = streams
    this.#sinks = sinks
    this.#lock = lock
    this.#folder = config.data
  }

  /** Finishes what is in flight; safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown()
    return this.#closing
  }

  async #shutDown(): Promise<void> {
    this.#streams.stop()
    await this.#access.stop()
    await Promise.all([this.#server.close(), this.#sinks.close()])
    await this.#access[Symbol.asyncDispose]()
    await this.log.close()
    await rm(join(this.#folder, addressFile), { force: true })
    this.#lock[Symbol.dispose]()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function openSinks(config: CollectorConfig, log: LogEngine, logger: Logger): Promise<Sinks> {
  const { data, sinks } = config
  const { engine } = config.log
  return Sinks.open({
    configs: sinkConfigs(sinks),
    log,
    sharedLog: engine === 'embedded' ? undefined : `${engine} ${config.log[engine]!.name}`,
    at: hostname(),
    leaseMs: config.log.takeover,
    disk: nodeDisk(data),
    clock: systemClock,
    random: systemRandom,
    logger,
  })
}

async function makeDataFolder(folder: string): Promise<void> {
  try {
    const made = await makeFolder(folder)
    // Until the names of new folders are synced, a power cut takes them, and what is in them.
    for (let at = folder; made && at.length >= made.length; at = dirname(at))
      await nodeDisk(dirname(at)).syncDirectory('.')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why =
      code === 'EACCES' || code === 'EPERM'
        ? 'no permission to make it: make it yourself, or set data'
        : code === 'EEXIST' || code === 'ENOTDIR'
          ? 'a file is in the way: set data to a folder'
          : `cannot make it: ${code}`
    throw new UserError(`${folder}: ${why}`, { cause })
  }
}

/** Bounds the bytes of all bodies that are being received or wait for the disk. */
export class Gate {
  readonly maxBody: number
  readonly #capacity: number
  #taken = 0
  turnedAway = 0

  constructor({ maxBody, maxInFlight }: { maxBody: number; maxInFlight: number }) {
    this.maxBody = maxBody
    this.#capacity = Math.max(maxBody, maxInFlight)
  }

  get takenBytes(): number {
    return this.#taken
  }

  /** @returns undefined when there is no room */
  enter(bytes: number): Disposable | undefined {
    if (this.#taken + bytes > this.#capacity) {
      this.turnedAway += 1
      return undefined
    }
    this.#taken += bytes
    return {
      [Symbol.dispose]: () => {
        this.#taken -= bytes
      },
    }
  }
}

async function takeBatch(
  request: IncomingMessage,
  response: ServerResponse,
  ingest: Ingest,
  gate: Gate,
  sender: string | undefined,
): Promise<void> {
  if (request.method !== 'POST')
    return send(response, json(405, { code: 'method', message: 'POST only' }, { allow: 'POST' }))
  const tooLarge = () =>
    send(response, json(413, { code: 'WIRE_TOO_LARGE', message: `over ${gate.maxBody} bytes` }))
  const announced = Number(request.headers['content-length'] ?? gate.maxBody)
  if (announced > gate.maxBody) return tooLarge()
  using room = gate.enter(announced)
  if (!room)
    return send(
      response,
      json(
        429,
        { code: 'busy', message: 'too much is in flight: come back' },
        { 'retry-after': String(retryAfterBusyS) },
      ),
    )
  let body: Uint8Array | undefined
  try {
    body = await readBody(request, gate.maxBody)
  } catch {
    return // The sender went away: nobody is there to be answered.
  }
  if (!body) return tooLarge()
  send(response, await ingest.take(request.headers, body, sender))
}

function sendText(
  response: ServerResponse,
  status: number,
  text: string,
  type = 'text/plain; charset=utf-8',
): void {
  send(response, { status, headers: { 'content-type': type }, body: Buffer.from(text) })
}
