import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { TLSSocket } from 'node:tls'
import type { z } from 'zod'
import type { Labels } from '../../shared/fleet/groups.ts'
import type { HttpAnswer } from '../../shared/ports.ts'
import { systemClock } from '../../shared/system.ts'
import { type Auth, forbid } from '../auth.ts'
import { readBody, send } from '../http.ts'
import { json } from '../ingest/ingest.ts'
import { bodies } from './bodies.ts'
import type { Fleet } from './fleet.ts'
import { FleetProblem } from './problem.ts'
import { Refused } from './refused.ts'
import type { Member, Rollout } from './state.ts'
import { commonNameOf } from './who.ts'

/** A list of invitations, or signed configurations in base64 with what to go back to. */
const maxBodyBytes = 8 * 2 ** 20
/** Whoever has no certificate yet may send so much. */
const maxEnrolBytes = 16 * 1024
const keepAliveMs = 15_000
/** A list of revoked certificates is to be fetched anew within this time. */
const listLifetimeMs = 7 * 86_400_000

interface Call {
  request: IncomingMessage
  response: ServerResponse
  url: URL
  /** Common name of the manager. */
  by: string
}
type Route = (call: Call, ...parts: string[]) => Promise<HttpAnswer | undefined>

export interface FleetApiOptions {
  fleet: Fleet
  auth: Auth
  /** What an enrolled gateway is told beside its certificate. */
  ca: string
  configKeyPem: string
  fleetBroker: string
}

/** Answers below `/v1/fleet`: gateways that want in, and managers. */
export class FleetApi {
  readonly #options: FleetApiOptions
  readonly #fleet: Fleet
  readonly #stopping = new AbortController()

  constructor(options: FleetApiOptions) {
    this.#options = options
    this.#fleet = options.fleet
  }

  /** Ends whoever watches. */
  stop(): void {
    this.#stopping.abort()
  }

  /** @returns false when it is nothing of ours */
  async answer(request: IncomingMessage, response: ServerResponse, url: URL): Promise<boolean> {
    if (!url.pathname.startsWith('/v1/fleet/')) return false
    const answer = await this.#route(request, response, url).catch((error: unknown) => {
      if (error instanceof Refused || error instanceof FleetProblem)
        return json(error.status, { code: error.code, message: error.message })
      throw error
    })
    if (answer && !response.headersSent) send(response, answer)
    return true
  }

  async #route(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
  ): Promise<HttpAnswer | undefined> {
    const path = `${request.method} ${url.pathname.slice('/v1/fleet/'.length)}`
    if (path === 'GET ca') return json(200, { ca: this.#options.ca })
    if (path === 'POST enrol') return this.#enrol(request)
    if (path === 'POST renew') return this.#renew(request)
    const caller = this.#options.auth.identify(request)
    if ('status' in caller) return caller
    if (path === 'GET self' && caller.who?.role === 'agent')
      return json(200, this.#papers(this.#fleet.member(caller.who.name)))
    const refusal = forbid(caller, 'manage')
    if (refusal) return refusal
    const by = caller.who ? commonNameOf(caller.who) : 'anybody'
    for (const [pattern, route] of this.#routes) {
      const match = pattern.exec(path)
      if (match) return route({ request, response, url, by }, ...match.slice(1).map(decodePart))
    }
    return json(404, { code: 'path', message: `nothing at ${url.pathname}` })
  }

  readonly #routes: readonly [RegExp, Route][] = [
    [/^POST invitations$/, (call) => this.#invite(call)],
    [/^GET agents$/, async (call) => json(200, { agents: this.#list(call.url) })],
    [
      /^GET agents\/([^/]+)$/,
      async (_call, name) => json(200, this.#describe(this.#fleet.member(name!), true)),
    ],
    [/^PUT agents\/([^/]+)\/labels$/, (call, name) => this.#label(call, name!)],
    [/^POST revoke$/, (call) => this.#revoke(call)],
    [/^GET version$/, async () => json(200, { version: this.#fleet.state.version })],
    [/^GET versions\/(\d{1,16})$/, (_call, version) => this.#version(Number(version))],
    [/^POST desired$/, (call) => this.#push(call)],
    [/^POST commands$/, (call) => this.#command(call)],
    [/^GET results\/([^/]+)\/([^/]+)$/, async (_call, agent, id) => this.#result(agent!, id!)],
    [/^POST rollouts$/, (call) => this.#rollout(call)],
    [/^GET rollouts$/, async () => json(200, { rollouts: this.#rollouts() })],
    [
      /^GET rollouts\/([^/]+)$/,
      async (_call, id) => json(200, this.#describeRollout(this.#fleet.rollouts.find(id!))),
    ],
    [/^POST rollouts\/([^/]+)\/(halt|resume)$/, (call, id, what) => this.#steer(call, id!, what!)],
    [/^GET events$/, async (call) => this.#watch(call)],
    [/^GET audit$/, (call) => this.#audit(call)],
    [/^GET crl$/, () => this.#revocationList()],
  ]

  async #enrol(request: IncomingMessage): Promise<HttpAnswer> {
    const { token, request: csr } = await body(request, bodies.enrol, maxEnrolBytes)
    const secret = new Uint8Array(Buffer.from(token, 'base64url'))
    const { member, certificate } = await this.#fleet.enrol(secret, csr, from(request))
    return json(200, { ...this.#papers(member), certificate })
  }

  /** Also for a certificate that has just ended, which is why it is looked at here. */
  async #renew(request: IncomingMessage): Promise<HttpAnswer> {
    const { request: csr } = await body(request, bodies.renew, maxEnrolBytes)
    const { socket } = request
    const shown = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
    if (!shown) throw new Refused('foreign', 'show a client certificate')
    const { member, certificate } = await this.#fleet.registry.renew(shown, csr, from(request))
    return json(200, { ...this.#papers(member), certificate })
  }

  #papers({ name, labels }: Member): object {
    const { ca, configKeyPem, fleetBroker } = this.#options
    return { agent: name, labels, ca, configKey: configKeyPem, fleetBroker }
  }

  async #invite({ request, by }: Call): Promise<HttpAnswer> {
    const { invitations, ttlMs } = await body(request, bodies.invite)
    const expiresMs = systemClock.wallMs() + ttlMs
    await this.#fleet.invite(
      by,
      invitations.map((invitation) => ({ ...invitation, expiresMs })),
    )
    return json(200, { invited: invitations.length, expiresAt: new Date(expiresMs).toISOString() })
  }

  async #revoke({ request, by }: Call): Promise<HttpAnswer> {
    const { name } = await body(request, bodies.revoke)
    await this.#fleet.revoke(by, name)
    return json(200, { revoked: name })
  }

  async #label({ request, by }: Call, name: string): Promise<HttpAnswer> {
    const given: { labels: Labels } = await body(request, bodies.labels)
    await this.#fleet.label(by, name, given.labels)
    return json(200, this.#describe(this.#fleet.member(name), false))
  }

  async #version(version: number): Promise<HttpAnswer> {
    const envelope = await this.#fleet.envelope(version)
    return json(200, { version, envelope: Buffer.from(envelope).toString('base64') })
  }

  async #push({ request, by }: Call): Promise<HttpAnswer> {
    const { envelope } = await body(request, bodies.envelope)
    return json(200, await this.#fleet.push(by, envelope))
  }

  async #command({ request, by }: Call): Promise<HttpAnswer> {
    const { envelope } = await body(request, bodies.envelope)
    await this.#fleet.command(by, envelope)
    return json(200, {})
  }

  #result(agent: string, id: string): HttpAnswer {
    const result = this.#fleet.reports.results.get(`${agent} ${id}`)
    return result
      ? json(200, result)
      : json(404, { code: 'result', message: `no result of ${id} yet` })
  }

  async #rollout({ request, by }: Call): Promise<HttpAnswer> {
    const { envelope, reverts, ...plan } = await body(request, bodies.rollout)
    const id = await this.#fleet.rollout(by, envelope, reverts, plan)
    return json(200, this.#describeRollout(this.#fleet.rollouts.find(id)))
  }

  async #steer({ request, by }: Call, id: string, what: string): Promise<HttpAnswer> {
    const { why } = await body(request, bodies.why)
    if (what === 'halt') await this.#fleet.rollouts.halt(by, id, why)
    else await this.#fleet.rollouts.resume(by, id)
    return json(200, this.#describeRollout(this.#fleet.rollouts.find(id)))
  }

  #list(url: URL): object[] {
    const group = url.searchParams.get('group')
    const { state } = this.#fleet
    const members = group === null ? [...state.members.values()] : state.inGroup(group)
    return members
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((member) => this.#describe(member, false))
  }

  #describe(member: Member, whole: boolean): object {
    const { name, labels, enrolledMs, revokedMs, desired, outcomes, certificates } = member
    const heard = this.#fleet.reports.heard.get(name)
    const history = [...outcomes].map(([version, { state, atMs, why }]) => ({
      version,
      state,
      at: iso(atMs),
      why,
    }))
    const expiresMs = Math.max(0, ...certificates.map(({ notAfterMs }) => notAfterMs))
    return {
      agent: name,
      labels,
      online: this.#fleet.isOnline(name),
      lastHeardAt: iso(heard?.atMs),
      revokedAt: iso(revokedMs),
      desired: desired?.version,
      reported: heard?.reported,
      ...(whole && {
        enrolledAt: iso(enrolledMs),
        certificateExpiresAt: iso(expiresMs || undefined),
        status: heard?.status,
        history,
      }),
    }
  }

  #rollouts(): object[] {
    return [...this.#fleet.state.rollouts.values()].map((rollout) => this.#describeRollout(rollout))
  }

  #describeRollout(rollout: Rollout): object {
    const { id, plan, by, startedMs, phase, why, waves, reverted } = rollout
    const { group, version } = plan
    return {
      id,
      group,
      version,
      by,
      startedAt: iso(startedMs),
      phase,
      why,
      waves: waves.map(({ agents, atMs }) => ({ agents: agents.length, at: iso(atMs) })),
      wavesPlanned: plan.waves.length,
      members: this.#fleet.state.inGroup(group).length,
      ...this.#fleet.rollouts.standing(rollout),
      reverted: reverted.length,
    }
  }

  async #watch({ response }: Call): Promise<undefined> {
    response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
    response.flushHeaders()
    // A watcher that does not read misses news rather than costing memory.
    const write = (text: string) => {
      if (!response.writableNeedDrain) response.write(text)
    }
    const end = this.#fleet.reports.listen((news) => write(`${JSON.stringify(news)}\n`))
    const beat = setInterval(() => write('\n'), keepAliveMs)
    const stop = () => response.end()
    this.#stopping.signal.addEventListener('abort', stop, { once: true })
    response.on('close', () => {
      end()
      clearInterval(beat)
      this.#stopping.signal.removeEventListener('abort', stop)
    })
  }

  async #audit({ response }: Call): Promise<undefined> {
    const lines = await this.#fleet.journal.lines()
    response.writeHead(200, { 'content-type': 'application/x-ndjson; charset=utf-8' })
    // Whoever goes away in the middle has what they have.
    await pipeline(lines, response).catch(() => response.destroy())
  }

  async #revocationList(): Promise<HttpAnswer> {
    const nowMs = systemClock.wallMs()
    const revoked = this.#fleet.state.revokedSerials(nowMs)
    const text = await this.#fleet.registry.revocationList(revoked, nowMs, listLifetimeMs)
    return {
      status: 200,
      headers: { 'content-type': 'application/x-pem-file' },
      body: new TextEncoder().encode(text),
    }
  }
}

async function body<Schema extends z.ZodType>(
  request: IncomingMessage,
  schema: Schema,
  limitBytes = maxBodyBytes,
): Promise<z.output<Schema>> {
  const bytes = await readBody(request, limitBytes)
  if (!bytes) throw new FleetProblem(413, 'size', `over ${limitBytes} bytes`)
  let content: unknown
  try {
    content = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw new FleetProblem(400, 'json', 'the body is no JSON')
  }
  const { data, error } = schema.safeParse(content)
  if (!error) return data
  const [issue] = error.issues
  throw new FleetProblem(400, 'body', `${issue?.path.join('.')}: ${issue?.message}`)
}

/** A part of an address; one that is none names nothing. */
function decodePart(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

function from({ socket }: IncomingMessage): string {
  return socket.remoteAddress ?? ''
}

function iso(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : new Date(ms).toISOString()
}
