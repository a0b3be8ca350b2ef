import type { Readable } from 'node:stream'
import { Agent, type Dispatcher, ProxyAgent } from 'undici'
import { UserError } from '../../shared/failure.ts'
import type { Labels } from '../../shared/fleet/groups.ts'
import type {
  AgentReport,
  CommandResult,
  Reported,
  ReportState,
} from '../../shared/fleet/reports.ts'
import { proxyFor } from '../../shared/proxy.ts'
import type { ManagerFiles } from '../fleet/files.ts'
import type { Amount } from '../fleet/rollout.ts'

/** An agent as the collector describes it. */
export interface AgentView {
  agent: string
  labels: Labels
  online: boolean
  lastHeardAt?: string
  revokedAt?: string
  /** Version that it is to run. */
  desired?: number
  reported?: Reported
  enrolledAt?: string
  certificateExpiresAt?: string
  status?: AgentReport
  history?: { version: number; state: ReportState; at: string; why?: string }[]
}

export interface RolloutView {
  id: string
  group: string
  version: number
  by: string
  startedAt: string
  phase: 'running' | 'halted' | 'finished'
  why?: string
  waves: { agents: number; at: string }[]
  wavesPlanned: number
  members: number
  sent: number
  good: number
  failed: number
  pending: number
  reverted: number
}

export interface RolloutRequest {
  envelope: Uint8Array
  reverts: { envelope: Uint8Array; agents: readonly string[] }[]
  waves: readonly Amount[]
  pauseMs: number
  maxFailures: Amount
  minGoodPercent: number
  timeoutMs: number
}

/** So far may what an agent reports be above what is known to have been sent: some may have been lost. */
const maxAhead = 10_000

/**
 * The highest version that an agent is known to have seen. Nobody signs what it reports: it counts for this
 * agent alone, and only within reason.
 *
 * @param sent the highest version that is known to have been sent to anybody
 */
export function highestVersion(sent: number, agent: string, reported: Reported | undefined) {
  const known = Math.max(sent, reported?.version ?? 0, reported?.desired ?? 0)
  if (known <= sent + maxAhead) return known
  throw new UserError(
    `${agent} reports version ${known}, far above ${sent}, the highest that is known: find out who speaks under its name`,
  )
}

/** The collector has said no. */
export class ApiRefused extends UserError {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** What a manager can do by way of the collector, or straight over the broker. */
export interface FleetAccess extends AsyncDisposable {
  agents(group?: string): Promise<AgentView[]>
  agent(name: string): Promise<AgentView>
  /** The highest version that was used, as far as is known; for `agent`, by its own report too. */
  version(agent?: string): Promise<number>
  /** The signed bytes of a version; undefined where they are not kept. */
  envelope(version: number): Promise<Uint8Array | undefined>
  push(envelope: Uint8Array): Promise<{ agents: string[] }>
  command(envelope: Uint8Array): Promise<unknown>
  /** @returns undefined while there is none */
  result(agent: string, id: string): Promise<CommandResult | undefined>
  /** What happens, until `signal` aborts. */
  events(signal: AbortSignal): AsyncIterable<Record<string, unknown>>
}

/** A manager's view of a fleet, over the collector's API. */
export class FleetClient implements FleetAccess {
  readonly #origin: string
  readonly #base: string
  readonly #dispatcher: Dispatcher

  constructor(url: string, { ca, cert, key }: Pick<ManagerFiles, 'ca' | 'cert' | 'key'>) {
    const { origin, pathname } = new URL(url)
    this.#origin = origin
    this.#base = `${pathname.replace(/\/+$/, '')}/v1/fleet/`
    const tls = { ca, cert, key, allowPartialTrustChain: true }
    const proxy = proxyFor(url, process.env)
    this.#dispatcher = proxy
      ? new ProxyAgent({ uri: proxy, requestTls: tls })
      : new Agent({ connect: { timeout: 10_000, ...tls } })
  }

  invite(
    invitations: readonly { agent: string; labels: Labels; hash: string }[],
    ttlMs: number,
  ): Promise<{ expiresAt: string }> {
    return this.#ask('POST', 'invitations', { invitations, ttlMs })
  }

  revoke(name: string): Promise<unknown> {
    return this.#ask('POST', 'revoke', { name })
  }

  label(agent: string, labels: Labels): Promise<unknown> {
    return this.#ask('PUT', `agents/${encodeURIComponent(agent)}/labels`, { labels })
  }

  async agents(group?: string): Promise<AgentView[]> {
    const query = group === undefined ? '' : `?group=${encodeURIComponent(group)}`
    return (await this.#ask<{ agents: AgentView[] }>('GET', `agents${query}`)).agents
  }

  agent(name: string): Promise<AgentView> {
    return this.#ask('GET', `agents/${encodeURIComponent(name)}`)
  }

  async version(agent?: string): Promise<number> {
    const { version } = await this.#ask<{ version: number }>('GET', 'version')
    // A collector that was put back from a copy knows less than its agents.
    return agent === undefined
      ? version
      : highestVersion(version, agent, (await this.agent(agent)).reported)
  }

  async envelope(version: number): Promise<Uint8Array | undefined> {
    const kept = await this.#unless<{ envelope: string }>('version', `versions/${version}`)
    return kept && new Uint8Array(Buffer.from(kept.envelope, 'base64'))
  }

  push(envelope: Uint8Array): Promise<{ version: number; agents: string[] }> {
    return this.#ask('POST', 'desired', { envelope: base64(envelope) })
  }

  command(envelope: Uint8Array): Promise<unknown> {
    return this.#ask('POST', 'commands', { envelope: base64(envelope) })
  }

  /** @returns undefined while there is none */
  result(agent: string, id: string): Promise<CommandResult | undefined> {
    return this.#unless('result', `results/${encodeURIComponent(agent)}/${id}`)
  }

  rollout({ envelope, reverts, ...plan }: RolloutRequest): Promise<RolloutView> {
    return this.#ask('POST', 'rollouts', {
      ...plan,
      envelope: base64(envelope),
      reverts: reverts.map((revert) => ({ ...revert, envelope: base64(revert.envelope) })),
    })
  }

  async rollouts(): Promise<RolloutView[]> {
    return (await this.#ask<{ rollouts: RolloutView[] }>('GET', 'rollouts')).rollouts
  }

  rolloutOf(id: string): Promise<RolloutView> {
    return this.#ask('GET', `rollouts/${encodeURIComponent(id)}`)
  }

  steer(id: string, what: 'halt' | 'resume', why = 'asked for'): Promise<RolloutView> {
    return this.#ask('POST', `rollouts/${encodeURIComponent(id)}/${what}`, { why })
  }

  /** The journal's lines as they stand: they may be more than a text can hold. */
  async audit(): Promise<Readable> {
    return (await this.#send('GET', 'audit')).body
  }

  revocationList(): Promise<string> {
    return this.#text('crl')
  }

  /** What happens, line by line, until `signal` aborts. */
  async *events(signal: AbortSignal): AsyncIterable<Record<string, unknown>> {
    const { body } = await this.#send('GET', 'events', undefined, signal)
    let rest = ''
    for await (const chunk of body.setEncoding('utf8')) {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop()!
      for (const line of lines) if (line !== '') yield JSON.parse(line)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy()
  }

  /** @returns undefined where the answer is that there is none, by its code */
  async #unless<T>(code: string, path: string): Promise<T | undefined> {
    try {
      return await this.#ask('GET', path)
    } catch (error) {
      if (error instanceof ApiRefused && error.code === code) return undefined
      throw error
    }
  }

  async #ask<T>(method: Dispatcher.HttpMethod, path: string, content?: object): Promise<T> {
    const { body } = await this.#send(method, path, content)
    return (await body.json()) as T
  }

  async #text(path: string): Promise<string> {
    return (await this.#send('GET', path)).body.text()
  }

  async #send(
    method: Dispatcher.HttpMethod,
    path: string,
    content?: object,
    signal?: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    let answer: Dispatcher.ResponseData
    try {
      answer = await this.#dispatcher.request({
        origin: this.#origin,
        path: this.#base + path,
        method,
        body: content ? JSON.stringify(content) : null,
        ...(content && { headers: { 'content-type': 'application/json' } }),
        ...(signal && { signal, bodyTimeout: 0 }),
      })
    } catch (cause) {
      if (signal?.aborted) throw cause
      const { code, message } = cause as NodeJS.ErrnoException
      const why =
        code === 'ECONNREFUSED' ? 'nobody listens there: does the collector run?' : message
      throw new UserError(`${this.#origin}: ${why}`, { cause })
    }
    if (answer.statusCode === 200) return answer
    const text = await answer.body.text()
    let refusal: { code?: string; message?: string } = {}
    try {
      refusal = JSON.parse(text)
    } catch {
      // A proxy's page, say.
    }
    throw new ApiRefused(
      refusal.code ?? String(answer.statusCode),
      refusal.message ?? `${this.#origin} answers ${answer.statusCode}`,
    )
  }
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
