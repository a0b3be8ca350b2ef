import { type KeyObject, sign as signBytes, verify } from 'node:crypto'
import type { CborValue } from '../batch/cbor.ts'
import { CborReader } from '../batch/cbor-reader.ts'
import { CborWriter } from '../batch/cbor-writer.ts'
import { WireFailure } from '../batch/failure.ts'
import { EnvelopeFailure } from './failure.ts'
import { groupProblem } from './groups.ts'
import { isAgentName, isCommandId } from './topics.ts'

export { EnvelopeFailure, type EnvelopeFailureCode, envelopeFailures } from './failure.ts'

/** Largest envelope, bytes. */
export const maxEnvelopeBytes = 256 * 1024

/** What YAML and JSON have in common: a document as it is signed. */
export type DocumentValue =
  | number
  | string
  | boolean
  | null
  | DocumentValue[]
  | { [key: string]: DocumentValue }
export type Document = { [key: string]: DocumentValue }

/** Whom a configuration is for. */
export type Target = { agent: string; group?: undefined } | { group: string; agent?: undefined }

/** A configuration on its way to an agent, or to every agent of a group. */
export type Configuration = Target & {
  kind: 'configuration'
  /** 1 … 2^53 − 1; one counter per fleet. */
  version: number
  /** Wall clock, ms since 1970: it is applied from then on, and not any more from `expiresMs` on. */
  notBeforeMs: number
  expiresMs: number
  document: Document
}

/** Something for one agent to do, once. */
export interface Command {
  kind: 'command'
  agent: string
  id: string
  command: string
  arguments: Document
  /** Wall clock, ms since 1970: from then on it is not begun any more. */
  expiresMs: number
}

export type Envelope = Configuration | Command

/*
 * COSE_Sign1, RFC 9052 section 4.2, tagged:
 *
 *   d2                                    tag 18
 *   84                                    array of 4
 *     bstr { 1: -8, 3: content type }     protected header: EdDSA, and what the payload is
 *     a0                                  unprotected header: nothing
 *     bstr payload                        CBOR map, deterministic
 *     bstr signature                      64 bytes
 *
 * Signed is [ "Signature1", protected header, h'', payload ]. The content type is in the protected header,
 * so that no command can be taken for a configuration, or the other way round.
 */
const tag18 = 0xd2
const signatureBytes = 64
const protectedHeaders = {
  configuration: protectedHeader('application/vnd.headgate.configuration+cbor'),
  command: protectedHeader('application/vnd.headgate.command+cbor'),
} as const

/**
 * Signs an envelope.
 *
 * @param privateKey Ed25519
 * @throws RangeError on an envelope that `open` would not take; EnvelopeFailure when it is too large
 */
export function sign(envelope: Envelope, privateKey: KeyObject): Uint8Array {
  if (privateKey.asymmetricKeyType !== 'ed25519')
    throw new RangeError('envelopes are signed with Ed25519')
  const header = protectedHeaders[envelope.kind]
  const payload = encodePayload(envelope)
  try {
    readPayload(envelope.kind, payload)
  } catch (cause) {
    throw new RangeError((cause as Error).message, { cause })
  }
  const signature = signBytes(null, signedBytes(header, payload), privateKey)
  const writer = new CborWriter(payload.length + 256)
  writer.byte(tag18)
  writer.array(4)
  writer.bytes(header)
  writer.map(0)
  writer.bytes(payload)
  writer.bytes(signature)
  if (writer.length > maxEnvelopeBytes)
    throw new EnvelopeFailure('ENVELOPE_TOO_LARGE', `${writer.length} bytes`)
  return writer.take()
}

/**
 * Reads foreign bytes: their signature first, and only what it vouches for. It says nothing about whom the
 * envelope is for, and whether it is too old.
 *
 * @throws EnvelopeFailure
 */
export function open<Kind extends Envelope['kind']>(
  kind: Kind,
  bytes: Uint8Array,
  publicKey: KeyObject,
): Extract<Envelope, { kind: Kind }> {
  if (bytes.length > maxEnvelopeBytes)
    throw new EnvelopeFailure('ENVELOPE_TOO_LARGE', `${bytes.length} bytes`)
  const { header, payload, signature } = readSign1(bytes)
  if (Buffer.compare(header, protectedHeaders[kind]) !== 0)
    throw new EnvelopeFailure('ENVELOPE_MALFORMED', `its protected header is not that of a ${kind}`)
  if (
    publicKey.asymmetricKeyType !== 'ed25519' ||
    !verify(null, signedBytes(header, payload), publicKey, signature)
  )
    throw new EnvelopeFailure('ENVELOPE_FORGED', `${bytes.length} bytes`)
  return readPayload(kind, payload) as Extract<Envelope, { kind: Kind }>
}

function protectedHeader(contentType: string): Uint8Array {
  const writer = new CborWriter()
  writer.map(2)
  writer.int(1)
  writer.int(-8)
  writer.int(3)
  writer.text(contentType)
  return writer.take()
}

function signedBytes(header: Uint8Array, payload: Uint8Array): Uint8Array {
  const writer = new CborWriter(payload.length + 128)
  writer.array(4)
  writer.text('Signature1')
  writer.bytes(header)
  writer.bytes(new Uint8Array(0))
  writer.bytes(payload)
  return writer.take()
}

function readSign1(bytes: Uint8Array) {
  if (bytes[0] !== tag18) throw new EnvelopeFailure('ENVELOPE_MALFORMED', 'no tag 18 in front')
  return guarded('ENVELOPE_MALFORMED', () => {
    const reader = new CborReader(bytes.subarray(1))
    reader.array('COSE_Sign1', 4, 4)
    const header = reader.bytes('protected header')
    reader.map('unprotected header', 0)
    const payload = reader.bytes('payload')
    const signature = reader.bytes('signature', signatureBytes)
    reader.end()
    return { header, payload, signature }
  })
}

function encodePayload(envelope: Envelope): Uint8Array {
  const writer = new CborWriter(1024)
  if (envelope.kind === 'configuration') {
    const { agent, group, version, notBeforeMs, expiresMs, document } = envelope
    writer.textMap({ agent, group, version, notBefore: notBeforeMs, expires: expiresMs, document })
  } else {
    const { agent, id, command, expiresMs } = envelope
    writer.textMap({ agent, id, command, arguments: envelope.arguments, expires: expiresMs })
  }
  return writer.take()
}

function readPayload(kind: Envelope['kind'], payload: Uint8Array): Envelope {
  const content = guarded('ENVELOPE_INVALID', () => {
    const reader = new CborReader(payload)
    const value = reader.value()
    reader.end()
    return value
  })
  const members = new Members(content, '')
  return kind === 'configuration' ? readConfiguration(members) : readCommand(members)
}

function readConfiguration(members: Members): Configuration {
  const target: Target = members.has('group')
    ? { group: members.text('group', (group) => groupProblem(group) === undefined) }
    : { agent: members.text('agent', isAgentName) }
  const version = members.integer('version', 1)
  const notBeforeMs = members.integer('notBefore', 0)
  const expiresMs = members.integer('expires', 0)
  const document = members.document('document')
  members.end()
  return { kind: 'configuration', ...target, version, notBeforeMs, expiresMs, document }
}

function readCommand(members: Members): Command {
  const command: Command = {
    kind: 'command',
    agent: members.text('agent', isAgentName),
    id: members.text('id', isCommandId),
    command: members.text('command', (given) => /^[a-z-]{1,64}$/.test(given)),
    arguments: members.document('arguments'),
    expiresMs: members.integer('expires', 0),
  }
  members.end()
  return command
}

/** Takes the members of a map that came from outside, each once. */
class Members {
  readonly #left: Map<string, CborValue>

  constructor(value: CborValue, path: string) {
    if (!isMap(value)) throw invalid(`${path || 'the payload'} is no map`)
    this.#left = new Map(Object.entries(value))
  }

  has(name: string): boolean {
    return this.#left.has(name)
  }

  text(name: string, good: (text: string) => boolean): string {
    const value = this.#take(name)
    if (typeof value !== 'string' || !good(value)) throw invalid(`${name} is not as it must be`)
    return value
  }

  integer(name: string, min: number): number {
    const value = this.#take(name)
    if (!Number.isSafeInteger(value) || (value as number) < min)
      throw invalid(`${name} is no integer from ${min} on`)
    return value as number
  }

  document(name: string): Document {
    const value = this.#take(name)
    if (!isMap(value)) throw invalid(`${name} is no map`)
    checkDocument(value, name)
    return value as Document
  }

  end(): void {
    for (const name of this.#left.keys())
      throw invalid(`${JSON.stringify(name.slice(0, 64))} has no place in it`)
  }

  #take(name: string): CborValue | undefined {
    const value = this.#left.get(name)
    this.#left.delete(name)
    return value
  }
}

/** Nothing but what YAML can say, and no key that would not be one: `__proto__`. */
function checkDocument(value: CborValue, path: string): void {
  if (typeof value === 'bigint' || value instanceof Uint8Array)
    throw invalid(`${path} is neither text nor number`)
  if (typeof value === 'number' && !Number.isFinite(value)) throw invalid(`${path} is not finite`)
  if (typeof value !== 'object' || value === null) return
  for (const [key, member] of Object.entries(value)) {
    if (key === '__proto__') throw invalid(`${path} has a member __proto__`)
    checkDocument(member, `${path}.${key.slice(0, 64)}`)
  }
}

function isMap(value: unknown): value is { [key: string]: CborValue } {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Uint8Array)
  )
}

function invalid(detail: string): EnvelopeFailure {
  return new EnvelopeFailure('ENVELOPE_INVALID', detail)
}

function guarded<T>(code: 'ENVELOPE_MALFORMED' | 'ENVELOPE_INVALID', read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof WireFailure)) throw cause
    // What it says of itself is about batches.
    throw new EnvelopeFailure(code, cause.message.replace(/^[^:]*: /, ''), { cause })
  }
}
