import { CodedFailure } from '../failure.ts'

export const envelopeFailures = {
  ENVELOPE_TOO_LARGE: { retry: false, meaning: 'larger than an envelope may be' },
  ENVELOPE_MALFORMED: { retry: false, meaning: 'no COSE_Sign1 of the kind that is expected here' },
  ENVELOPE_FORGED: { retry: false, meaning: 'the signature is not of our fleet' },
  ENVELOPE_INVALID: { retry: false, meaning: 'signed, but no envelope' },
} as const
export type EnvelopeFailureCode = keyof typeof envelopeFailures

/** Bytes that are no envelope, or not ours. Nothing of them has been used. */
export class EnvelopeFailure extends CodedFailure<EnvelopeFailureCode> {
  constructor(code: EnvelopeFailureCode, detail: string, options?: { cause?: unknown }) {
    super(envelopeFailures, code, detail, options)
    this.name = 'EnvelopeFailure'
  }
}
