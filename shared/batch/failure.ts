import { CodedFailure } from '../failure.ts'

export const wireFailures = {
  WIRE_MALFORMED: { retry: false, meaning: 'not CBOR of the strict profile' },
  WIRE_INVALID: { retry: false, meaning: 'not a batch' },
  WIRE_VERSION: { retry: false, meaning: 'a batch of a version that this program does not know' },
  WIRE_TOO_LARGE: { retry: false, meaning: 'more than a batch may hold' },
  WIRE_COMPRESSION: { retry: false, meaning: 'compressed bytes that do not inflate' },
} as const
export type WireFailureCode = keyof typeof wireFailures

/** Foreign bytes that are no batch. Nothing of them has been used. */
export class WireFailure extends CodedFailure<WireFailureCode> {
  constructor(code: WireFailureCode, detail: string, options?: { cause?: unknown }) {
    super(wireFailures, code, detail, options)
    this.name = 'WireFailure'
  }
}

/** Shorthand for what a schema check throws. */
export function invalid(detail: string): WireFailure {
  return new WireFailure('WIRE_INVALID', detail)
}
