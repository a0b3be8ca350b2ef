import type { IncomingMessage, ServerResponse } from 'node:http'
import { z } from 'zod'
import type { Logger } from '../../shared/log.ts'
import type { Clock, Disk, HttpAnswer, Random } from '../../shared/ports.ts'
import { drained, readBody, send } from '../http.ts'
import { json } from '../ingest/ingest.ts'
import { readWhole, replaceFile } from '../log/embedded/snapshot.ts'
import type { LogEngine } from '../log/engine.ts'
import { QueryProblem } from '../query.ts'
import type { SinkConfig } from './config.ts'
import { SinkRunner, type SinkStatus } from './runner.ts'

export interface SinksOptions {
  configs: readonly SinkConfig[]
  log: LogEngine
  /** The log as others name it, where several collectors have it; undefined where it is this one's own. */
  sharedLog: string | undefined
  /** This collector, as others are told where a sink is run. */
  at: string
  /** After so long of silence another collector of the log takes a sink over. */
  leaseMs: number
  /** The collector's data folder. */
  disk: Disk
  clock: Clock
  random: Random
  logger: Logger
}

const maxBodyBytes = 64 * 1024
const rangeSchema = z.strictObject({
  from: z.string().max(16_384).optional(),
  to: z.string().max(64).optional(),
})

/** Every configured output, each at its own pace. None hurts another, nor what comes in. */
export class Sinks implements AsyncDisposable {
  readonly #runners: readonly SinkRunner[]

  /** Where each begins is settled once this resolves; `start` begins to write. @throws UserError */
  static async open(options: SinksOptions): Promise<Sinks> {
    const { configs, sharedLog, at, ...rest } = options
    const { disk, log, random } = options
    if (configs.length === 0) return new Sinks([])
    await disk.makeDirectory('sinks')
    await disk.syncDirectory('.')
    const origin = sharedLog ?? (await originOf(disk, random))
    const self = { id: Buffer.from(random.bytes(16)).toString('hex'), at }
    const runners: SinkRunner[] = []
    for (const config of configs) {
      const isAlone = sharedLog === undefined
      const { notes } = log
      runners.push(await SinkRunner.open({ ...rest, notes, config, origin, self, isAlone }))
    }
    return new Sinks(runners)
  }

  private constructor(runners: readonly SinkRunner[]) {
    this.#runners = runners
  }

  start(): void {
    for (const runner of this.#runners) runner.start()
  }

  status(): Promise<SinkStatus[]> {
    return Promise.all(this.#runners.map((runner) => runner.status()))
  }

  /** Answers what is asked below `/v1/sinks`; false when it is nothing of ours. */
  async answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> {
    if (!isSinksPath(url.pathname)) return false
    const answer = await this.#answer(request, response, url)
    if (answer) send(response, answer)
    return true
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
  ): Promise<HttpAnswer | undefined> {
    const call = `${request.method} ${url.pathname}`
    if (call === 'GET /v1/sinks') return json(200, { sinks: await this.status() })
    const [, method, name, what] =
      /^(GET|POST) \/v1\/sinks\/([A-Za-z0-9_-]+)\/(pause|resume|backfill|dead)$/.exec(call) ?? []
    if (what === undefined || (method === 'GET') !== (what === 'dead'))
      return json(404, { code: 'path', message: `nothing at ${request.method} ${url.pathname}` })
    const runner = this.#runners.find(({ config }) => config.name === name)
    if (!runner) return json(404, { code: 'sink', message: `no sink "${name}"` })
    if (what === 'dead') return sendLines(response, runner.deadLetter.lines())
    // A page in a browser on this machine cannot ask for JSON without being asked where it is from.
    if (!/^application\/json\b/.test(request.headers['content-type'] ?? ''))
      return json(415, { code: 'type', message: 'send JSON, as application/json' })
    const range = await readRange(request)
    if ('status' in range) return range
    try {
      if (what === 'backfill') await runner.again(range)
      else await (what === 'pause' ? runner.pause() : runner.resume())
    } catch (error) {
      if (!(error instanceof QueryProblem)) throw error
      return json(400, { code: 'query', message: error.message })
    }
    return json(200, await runner.status())
  }

  /** Lets each finish what it is at; safe to call twice. */
  async close(): Promise<void> {
    await Promise.all(this.#runners.map((runner) => runner.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

export function isSinksPath(path: string): boolean {
  return path === '/v1/sinks' || path.startsWith('/v1/sinks/')
}

/** @returns an answer instead, where the body is none */
async function readRange(
  request: IncomingMessage,
): Promise<z.output<typeof rangeSchema> | HttpAnswer> {
  const refuse = (message: string) => json(400, { code: 'body', message })
  const body = await readBody(request, maxBodyBytes)
  if (!body) return refuse(`over ${maxBodyBytes} bytes`)
  try {
    return rangeSchema.parse(JSON.parse(Buffer.from(body).toString('utf8') || '{}'))
  } catch {
    return refuse('expected an object with from and to, both texts and both optional')
  }
}

async function sendLines(
  response: ServerResponse,
  lines: AsyncIterable<string>,
): Promise<undefined> {
  response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
  for await (const line of lines) {
    response.write(`${line}\n`)
    await drained(response)
    if (response.destroyed) return
  }
  response.end()
}

/** Made once: what tells this log from another that is written to the same place. */
async function originOf(disk: Disk, random: Random): Promise<string> {
  const name = 'origin'
  if (!(await disk.list('sinks')).includes(name))
    await replaceFile(disk, 'sinks', name, (write) =>
      write([Buffer.from(`${Buffer.from(random.bytes(16)).toString('hex')}\n`)]),
    )
  return Buffer.from(await readWhole(disk, `sinks/${name}`))
    .toString('utf8')
    .trim()
}
