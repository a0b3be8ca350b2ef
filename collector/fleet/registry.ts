import { createHash, type X509Certificate } from 'node:crypto'
import type { Logger } from '../../shared/log.ts'
import type { Clock } from '../../shared/ports.ts'
import {
  type Authority,
  BadRequest,
  type CertificateRequest,
  plainSerial,
  readRequest,
} from './authority.ts'
import type { Fact, Invitation } from './facts.ts'
import { type RefusalCode, Refused } from './refused.ts'
import type { FleetState, Member, OpenInvitation } from './state.ts'
import { commonNameOf, type Who, whoIs } from './who.ts'

/** Writes a fact down, applies it, and resolves once it is durable. */
export type Recorder = (by: string, fact: Fact) => Promise<void>

/** Somebody with a certificate that counts. */
export interface Admission {
  who: Who
  commonName: string
  serial: string
  notAfterMs: number
}

export interface RegistryOptions {
  state: FleetState
  record: Recorder
  authority: Authority
  clock: Clock
  logger: Logger
  /** Of an agent's certificate. */
  lifetimeMs: number
}

/** A gateway that was away for so long after its certificate's end may still have it renewed. */
const renewAfterExpiryMs = 365 * 86_400_000
/** A certificate is renewed only once so much of its life is over. */
const renewFrom = 0.1
/** A renewal whose answer was lost is asked for again after so long: no signing for each request. */
const askAgainMs = 60_000
/** Refusals that are written down each, a minute: whoever knocks must not fill the disk. */
const refusalsPerMinute = 20

/** Who belongs to the fleet: lets in, renews, throws out. */
export class Registry {
  readonly #options: RegistryOptions
  #refusals = { sinceMs: Number.NEGATIVE_INFINITY, count: 0 }
  #unlisted = 0

  constructor(options: RegistryOptions) {
    this.#options = options
  }

  async invite(by: string, invitations: readonly Invitation[]): Promise<void> {
    await Promise.all(
      invitations.map((invitation) => this.#options.record(by, { act: 'invite', ...invitation })),
    )
  }

  /**
   * Gives a certificate for a token. The same gateway (by its key) gets another for the same token until it
   * has used one, for the first answer may have been lost.
   *
   * @throws Refused
   */
  async enrol(secret: Uint8Array, requestPem: string, from: string) {
    const { state, record, authority, lifetimeMs } = this.#options
    const hash = createHash('sha256').update(secret).digest('hex')
    const request = await this.#read(requestPem, 'enrol', from)
    const nowMs = this.#nowMs()
    const invitation = state.invitations.get(hash)
    const refuse = (code: RefusalCode) =>
      this.#refuse(code, { what: 'enrol', from, agent: invitation?.agent })
    if (!invitation) return refuse('token')
    if (invitation.expiresMs <= nowMs) return refuse('token_expired')
    const { agent } = invitation
    const key = request.fingerprint
    const isTaken = ({ key: other }: OpenInvitation) => other !== undefined && other !== key
    if (isTaken(invitation)) return refuse('token_taken')
    const { serial, pem, notAfterMs } = await authority.sign(request, agent, lifetimeMs, nowMs)
    // Meanwhile it may have been withdrawn, and is to stay so; or another gateway was faster.
    const now = state.invitations.get(hash)
    if (!now) return refuse('token')
    if (isTaken(now)) return refuse('token_taken')
    await record(agent, { act: 'enrol', agent, hash, key, serial, notAfterMs })
    return { member: state.members.get(agent)!, certificate: pem }
  }

  /** @throws Refused */
  async renew(certificate: X509Certificate, requestPem: string, from: string) {
    const { state, record, authority, lifetimeMs } = this.#options
    const shown = this.check(certificate)
    const { who, notAfterMs: oldEndMs } = shown
    const nowMs = this.#nowMs()
    const agent = who.name
    const member = state.members.get(agent)
    if (who.role !== 'agent' || !member) throw new Refused('unknown')
    if (oldEndMs + renewAfterExpiryMs < nowMs) throw new Refused('expired')
    const newest = member.certificates.reduce((a, b) => (b.notAfterMs > a.notAfterMs ? b : a))
    const renewedMs = newest.notAfterMs - lifetimeMs
    // Who comes with an older one may have lost the answer with the newest, and cannot get in without.
    const restMs = lifetimeMs * renewFrom
    const waitMs = newest.serial === shown.serial ? restMs : Math.min(restMs, askAgainMs)
    if (nowMs - renewedMs < waitMs) throw new Refused('early')
    const request = await this.#read(requestPem, 'renew', from, agent)
    if (request.fingerprint !== member.key)
      return this.#refuse('other_key', { what: 'renew', from, agent })
    const { serial, pem, notAfterMs } = await authority.sign(request, agent, lifetimeMs, nowMs)
    // It may have been revoked meanwhile: no list would ever name the new one.
    const refusal = this.standing(shown)
    if (refusal) throw new Refused(refusal)
    await record(agent, { act: 'renew', agent, serial, notAfterMs })
    return { member, certificate: pem }
  }

  async revoke(by: string, name: string): Promise<void> {
    await this.#options.record(by, { act: 'revoke', name })
  }

  /** For brokers that read one (PEM). */
  revocationList(
    revoked: readonly { serial: string; atMs: number }[],
    nowMs: number,
    lifetimeMs: number,
  ): Promise<string> {
    return this.#options.authority.revocationList(revoked, nowMs, lifetimeMs)
  }

  /**
   * Whose certificate it is, if it counts now.
   *
   * @throws Refused
   */
  admit(certificate: X509Certificate): Admission {
    const admission = this.check(certificate)
    if (admission.notAfterMs <= this.#nowMs()) throw new Refused('expired')
    const member = this.#options.state.members.get(admission.who.name)
    if (admission.who.role === 'agent' && member?.unconfirmed) this.#confirm(member)
    return admission
  }

  /** As `admit`, but for its end. */
  check(certificate: X509Certificate): Admission {
    const { authority } = this.#options
    const who = whoIs(certificate)
    if (!who || !authority.vouchesFor(certificate)) throw new Refused('foreign')
    if (Date.parse(certificate.validFrom) > this.#nowMs()) throw new Refused('expired')
    const admission = {
      who,
      commonName: commonNameOf(who),
      serial: plainSerial(certificate.serialNumber),
      notAfterMs: Date.parse(certificate.validTo),
    }
    const refusal = this.standing(admission)
    if (refusal) throw new Refused(refusal)
    return admission
  }

  /** Whether somebody who was admitted before has been thrown out since. */
  standing({ who, commonName, serial }: Admission): 'revoked' | 'unknown' | undefined {
    const { state } = this.#options
    if (who.role !== 'agent') return state.revokedNames.has(commonName) ? 'revoked' : undefined
    const member = state.members.get(who.name)
    if (member?.revokedMs !== undefined) return 'revoked'
    return member?.certificates.some((known) => known.serial === serial) ? undefined : 'unknown'
  }

  #confirm(member: Member): void {
    const { record, logger } = this.#options
    const hash = member.unconfirmed!
    member.unconfirmed = undefined
    record(member.name, { act: 'confirm', agent: member.name, hash }).catch((err) =>
      logger.error({ err }, 'the fleet’s journal cannot be written'),
    )
  }

  async #read(
    pem: string,
    what: string,
    from: string,
    agent?: string,
  ): Promise<CertificateRequest> {
    try {
      return await readRequest(pem)
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error
      return this.#refuse('request', { what, from, agent }, error.message)
    }
  }

  async #refuse(
    code: RefusalCode,
    { what, from, agent }: { what: string; from: string; agent?: string | undefined },
    detail?: string,
  ): Promise<never> {
    const { record, clock, logger } = this.#options
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#refusals.sinceMs > 60_000) this.#refusals = { sinceMs: nowMs, count: 0 }
    this.#refusals.count += 1
    if (this.#refusals.count > refusalsPerMinute) this.#unlisted += 1
    else {
      const times = this.#unlisted
      this.#unlisted = 0
      logger.warn({ what, why: code, agent, from }, 'turned away')
      await record('collector', {
        act: 'refuse',
        what,
        why: code,
        from,
        ...(agent !== undefined && { agent }),
        ...(times > 0 && { times }),
      })
    }
    throw new Refused(code, detail)
  }

  #nowMs(): number {
    return this.#options.clock.wallMs()
  }
}
