import { createHash, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Dispatcher } from 'undici'
import { z } from 'zod'
import { UserError } from '../../shared/failure.ts'
import { parseInvitation } from '../../shared/fleet/invitation.ts'
import { isAgentName } from '../../shared/fleet/topics.ts'
import { openDispatcher, type TlsFiles } from '../uplink/http.ts'
import {
  gatewayKey,
  type Identity,
  identityTls,
  type Papers,
  writeIdentity,
  writePapers,
  writeRenewal,
} from './identity.ts'
import { certificateRequest } from './request.ts'

const timeoutMs = 30_000
const maxAnswerBytes = 64 * 1024

const authoritySchema = z.object({ ca: z.string() })
const selfSchema = z.object({
  agent: z.string().refine(isAgentName),
  labels: z.record(z.string(), z.string()),
  /** Dialled as it stands: what is no address would end the agent. */
  fleetBroker: z.url({ protocol: /^(mqtts|wss)$/, hostname: /./ }),
})
const papersSchema = selfSchema.extend({
  certificate: z.string(),
  ca: z.string(),
  configKey: z.string(),
})

/** The collector has said no; another try with the same token says no again. */
export class EnrolRefused extends UserError {}

export interface EnrolOptions {
  /** The collector's address. */
  url: string
  token: string
  /** `<data>/identity` */
  folder: string
  proxy?: string | undefined
  /** What the gateway is called by its own file; the invitation must be for the same. */
  agent?: string | undefined
}

/**
 * Makes the gateway a member of the fleet that the token is from.
 *
 * The token names the authority, so the first connection, which can check nothing yet, only fetches the
 * authority's certificate; the secret is sent once that is known to be the right one.
 *
 * @returns the agent's name
 * @throws EnrolRefused when another try is of no use; UserError otherwise
 */
export async function enrol({ url, token, folder, proxy, agent }: EnrolOptions): Promise<string> {
  const invitation = parseInvitation(token)
  if (!invitation) throw new EnrolRefused('the token is none: it looks like hg1.….…')
  const key = await gatewayKey(folder)
  const unchecked = await call(url, proxy, { rejectUnauthorized: false }, 'GET', 'ca')
  const { ca } = understood(authoritySchema, unchecked, url)
  const { raw } = certificateIn(ca, url)
  if (!createHash('sha256').update(raw).digest().equals(invitation.pin))
    throw new UserError(
      `${url} is not the collector that the token is from: check the address, and who answers there`,
    )
  const answer = await call(url, proxy, { ca }, 'POST', 'enrol', {
    token: Buffer.from(invitation.secret).toString('base64url'),
    request: certificateRequest(key, agent ?? 'gateway'),
  })
  const papers = usable(understood(papersSchema, answer, url), key, url)
  if (agent !== undefined && papers.agent !== agent)
    throw new EnrolRefused(
      `the token is for ${papers.agent}, but agent.yaml says ${agent}: set agent, or ask for another invitation`,
    )
  await writePapers(folder, papers, url)
  // Shown once, the certificate ends the token.
  await call(url, proxy, identityTls(folder)!, 'GET', 'self')
  return papers.agent
}

/** Gets a certificate for the same key that ends later. @throws UserError */
export async function renew(
  url: string,
  proxy: string | undefined,
  folder: string,
  agent: string,
): Promise<void> {
  const tls = identityTls(folder)
  if (!tls) throw new UserError(`${folder}: no identity to renew`)
  const key = await gatewayKey(folder)
  const request = certificateRequest(key, agent)
  const answer = await call(url, proxy, tls, 'POST', 'renew', { request })
  await writeRenewal(folder, usable(understood(papersSchema, answer, url), key, url), url)
}

/** Learns what the fleet says of the gateway by now: its labels, and where its broker is. @throws UserError */
export async function refresh(
  { collector, ...known }: Identity,
  proxy: string | undefined,
  folder: string,
): Promise<void> {
  const tls = identityTls(folder)
  if (!tls) throw new UserError(`${folder}: no identity`)
  const said = understood(selfSchema, await call(collector, proxy, tls, 'GET', 'self'), collector)
  const { agent, labels, fleetBroker } = known
  if (!isDeepStrictEqual(said, { agent, labels, fleetBroker }))
    await writeIdentity(folder, { ...said, collector })
}

/** An answer of its shape: whoever stands between may have given another. @throws UserError */
function understood<Schema extends z.ZodType>(
  schema: Schema,
  answer: unknown,
  url: string,
): z.output<Schema> {
  const { data, success, error } = schema.safeParse(answer)
  if (success) return data
  throw new UserError(`${url}: ${notCollector}`, { cause: error })
}

/** @throws UserError where it is none */
function certificateIn(pem: string, url: string): X509Certificate {
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    throw new UserError(`${url}: ${notCollector}`, { cause })
  }
}

/** Once written, papers take the place of those before: only what will work is. @throws UserError */
function usable(papers: Papers, key: KeyObject, url: string): Papers {
  if (!certificateIn(papers.certificate, url).checkPrivateKey(key))
    throw new UserError(`${url}: the certificate that came is not for the gateway's key`)
  try {
    createPublicKey(papers.configKey)
  } catch (cause) {
    throw new UserError(`${url}: ${notCollector}`, { cause })
  }
  return papers
}

const notCollector = 'what answers there is no collector: check the address, and what is in between'

async function call(
  url: string,
  proxy: string | undefined,
  tls: TlsFiles,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<unknown> {
  const { origin, pathname } = new URL(url)
  const dispatcher = openDispatcher(origin, tls, proxy)
  try {
    const { statusCode, body: answer } = await dispatcher.request({
      origin,
      method,
      path: `${pathname.replace(/\/+$/, '')}/v1/fleet/${path}`,
      headers: { 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    })
    const content = await readJson(answer)
    if (statusCode === 200) return content
    const { code, message } = content as { code?: string; message?: string }
    const text = `${url}: ${message ?? `answers ${statusCode}`}`
    const final = statusCode >= 400 && statusCode < 500 && code !== undefined && statusCode !== 429
    throw final ? new EnrolRefused(text) : new UserError(text)
  } catch (cause) {
    if (cause instanceof UserError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    const why = code === 'ECONNREFUSED' ? 'nobody listens there' : message
    throw new UserError(`${url}: ${why}`, { cause })
  } finally {
    await dispatcher.destroy()
  }
}

async function readJson(body: Dispatcher.ResponseData['body']): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of body) {
    length += chunk.length
    if (length > maxAnswerBytes) throw new UserError('the answer is too long for a collector’s')
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    return {} // A proxy's page, say: the status says enough.
  }
}
