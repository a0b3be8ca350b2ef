/** Why somebody is not let in, and how that is answered over HTTP. */
const refusals = {
  token: { status: 403, message: 'the token is unknown, or was used' },
  token_expired: { status: 403, message: 'the token has expired: ask for another invitation' },
  token_taken: { status: 403, message: 'another gateway has used this token' },
  request: { status: 400, message: 'no fit certificate request' },
  foreign: { status: 401, message: 'the certificate is not of this fleet' },
  expired: { status: 401, message: 'the certificate has expired' },
  revoked: { status: 403, message: 'the certificate was revoked' },
  unknown: { status: 403, message: 'the certificate is not, or no longer, that of an agent here' },
  other_key: { status: 403, message: 'a renewal is for the same key' },
  early: { status: 429, message: 'the certificate is still new' },
} as const
export type RefusalCode = keyof typeof refusals

/** Somebody is not let in. */
export class Refused extends Error {
  readonly code: RefusalCode

  constructor(code: RefusalCode, detail: string = refusals[code].message) {
    super(detail)
    this.name = 'Refused'
    this.code = code
  }

  get status(): number {
    return refusals[this.code].status
  }
}
