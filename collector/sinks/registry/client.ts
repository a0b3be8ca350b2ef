import { readFileSync } from 'node:fs'
import { Agent, type Dispatcher, ProxyAgent } from 'undici'
import { z } from 'zod'
import { CodedFailure } from '../../../shared/failure.ts'
import { proxyFor } from '../../../shared/proxy.ts'
import type { RegistryConfig } from '../registry.ts'
import type { Schema } from './schemas.ts'

const mediaType = 'application/vnd.schemaregistry.v1+json'
const maxAnswerBytes = 1024 * 1024
const maxReasonLength = 300

/** It travels as four bytes. */
const known = z.object({ id: z.int().min(0).max(0x7fff_ffff) })
const problem = z.object({ message: z.string() })

export const registryFailures = {
  REGISTRY_UNREACHABLE: { retry: true, meaning: 'the schema registry does not answer' },
  REGISTRY_REFUSED: { retry: false, meaning: 'the schema registry refuses' },
} as const

export class RegistryFailure extends CodedFailure<keyof typeof registryFailures> {
  constructor(
    code: keyof typeof registryFailures,
    detail: string,
    options: { cause?: unknown } = {},
  ) {
    super(registryFailures, code, detail, options)
    this.name = 'RegistryFailure'
  }
}

/** A schema registry, by the HTTP interface of Confluent's. */
export class RegistryClient implements AsyncDisposable {
  readonly #config: RegistryConfig
  readonly #url: string
  readonly #dispatcher: Dispatcher
  readonly #authorization: string | undefined

  /** @throws RegistryFailure REGISTRY_REFUSED when one of the files cannot be read */
  constructor(config: RegistryConfig) {
    const { url, ca, username, password, token } = config
    this.#config = config
    this.#url = url.replace(/\/+$/, '')
    // An authority that is itself signed by another one is believed as it stands.
    const tls = ca !== undefined && { ca: readSecret(ca), allowPartialTrustChain: true }
    const proxy = proxyFor(url, process.env)
    this.#dispatcher = proxy
      ? new ProxyAgent({ uri: proxy, ...(tls && { requestTls: tls }) })
      : new Agent({ ...(tls && { connect: tls }) })
    if (token !== undefined) this.#authorization = `Bearer ${readSecret(token)}`
    if (username !== undefined && password !== undefined) {
      const both = Buffer.from(`${username}:${readSecret(password)}`)
      this.#authorization = `Basic ${both.toString('base64')}`
    }
  }

  /**
   * The number that a schema has there, by which whoever reads finds it; registered unless it was.
   *
   * @throws RegistryFailure
   */
  async idOf(subject: string, schema: Schema): Promise<number> {
    const path = `/subjects/${encodeURIComponent(subject)}`
    const { kind, text } = schema
    const asked = { schema: text, ...(kind !== 'AVRO' && { schemaType: kind }) }
    // Who may only read goes on with what somebody else has registered.
    const found = await this.#post(path, asked)
    const answer = found.status === 404 ? await this.#post(`${path}/versions`, asked) : found
    const { success, data } = known.safeParse(answer.document)
    if (answer.status === 200 && success) return data.id
    const { message } = problem.safeParse(answer.document).data ?? { message: answer.text }
    const reason = message.replaceAll(/\s+/g, ' ').trim().slice(0, maxReasonLength)
    const detail = `${this.#url}: ${subject}: ${answer.status} ${reason}`.trimEnd()
    if (answer.status === 429 || answer.status >= 500)
      throw new RegistryFailure('REGISTRY_UNREACHABLE', detail)
    throw new RegistryFailure('REGISTRY_REFUSED', `${detail}${adviceOn(answer.status, subject)}`)
  }

  /** Where whoever has the number finds the schema. */
  addressOf(id: number): string {
    return `${this.#url}/schemas/ids/${id}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy()
  }

  async #post(path: string, asked: object): Promise<Answer> {
    const { origin, pathname } = new URL(`${this.#url}${path}`)
    const { timeout } = this.#config
    try {
      const response = await this.#dispatcher.request({
        origin,
        path: pathname,
        method: 'POST',
        headers: {
          'user-agent': 'headgate',
          'content-type': mediaType,
          accept: `${mediaType}, application/json`,
          ...(this.#authorization !== undefined && { authorization: this.#authorization }),
        },
        body: JSON.stringify(asked),
        signal: AbortSignal.timeout(timeout),
      })
      const chunks: Buffer[] = []
      let length = 0
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        length += chunk.length
        if (length > maxAnswerBytes)
          throw new Error(`an answer of more than ${maxAnswerBytes} bytes`)
        chunks.push(chunk)
      }
      const text = Buffer.concat(chunks).toString('utf8')
      return { status: response.statusCode, text, document: parsed(text) }
    } catch (cause) {
      const detail = `${this.#url}: ${(cause as Error).message}`
      throw new RegistryFailure('REGISTRY_UNREACHABLE', detail, { cause })
    }
  }
}

interface Answer {
  status: number
  text: string
  /** Undefined where the text is no JSON. */
  document: unknown
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function adviceOn(status: number, subject: string): string {
  switch (status) {
    case 200:
      return ': that is no answer of a schema registry: check its url'
    case 401:
    case 403:
      return ': check its username, password or token, which take the right to write the subject'
    case 404:
      return ': check its url'
    case 409:
      return `: what is there under ${subject} goes with another schema: take another topic, or set the subject's compatibility to NONE until this one is registered`
    default:
      return ''
  }
}

function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new RegistryFailure('REGISTRY_REFUSED', `${file} cannot be read (${code})`, { cause })
  }
}
